"""The stress by the chain rule, from the network's gradient and the features' derivatives by a strain.

A strain ε of a structure changes its energy by dE/dε = Σ_i Σ_f dE/dG_if · dG_if/dε, which is stress · volume. What is
trained is that over the number of atoms, eV/atom: in cells of any size it is as large, as the energy per atom is. It is
a sum of forces times distances of neighbours, some 3 Å, so that a weight of 0.3 goes with one of 1 Å for the forces.
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
class StressBatch:
    """The derivatives and the stress of some structures, which is in units of the energy scale; in Voigt's order."""

    centre: torch.Tensor  # (n_entries,) atom of the batch whose features change
    owner: torch.Tensor  # (n_entries,) structure of the batch that is strained
    values: torch.Tensor  # (n_entries, 6, n_features) of the scaled features
    targets: torch.Tensor  # (n_structures, 6) of stress · volume per atom; 0 where it is not known
    known: torch.Tensor  # (n_structures, 1) 1 where it is known, else 0
    n_atoms: torch.Tensor  # (n_structures, 1)
    density: torch.Tensor  # (n_structures, 1) atoms/Å³; 0 where the stress is not known

    def virials(self, gradient: torch.Tensor) -> torch.Tensor:
        """Stress · volume per atom (n_structures, 6) from the gradient (n_atoms, n_features) of the energy.

        It is 0 where there are no derivatives.
        """
        felt = gradient.index_select(0, self.centre)
        of_atoms = torch.bmm(self.values, felt[:, :, None])[:, :, 0]
        return gradient.new_zeros(self.targets.shape).index_add(0, self.owner, of_atoms) / self.n_atoms

    def errors(self, virials: torch.Tensor) -> torch.Tensor:
        """Errors (n_structures, 6) of the stress, 1/Å³; 0 where the true one is not known."""
        return (virials - self.targets) * self.density

    def loss(self, loss: nn.Module, virials: torch.Tensor) -> torch.Tensor:
        """The mean loss of the components that are known; 0 if none is."""
        mean: torch.Tensor = loss(virials, self.targets)
        return mean * len(self.known) / self.known.sum().clamp(min=1)


class StressTensors:
    """Stress and derivatives of a split; derivatives beyond the memory budget are read when they are used."""

    def __init__(
        self,
        stresses: NDArray[np.float64],
        volumes: NDArray[np.float64],
        n_atoms: NDArray[np.int64],
        derivatives: ScaledDerivatives,
        device: torch.device,
        dtype: torch.dtype,
        room: MemoryBudget | None = None,
    ) -> None:
        """
        Args:
            stresses: (n_structures, 6), 1/Å³, in units of the energy scale; NaN where they are not known.
            volumes: (n_structures,), Å³; of structures with a stress.
            n_atoms: (n_structures,).
            derivatives: of the split's scaled features by the strain, of the structures with a stress.
            room: memory budget of the device; None: unlimited.
        """
        known = ~np.isnan(stresses).any(axis=1, keepdims=True)
        self.n_known = int(known.sum())  # structures
        density = n_atoms[:, None] / np.where(known, volumes[:, None], np.inf)
        targets = np.divide(stresses, density, out=np.zeros_like(stresses), where=known)

        def tensor(values: Any) -> torch.Tensor:
            return torch.as_tensor(values, dtype=dtype, device=device)

        self._targets, self._known, self._density = tensor(targets), tensor(known), tensor(density)
        self._n_atoms = tensor(n_atoms[:, None])
        self.derivatives = DerivativeTensors(derivatives, device, dtype, room)

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """The loaded arrays, in the order of `compiled.kernel.Data`."""
        first, _, _, _, values = self.derivatives.arrays()
        return first, values, self._targets.numpy(), self._known.numpy()[:, 0] > 0, self._density.numpy()[:, 0]

    def batch(
        self,
        structures: Chosen,
        start: torch.Tensor,
        owner: torch.Tensor,
        read: torch.Tensor | None = None,
    ) -> StressBatch:
        """Stress and derivatives of these structures, in this order.

        Args:
            start: (n_structures,) index in the batch of each structure's first atom.
            owner: (n_atoms,) which of the batch's structures each of its atoms belongs to.
            read: their derivatives, if these are not on the device.
        """
        centre, _, values = self.derivatives.batch(structures, start, read)
        of_structures = (
            part[structures.on_device] for part in (self._targets, self._known, self._n_atoms, self._density)
        )
        return StressBatch(centre, owner[centre], values, *of_structures)
