"""Forward and backward through batched networks, by hand: a layer is one batched product for all of them.

Compared with autograd, this needs no graph, saves only what the backward pass needs, and accumulates the gradient over
tiles. All shapes depend on the layout alone, so that a GPU can replay it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from bdqm_tune.learning.batched.layout import Layout, Views

EPSILON, MOMENTUM = 1e-5, 0.1  # of batch normalisation, as torch has them
PART = 256  # atoms whose share of a gradient is one product: of few large sums a GPU would compute only few at a time

Tensor = torch.Tensor
aten = torch.ops.aten
VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
    "softplus": torch.nn.functional.softplus,
}
# The derivative times an adjoint, of what entered the activation and its value.
SLOPES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "tanh": lambda adjoint, entering, value: aten.tanh_backward(adjoint, value),
    "relu": lambda adjoint, entering, value: aten.threshold_backward(adjoint, entering, 0),
    "gelu": lambda adjoint, entering, value: aten.gelu_backward(adjoint, entering),
    "silu": lambda adjoint, entering, value: aten.silu_backward(adjoint, entering),
    "softplus": lambda adjoint, entering, value: aten.softplus_backward(adjoint, entering, 1, 20),
}


class Rows(NamedTuple):
    """What the rows of a tile are, for each slot."""

    x: Tensor  # (n_slots, tile, n_features); whatever comes after the last atom
    inside: Tensor  # (n_slots, tile, 1) 1 for an atom, 0 after the last one
    n_atoms: Tensor  # (n_slots, 1, 1)
    by_batch: Tensor  # (n_slots, 1, 1) truth values: whether batch normalisation goes by these atoms


class Normalised(NamedTuple):
    """What batch normalisation saves for its backward pass."""

    centred: Tensor  # (n, tile, width), 0 after the last atom
    inverse: Tensor  # (n, 1, width) 1 / standard deviation


class Passed(NamedTuple):
    """What a layer saves for the backward pass: (n, tile, width) each."""

    entering: Tensor  # the activation
    value: Tensor  # of it
    dropped: Tensor  # the same after dropout
    normalised: Normalised | None


def forward(
    layout: Layout,
    activation: str,
    parameters: Tensor,
    by_layer: Sequence[Views],
    running: Tensor,
    rows: Rows,
    factors: Sequence[Tensor | None],
) -> tuple[Tensor, list[Passed]]:
    """Contributions to the energies (n_slots, tile), and what each layer saves.

    Args:
        factors: of each slot with dropout (tile, n_nodes), by which its nodes are multiplied.
    """
    energies = rows.x.new_empty(*rows.x.shape[:2], 1)
    value, passed = rows.x, []
    for layer, own in zip(layout.layers, by_layer, strict=True):
        n = layer.n_slots
        entering, normalised = torch.baddbmm(own.bias, value[:n], own.weight.mT), None
        if layout.batchnorm:
            mean, variance = running[:n, None, layer.mean : layer.mean + 2 * layer.width].split(layer.width, dim=2)
            entering, normalised = _normalise(entering, own, mean, variance, _first(rows, n))
        value = activated = VALUES[activation](entering)
        if any(factor is not None for factor in factors[:n]):
            value = activated.clone()
            for slot, factor in enumerate(factors[:n]):
                if factor is not None:
                    value[slot].mul_(factor[:, layer.column : layer.column + layer.width])
        passed.append(Passed(entering, activated, value, normalised))
        ends = slice(layer.n_above, n)
        if n > layer.n_above:
            output = parameters[ends, None, layout.output : layout.output + layer.width]
            bias = parameters[ends, layout.output_bias, None, None]
            energies[ends] = torch.baddbmm(bias, value[ends], output.mT)
    return energies[:, :, 0], passed


def backward(
    layout: Layout,
    activation: str,
    parameters: Tensor,
    by_layer: Sequence[Views],
    rows: Rows,
    factors: Sequence[Tensor | None],
    passed: Sequence[Passed],
    outer: Tensor,
    gradient: Tensor,
    gradient_by_layer: Sequence[Views],
) -> None:
    """Add to the gradient what adjoints of the contributions, outer (n_slots, tile), give; 0 after the last atom."""
    column = outer[:, :, None]
    gradient[:, layout.output_bias].add_(outer.sum(1))
    above: Tensor | None = None
    for index in range(len(layout.layers) - 1, -1, -1):
        layer, own, left = layout.layers[index], by_layer[index], passed[index]
        n, ends = layer.n_slots, slice(layer.n_above, layer.n_slots)
        adjoint = torch.empty_like(left.entering)
        if above is not None:
            torch.bmm(above, by_layer[index + 1].weight, out=adjoint[: layer.n_above])
        if n > layer.n_above:
            output = slice(layout.output, layout.output + layer.width)
            torch.bmm(column[ends], parameters[ends, None, output], out=adjoint[ends])
            gradient[ends, None, output].add_(column[ends].mT @ left.dropped[ends])
        for slot, factor in enumerate(factors[:n]):
            if factor is not None:
                adjoint[slot].mul_(factor[:, layer.column : layer.column + layer.width])
        above = SLOPES[activation](adjoint, left.entering, left.value)
        if left.normalised is not None:
            above = _normalise_backward(above, own, left.normalised, _first(rows, n), gradient_by_layer[index])
        before = passed[index - 1].dropped[:n] if index else rows.x
        gradient_by_layer[index].weight.add_(_products(above, before))
        total = above.sum(1, keepdim=True)
        if layout.batchnorm:  # the batch's mean takes the bias away, and Adam would enlarge what rounding leaves of it
            total = torch.where(rows.by_batch[:n], 0, total)
        gradient_by_layer[index].bias.add_(total)


def _first(rows: Rows, n: int) -> Rows:
    return Rows(*(part[:n] for part in rows))


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Sums over the atoms (n, a, b) of products of values (n, tile, a) and (n, tile, b)."""
    left, right = (tensor.unflatten(1, (-1, PART)) for tensor in (left, right))
    n_parts = left.shape[1]
    return torch.bmm(left.flatten(0, 1).mT, right.flatten(0, 1)).unflatten(0, (-1, n_parts)).sum(1)


