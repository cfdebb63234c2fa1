"""What a network contributes to an energy for each atom: by compiled code where the network is plain, else by torch.

For a few atoms, as in a step of molecular dynamics, torch's overhead of each operation would be most of the time.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.compiled.contributions import contribute
from bdqm_tune.learning.compiled.layout import joined, layout, statistics, weights
from bdqm_tune.learning.networks import AtomicNetwork, PerElementNN
from bdqm_tune.learning.plain_network import is_plain

# Of inputs (n_atoms, n_features), atomic numbers (n_atoms,) and whether derivatives are wanted: what each atom
# contributes, (n_atoms,), in units of the target's scale, and its derivatives by the inputs, (n_atoms, n_features), or
# None; computed in the network's precision.
Contributions = Callable[
    [NDArray[np.float64], NDArray[np.int64], bool], tuple[NDArray[np.float64], NDArray[np.float64] | None]
]


def contributions_of(network: AtomicNetwork, n_features: int, hyperparameters: Hyperparameters) -> Contributions:
    """The contributions of a network in evaluation mode.

    Weights that change in place count from the next call on; layers, hooks and tensors that are replaced do not.
    """
    # Of a copy, for it is compared as it was before the training: in single precision and in training mode.
    if is_plain(copy.deepcopy(network).float().train(), n_features, hyperparameters):
        return CompiledContributions(network, hyperparameters)
    return TorchContributions(network)


class TorchContributions:
    """`Contributions` by torch's operations."""

    def __init__(self, network: AtomicNetwork) -> None:
        self._network = network

    def __call__(
        self, inputs: NDArray[np.float64], numbers: NDArray[np.int64], derive: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        dtype = next(self._network.parameters()).dtype
        x = torch.as_tensor(inputs, dtype=dtype).requires_grad_(derive)
        with torch.set_grad_enabled(derive):
            outputs = self._network(x, torch.as_tensor(numbers))[:, 0]
        by_inputs = torch.autograd.grad(outputs.sum(), x)[0].double().numpy() if derive else None
        return outputs.detach().double().numpy(), by_inputs


class CompiledContributions:
    """`Contributions` of a plain network, or of a plain one for each element, by compiled code."""

    def __init__(self, network: AtomicNetwork, hyperparameters: Hyperparameters) -> None:
        networks = list(network.networks.values()) if isinstance(network, PerElementNN) else [network]
        self._places = network.places.numpy() if isinstance(network, PerElementNN) else None
        self._net = layout(networks[0], hyperparameters)
        self._weights = [part for each in networks for part in weights(each)]
        self._statistics = [part for each in networks for part in statistics(each)]
        self._dtype, self._n_networks = self._weights[0].dtype, len(networks)

    def __call__(
        self, inputs: NDArray[np.float64], numbers: NDArray[np.int64], derive: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        place = np.zeros(len(numbers), dtype=np.int64) if self._places is None else self._places[numbers]
        x = np.ascontiguousarray(inputs, self._dtype)
        outputs, by_inputs = np.empty(len(x), x.dtype), np.empty(x.shape if derive else (0, x.shape[1]), x.dtype)
        # Joined at each call: who trains the network on sees it in the predictions.
        p, running = (
            joined(parts, self._dtype).reshape(self._n_networks, -1) for parts in (self._weights, self._statistics)
        )
        contribute(self._net, p, running, place, x, outputs, by_inputs)
        return outputs.astype(np.float64), by_inputs.astype(np.float64) if derive else None
