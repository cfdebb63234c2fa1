"""How far predicted energies and forces are from the true ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.errors import BdqmError


def energy_metrics(
    predicted: NDArray[np.float64], true: NDArray[np.float64], n_atoms: NDArray[np.int64]
) -> dict[str, float]:
    """Mean absolute and root mean square error of total energies (eV), and the first per atom (eV/atom).

    Args:
        predicted, true: (n_structures,), eV.
        n_atoms: (n_structures,).
    """
    if not len(true):
        raise BdqmError("there is no structure to compare")
    error = predicted - true
    return {
        "energy_mae": float(np.abs(error).mean()),
        "energy_rmse": float(np.sqrt((error**2).mean())),
        "energy_mae_per_atom": float((np.abs(error) / n_atoms).mean()),
    }


def force_metrics(predicted: Sequence[NDArray[np.float64]], true: Sequence[NDArray[np.float64]]) -> dict[str, float]:
    """Mean absolute and root mean square error of the forces' components, eV/Å.

    Args:
        predicted, true: for each structure (n_atoms, 3), eV/Å.
    """
    if not len(true):
        raise BdqmError("there is no structure to compare")
    error = np.concatenate(predicted) - np.concatenate(true)
    return {"forces_mae": float(np.abs(error).mean()), "forces_rmse": float(np.sqrt((error**2).mean()))}