def _normalise(y: Tensor, own: Views, mean: Tensor, variance: Tensor, rows: Rows) -> tuple[Tensor, Normalised]:
    """Normalise y (n, tile, width) by the atoms or by the running statistics, and update these in training."""
    n = rows.n_atoms.clamp(min=1)
    used = torch.where(rows.by_batch, rows.inside.mT @ y / n, mean)
    centred = y.sub_(used).mul_(rows.inside)
    spread = torch.linalg.vector_norm(centred, dim=1, keepdim=True).square_() / n
    inverse = torch.rsqrt(torch.where(rows.by_batch, spread, variance) + EPSILON)
    moves = MOMENTUM * rows.by_batch.to(y.dtype)
    mean.lerp_(used, moves)
    variance.lerp_(spread * n / (n - 1).clamp(min=1), moves)
    return torch.addcmul(own.shift, centred, own.gain * inverse), Normalised(centred, inverse)


def _normalise_backward(above: Tensor, own: Views, left: Normalised, rows: Rows, gradient: Views) -> Tensor:
    """Adjoints of what was normalised, from those of the result, which are 0 after the last atom."""
    n = rows.n_atoms.clamp(min=1)
    total, along = above.sum(1, keepdim=True), (above * left.centred).sum(1, keepdim=True) * left.inverse
    gradient.gain.add_(along)
    gradient.shift.add_(total)
    scale = own.gain * left.inverse
    by_batch = scale * rows.by_batch / n
    above = above * scale
    above.addcmul_(left.centred, -by_batch * along * left.inverse)
    return above.baddbmm_(rows.inside, -by_batch * total)
