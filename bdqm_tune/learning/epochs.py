"""The contract of the trainers: a network in training, one epoch a call."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from bdqm_tune.learning.networks import AtomicNetwork


class Epochs(Protocol):
    """A network in training, and the optimizer whose learning rate a schedule changes."""

    optimizer: torch.optim.Optimizer

    def train(self, order: torch.Tensor, sizes: Sequence[int], weight: float = 1.0) -> list[float]:
        """Train for one epoch.

        Args:
            order: (n_structures,) indices of the structures.
            sizes: structures in each batch.
            weight: factor of the coefficients of forces and stress in this epoch.

        Returns:
            Sums over the structures: of the loss of their batch, of the absolute errors of the energies and, with
            forces, of those of all their components, and with the stress of those of its; in units of the energy scale.
        """
        ...

    def validate(self) -> list[float]:
        """Sums of the absolute errors of energies, of those per atom and of the components of forces and stress."""
        ...

    def keep(self) -> None:
        """Keep a copy of the current weights, in the place of the last one."""
        ...

    @property
    def kept_network(self) -> AtomicNetwork:
        """A copy of the network with the kept weights, in evaluation mode; before `keep`, the initial ones."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that training changes, except the learning rate: copies on the CPU, by name."""
        ...

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Resume from the `state` of a network with the same hyperparameters, data and seed."""
        ...
