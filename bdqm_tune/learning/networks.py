"""Networks: features of an atom → its contribution to the energy; one for all atoms, or one for each element."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import nn

from bdqm_tune.config.hyperparameters import Hyperparameters

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
}

_RANDOM_NUMBERS = threading.Lock()


class AtomicNetwork(nn.Module):
    """Scaled features (n_atoms, n_features) and atomic numbers (n_atoms,) → contributions to the energy (n_atoms, 1).

    The contributions are in units of the target's scale.
    """

    elements: tuple[int, ...] = ()  # atomic numbers of the elements that have weights of their own

    @property
    def n_parameters(self) -> int:
        """Trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


class SingleNN(AtomicNetwork, nn.Sequential):
    """The same network for every atom, whatever its element."""

    def __init__(self, n_features: int, hyperparameters: Hyperparameters) -> None:
        layers: list[nn.Module] = []
        width = n_features
        for nodes in hyperparameters.layers:
            layers.append(nn.Linear(width, nodes))
            width = nodes
            if hyperparameters.batchnorm:
                layers.append(BatchNorm(width))
            layers.append(ACTIVATIONS[hyperparameters.activation]())
            if hyperparameters.dropout:
                layers.append(nn.Dropout(hyperparameters.dropout_rate))
        output = nn.Linear(width, 1)
        super().__init__(*layers, output)
        if hyperparameters.initialization != "default":
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)
        if hyperparameters.initialization == "zero":
            nn.init.zeros_(output.weight)

    def forward(self, features: torch.Tensor, numbers: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(features)


class PerElementNN(AtomicNetwork):
    """A `SingleNN` for each element (Behler and Parrinello, Phys. Rev. Lett. 98, 146401 (2007)).

    An atom of an element without a network contributes 0: only its reference energy counts.
    """

    places: torch.Tensor

    def __init__(self, n_features: int, hyperparameters: Hyperparameters, elements: Sequence[int]) -> None:
        """
        Args:
            elements: atomic numbers of the elements that have a network.
        """
        super().__init__()
        self.elements = tuple(sorted(elements))
        self.networks = nn.ModuleDict(
            {chemical_symbols[z]: SingleNN(n_features, hyperparameters) for z in self.elements}
        )
        # The network of each atomic number; an index beyond the last: none.
        places = torch.full((len(atomic_numbers) + 1,), len(self.elements))
        places[list(self.elements)] = torch.arange(len(self.elements))
        self.register_buffer("places", places, persistent=False)

    def forward(self, features: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        place = self.places[numbers]
        order = torch.argsort(place, stable=True)
        # This synchronises with a GPU, but only once for all elements.
        counts = torch.bincount(place, minlength=len(self.elements) + 1).tolist()
        groups = features[order].split(counts)
        outputs = [
            network(group) if len(group) else group.new_zeros(0, 1)
            for network, group in zip(self.networks.values(), groups, strict=False)
        ]
        outputs.append(0 * groups[-1][:, :1])  # not a constant, of which there were no gradient
        return features.new_empty(len(features), 1).index_copy(0, order, torch.cat(outputs))


class MixedNN(PerElementNN):
    """A `SingleNN` for each element, of which every atom takes a share of each.

    For models of amptorch, which trains the mask that selects the network of an element: afterwards an atom also has
    some share of the other networks.
    """

    shares: torch.Tensor

    def __init__(self, n_features: int, hyperparameters: Hyperparameters, elements: Sequence[int]) -> None:
        super().__init__(n_features, hyperparameters, elements)
        shares = torch.zeros(len(self.places), len(self.elements))
        shares[list(self.elements), range(len(self.elements))] = 1
        self.register_buffer("shares", shares)  # (n_numbers, n_networks), by atomic number

    def forward(self, features: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        outputs = torch.cat([network(features) for network in self.networks.values()], dim=1)
        return (self.shares[numbers] * outputs).sum(dim=1, keepdim=True)


def make_network(
    n_features: int, hyperparameters: Hyperparameters, elements: Sequence[int], mixed: bool = False
) -> AtomicNetwork:
    """The network with these hyperparameters, in torch's default dtype.

    Args:
        elements: atomic numbers, of which each has a network if `hyperparameters.network` is `per_element`.
        mixed: with one network an element, a `MixedNN`.
    """
    if hyperparameters.network == "per_element":
        return (MixedNN if mixed else PerElementNN)(n_features, hyperparameters, elements)
    return SingleNN(n_features, hyperparameters)


@contextmanager
def borrowed_random_numbers(devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Lock torch's global random generators for this block, and restore their states afterwards."""
    with _RANDOM_NUMBERS, torch.random.fork_rng(devices):
        yield


def sum_per_structure(contributions: torch.Tensor, structure: torch.Tensor, n_structures: int) -> torch.Tensor:
    """Sums (n_structures,), float64, of contributions (n_atoms, 1); `structure` (n_atoms,) has the structure of each.

    In float32 a sum over thousands of atoms would be off by meV, and would move in steps.
    """
    sums = contributions.new_zeros(n_structures, dtype=torch.float64)
    return sums.index_add_(0, structure, contributions[:, 0].double())


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that trains on with its running statistics where a batch has a single row."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and len(input) == 1:
            return nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)
