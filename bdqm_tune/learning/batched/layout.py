"""The memory layout of batched networks: a row each, padded to the widest and deepest of them."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

ALIGNED = 8  # widths and starts are multiples of it, for fast products on a GPU


class Places(NamedTuple):
    """Indices of one network's numbers in its row."""

    parameters: NDArray[np.int64]  # in the order of `parameters_to_vector`
    running: NDArray[np.int64]  # means and variances of batch normalisation, layer after layer


class Layer(NamedTuple):
    """Starts of a hidden layer's numbers in a row; of all that it has `width` but the weights."""

    n_slots: int  # that have the layer, the first ones
    n_above: int  # of these, that have one more
    width: int
    before: int  # nodes of the layer before, or features
    weight: int  # (width, before)
    bias: int
    gain: int  # and shift: of batch normalisation; unused without it
    shift: int
    mean: int  # among the running statistics; the variance follows
    column: int  # of its nodes among those of all layers


class Layout:
    """Slots for networks of these depths, the deepest first.

    A layer is computed for the first slots only, those that have it. What is narrower than a slot has zeros there.
    """

    def __init__(self, n_features: int, depths: Sequence[int], widths: Sequence[int], batchnorm: bool) -> None:
        """
        Args:
            depths: hidden layers of each slot, in falling order.
            widths: most nodes of each hidden layer.
        """
        self.depths, self.batchnorm, self.n_features = tuple(depths), batchnorm, n_features
        self.widths = tuple(-(-width // ALIGNED) * ALIGNED for width in widths)
        self.layers: list[Layer] = []
        place = 0
        columns = list(accumulate(self.widths, initial=0))
        for index, (width, before) in enumerate(zip(self.widths, (n_features, *self.widths), strict=False)):
            n_slots, n_above = (sum(depth > level for depth in depths) for level in (index, index + 1))
            bias = place + width * before
            normal = (bias + width, bias + 2 * width) if batchnorm else (bias, bias)
            self.layers.append(
                Layer(n_slots, n_above, width, before, place, bias, *normal, 2 * columns[index], columns[index])
            )
            place = bias + (3 * width if batchnorm else width)
        self.output, self.output_bias = place, place + max(self.widths, default=0)
        self.n_slots, self.n_parameters, self.n_nodes = len(depths), self.output_bias + ALIGNED, columns[-1]
        self.n_running = 2 * self.n_nodes if batchnorm else 0

    def fits(self, widths: Sequence[int]) -> bool:
        """Whether hidden layers of these widths fit into a slot of their depth."""
        return all(width <= most for width, most in zip(widths, self.widths, strict=False))

    def places(self, widths: Sequence[int]) -> Places:
        """The indices of a network with hidden layers of these widths."""
        parameters, running, before = [], [], self.n_features
        for width, layer in zip(widths, self.layers, strict=False):
            nodes = np.arange(width)
            rows = layer.weight + layer.before * nodes[:, None] + np.arange(before)
            starts = (layer.bias, layer.gain, layer.shift) if self.batchnorm else (layer.bias,)
            parameters += [rows.ravel(), *(start + nodes for start in starts)]
            running += [layer.mean + nodes, layer.mean + layer.width + nodes]
            before = width
        parameters += [self.output + np.arange(before), np.array([self.output_bias])]
        return Places(np.concatenate(parameters), np.concatenate(running) if self.batchnorm else np.zeros(0, np.int64))

    def columns(self, widths: Sequence[int]) -> NDArray[np.int64]:
        """Indices of a network's hidden nodes among those of a slot."""
        return np.concatenate(
            [layer.column + np.arange(width) for width, layer in zip(widths, self.layers, strict=False)]
        )


class Views(NamedTuple):
    """A hidden layer's numbers for the slots that have it, in a tensor of all parameters or of their gradient."""

    weight: torch.Tensor  # (n_slots, width, before)
    bias: torch.Tensor  # (n_slots, 1, width)
    gain: torch.Tensor
    shift: torch.Tensor


def views(flat: torch.Tensor, layout: Layout) -> list[Views]:
    """The views of every hidden layer in a tensor (n_slots, n_parameters)."""
    return [
        Views(
            flat[: layer.n_slots, layer.weight : layer.bias].unflatten(1, (layer.width, layer.before)),
            *(
                flat[: layer.n_slots, None, start : start + layer.width]
                for start in (layer.bias, layer.gain, layer.shift)
            ),
        )
        for layer in layout.layers
    ]
