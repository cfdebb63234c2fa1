"""The errors of structures, recorded as batches pass through a loss of mace; where there is no label, there is none."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bdqm_tune.learning.held_out import HeldOut

ROWS, COLUMNS = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]  # of the components of a stress: xx, yy, zz, yz, xz, xy


class RecordedLoss:
    """A loss that also keeps the errors of each structure: mace gives it all that it predicts."""

    def __init__(self, loss: Callable[..., torch.Tensor]) -> None:
        self._loss = loss
        self._batches: list[tuple[torch.Tensor, ...]] = []
        self._losses: list[torch.Tensor] = []  # each times the structures of its batch

    def __call__(self, pred: dict[str, Any], ref: Any, ddp: bool | None = None) -> torch.Tensor:
        loss = self._loss(pred=pred, ref=ref, ddp=ddp)
        self._losses.append(loss.detach().double() * ref.num_graphs)
        n_atoms = ref.ptr[1:] - ref.ptr[:-1]
        zero = torch.zeros(ref.num_graphs, dtype=torch.float64, device=n_atoms.device)
        energies = (pred["energy"] - ref.energy).detach().double()
        forces, has_forces, stress, has_stress = zero, zero, zero, zero
        if pred.get("forces") is not None:
            errors = (pred["forces"] - ref.forces).detach().double().abs().sum(dim=1)
            has_forces = (ref.forces_weight > 0).double()
            forces = zero.index_add(0, ref.batch, errors) * has_forces
        if pred.get("stress") is not None:
            difference = (pred["stress"] - ref.stress).detach().double()[:, ROWS, COLUMNS]
            has_stress = (ref.stress_weight > 0).double()
            stress = difference.abs().sum(dim=1) * ref.stretch.double() * has_stress
        self._batches.append((energies, n_atoms.double(), forces, 3 * n_atoms * has_forces, stress, 6 * has_stress))
        return loss

    @property
    def loss(self) -> float:
        """Mean over the structures."""
        return float(torch.stack(self._losses).sum() / len(self._column(0)))

    @property
    def energy_mae(self) -> float:
        """Mean absolute error of the energies, eV."""
        return float(np.abs(self._column(0)).mean())

    @property
    def energy_mae_per_atom(self) -> float:
        """The same of the energies per atom, eV/atom."""
        return float((np.abs(self._column(0)) / self._column(1)).mean())

    @property
    def forces_mae(self) -> float | None:
        """Of the components of the forces, eV/Å; None: no structure has any."""
        return _mean(self._column(2), self._column(3))

    @property
    def stress_mae(self) -> float | None:
        """Of the components of the stress, eV/Å³; None: no structure has one."""
        return _mean(self._column(4), self._column(5))

    def held_out(self) -> HeldOut:
        """The errors of the single structures, in their order."""
        energies, n_atoms, forces, components, *_ = map(self._column, range(6))
        return HeldOut(energies, n_atoms.astype(np.int64), forces, components.astype(np.int64))

    def _column(self, number: int) -> NDArray[np.float64]:
        return torch.cat([batch[number] for batch in self._batches]).numpy(force=True)


def _mean(errors: NDArray[np.float64], counts: NDArray[np.float64]) -> float | None:
    n = counts.sum()
    return float(errors.sum() / n) if n else None
