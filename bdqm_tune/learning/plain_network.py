"""Whether a network is the sequence of layers that the compiled and the batched trainer know.

Both compute with a network's weights by formulas of their own. So the module itself is compared, layer by layer, with
the sequence that the hyperparameters describe: anything more, less or other is left to torch's operations.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.networks import BatchNorm, PerElementNN, SingleNN, borrowed_random_numbers

# Those that both trainers compute, each with torch's default settings; not those of `networks`, which may be edited.
KNOWN_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
}
ROWS = 8  # atoms of the comparison by values
ROUNDING = 1e-5  # of the largest value
# By object, what is private of torch and read here, and why; nothing else reads such an attribute.
BY_NAME = {
    "torch.Tensor": (
        "hooks, which the trainers would not run; torch has no public way to ask for them",
        ("_backward_hooks", "_post_accumulate_grad_hooks"),
    ),
    "torch.nn.Module": (
        "all that a module has, a hook of any kind included, by where it keeps it",
        ("_modules", "_parameters", "_buffers"),
    ),
}


class OtherNetwork(BdqmError):
    """A network is not the sequence of layers that a trainer knows."""


def is_plain(network: nn.Module, n_features: int, hyperparameters: Hyperparameters) -> bool:
    """Whether a network differs in nothing but the values of its weights from what the hyperparameters describe.

    That is `SingleNN` as `networks` has it: for each hidden layer a linear one, batch normalisation if it is on,
    the activation, and dropout if it is on; then a linear one with a single output. Settings, parameters, their types
    and what is trained of them must be the same, without hooks and without weights in common. What a class does is
    seen in values and gradients alone, which are compared for random weights and features. A `PerElementNN` is plain if
    the networks of all elements are.
    """
    if type(network) is PerElementNN:
        return all(is_plain(each, n_features, hyperparameters) for each in network.networks.values())
    if type(network) is not SingleNN or hyperparameters.activation not in KNOWN_ACTIVATIONS:
        return False
    with borrowed_random_numbers():
        known = _known(n_features, hyperparameters)
        return _is_alike(network, known) and not _shares(network) and _computes(network, known)


def check_plain(network: nn.Module, n_features: int, hyperparameters: Hyperparameters) -> None:
    """Raise OtherNetwork unless `is_plain`."""
    if not is_plain(network, n_features, hyperparameters):
        raise OtherNetwork(
            "the network is another than its hyperparameters describe; only torch's operations can train it"
        )


def _known(n_features: int, hyperparameters: Hyperparameters) -> nn.Sequential:
    """The sequence, of torch's own layers."""
    layers: list[nn.Module] = []
    for before, width in pairwise([n_features, *hyperparameters.layers]):
        layers.append(nn.Linear(before, width))
        if hyperparameters.batchnorm:
            layers.append(nn.BatchNorm1d(width))
        layers.append(KNOWN_ACTIVATIONS[hyperparameters.activation]())
        if hyperparameters.dropout:
            layers.append(nn.Dropout(hyperparameters.dropout_rate))
    return nn.Sequential(*layers, nn.Linear(hyperparameters.layers[-1], 1))


def _is_alike(module: nn.Module, known: nn.Module) -> bool:
    """Whether all attributes are the same, hooks included, except for the values of parameters and buffers."""
    own, expected = _attributes(module), _attributes(known)
    children, others = dict(module.named_children()), dict(known.named_children())
    return (
        own == expected
        and list(children) == list(others)
        and all(
            type(child) is (BatchNorm if type(other) is nn.BatchNorm1d else type(other)) and _is_alike(child, other)
            for child, other in zip(children.values(), others.values(), strict=True)
        )
    )


def _attributes(module: nn.Module) -> dict[str, Any]:
    """All that a module has of its own, with descriptions in the place of tensors and without its children."""
    found = {name: value for name, value in vars(module).items() if name != "_modules"}
    for kind in ("_parameters", "_buffers"):
        found[kind] = {name: _description(tensor) for name, tensor in found[kind].items()}
    return found


def _description(tensor: torch.Tensor | None) -> tuple[Any, ...] | None:
    """What a tensor is, but for its values."""
    if tensor is None:
        return None
    hooks = bool(tensor._backward_hooks), bool(getattr(tensor, "_post_accumulate_grad_hooks", None))
    return type(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad, hooks


def _shares(network: nn.Module) -> bool:
    """Whether a tensor is in two places, or two of them are the same memory."""
    tensors = [
        *(p for _, p in network.named_parameters(remove_duplicate=False)),
        *(b for _, b in network.named_buffers(remove_duplicate=False)),
    ]
    return len({tensor.untyped_storage().data_ptr() for tensor in tensors}) < len(tensors)


def _computes(network: nn.Module, known: nn.Sequential) -> bool:
    """Whether values and gradients are those of the sequence, in training and in evaluation."""
    torch.default_generator.manual_seed(0)  # not those of GPUs, one of which may be capturing a step
    weights = {  # none is 0, which would hide what comes before it
        name: torch.randn(p.shape).div_(p[0].numel() ** 0.5).requires_grad_() for name, p in known.named_parameters()
    }
    features = torch.randn(ROWS, next(known.parameters()).shape[1], requires_grad=True)
    inputs = features * torch.logspace(-2, 2, ROWS)[:, None]  # small ones and large ones
    answers = []
    for module in (network, _Unhooked(known)):
        torch.default_generator.manual_seed(1)  # of dropout
        prefix = "" if module is network else "known."
        buffers = {prefix + name: buffer.clone() for name, buffer in known.named_buffers()}
        state = {prefix + name: weight for name, weight in weights.items()} | buffers
        trained: torch.Tensor = torch.func.functional_call(module.train(), state, inputs)
        if not trained.requires_grad:
            return False
        inner = [features, *weights.values()]
        gradients = torch.autograd.grad(
            trained.sum(), inner, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        with torch.no_grad():
            evaluated = torch.func.functional_call(module.eval(), state, inputs)
        answers.append([trained.detach(), *gradients, evaluated, *(each.float() for each in buffers.values())])
    network.train()
    return all(_are_equal(own, other) for own, other in zip(*answers, strict=True))


def _are_equal(values: torch.Tensor, others: torch.Tensor) -> bool:
    # Before batch normalisation the gradient of a bias is 0 but for the rounding of values near 1.
    close = ROUNDING * max(float(others.abs().max()), 1e-2)
    return values.shape == others.shape and torch.allclose(values, others, rtol=0, atol=close)


class _Unhooked(nn.Module):
    """A sequence without what torch does around the calls of modules: hooks of its own, and those of all modules."""

    def __init__(self, known: nn.Sequential) -> None:
        super().__init__()
        self.known = known

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        for layer in self.known.children():
            features = layer.forward(features)
        return features
