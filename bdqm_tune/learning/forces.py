"""Forces by the chain rule: from the network's gradient and the features' derivatives, entry by entry.

The force on atom k is F_k = -Σ_i Σ_f dE/dG_if · dG_if/dr_k, the sum over the centres i, k included, that have k within
their cutoff. Memory and time grow with the number of neighbour pairs, never with the square of the number of atoms.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bdqm_tune.learning.derivative_tensors import Chosen, DerivativeTensors
from bdqm_tune.learning.memory_budget import MemoryBudget
from bdqm_tune.learning.scaled_features import ScaledDerivatives


@dataclass(frozen=True)
class ForceBatch:
    """The derivatives and the forces of some structures."""

    centre: torch.Tensor  # (n_entries,) atom of the batch whose features change
    atom: torch.Tensor  # (n_entries,) atom of the batch that is moved
    values: torch.Tensor  # (n_entries, 3, n_features) of the scaled features, 1/Å
    targets: torch.Tensor  # (n_atoms, 3), 1/Å: in units of the energy scale; 0 where they are not known
    known: torch.Tensor | None = None  # (n_atoms, 1) 1 where forces are known, else 0; None: all are

    def errors(self, forces: torch.Tensor) -> torch.Tensor:
        """Errors (n_atoms, 3) of forces, 1/Å; 0 where the true ones are not known."""
        errors = forces - self.targets
        return errors if self.known is None else errors * self.known

    def loss(self, loss: nn.Module, forces: torch.Tensor) -> torch.Tensor:
        """The mean loss of the components that are known; 0 if none is."""
        mean: torch.Tensor = loss(forces if self.known is None else forces * self.known, self.targets)
        return mean if self.known is None else mean * len(self.known) / self.known.sum().clamp(min=1)

    def forces(self, gradient: torch.Tensor) -> torch.Tensor:
        """Forces (n_atoms, 3), 1/Å, from the gradient (n_atoms, n_features) of the energy by the scaled features."""
        felt = gradient.index_select(0, self.centre)
        pulls = torch.bmm(self.values, felt[:, :, None])[:, :, 0]
        return -gradient.new_zeros(len(gradient), 3).index_add(0, self.atom, pulls)


class ForceTensors:
    """Forces and derivatives of a split; derivatives beyond the memory budget are read when they are used."""

    def __init__(
        self,
        forces: NDArray[np.float64],
        derivatives: ScaledDerivatives,
        device: torch.device,
        dtype: torch.dtype,
        room: MemoryBudget | None = None,
    ) -> None:
        """
        Args:
            forces: (total atoms, 3), 1/Å, in units of the energy scale; NaN where they are not known.
            derivatives: of the split's scaled features.
            room: memory budget of the device; None: unlimited.
        """
        known = ~np.isnan(forces).any(axis=1, keepdims=True)
        self.n_known = int(known.sum())  # atoms
        self._known = None if known.all() else torch.as_tensor(known, dtype=dtype, device=device)
        self._targets = torch.as_tensor(np.where(known, forces, 0.0), dtype=dtype, device=device)
        self.derivatives = DerivativeTensors(derivatives, device, dtype, room)

    def arrays(self, first: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """The loaded arrays, in the order of `compiled.kernel.Data`.

        Args:
            first: (n_structures,) index of each structure's first atom.
        """
        known = np.ones(len(first), dtype=bool) if self._known is None else self._known.numpy()[first, 0] > 0
        return *self.derivatives.arrays(), self._targets.numpy(), known

    def batch(
        self,
        structures: Chosen,
        start: torch.Tensor,
        atoms: torch.Tensor,
        read: torch.Tensor | None = None,
    ) -> ForceBatch:
        """Forces and derivatives of these structures, in this order.

        Args:
            start: (n_structures,) index in the batch of each structure's first atom.
            atoms: (n_atoms,) index in the split of each of the batch's atoms.
            read: their derivatives, if these are not on the device.
        """
        entries = self.derivatives.batch(structures, start, read)
        known = None if self._known is None else self._known[atoms]
        return ForceBatch(*entries, self._targets[atoms], known)
