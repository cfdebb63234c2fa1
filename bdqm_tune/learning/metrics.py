"""Error metrics of predicted energies, forces and stress."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.errors import BdqmError
from bdqm_tune.units import FORCE_LENGTH

KINDS = ("mae", "rmse", "r2")  # that follow from sums over structures
Error = TypeVar("Error", float, NDArray[np.float64])
CONSTANT = 1e-16  # variance, in the square of the unit, below which true values count as equal


@dataclass(frozen=True)
class Deviations:
    """Sums of the errors of each structure, from which the metrics of any set of structures follow.

    A bootstrap thus resamples structures thousands of times without their atoms.
    """

    names: tuple[tuple[str, str], ...]  # (n_quantities,) prefix and suffix of the kind in a metric's name
    sums: NDArray[np.float64]  # (n_structures, n_quantities, 5): number, |error|, error², true, true² of the values
    largest: NDArray[np.float64]  # (n_structures, n_quantities) largest |error|

    def __len__(self) -> int:
        return len(self.sums)

    def select(self, structures: NDArray[np.integer]) -> "Deviations":
        """Those of the structures at these indices."""
        return Deviations(self.names, self.sums[structures], self.largest[structures])

    def metrics(self) -> dict[str, float]:
        """Mean absolute error, root mean square error, R² and largest error of each quantity.

        R² = 1 - Σ error² / Σ (true - mean of true)²; it is left out where all true values are equal.
        """
        values = of_sums(self.sums.sum(axis=0))
        metrics: dict[str, float] = {}
        for i, (before, after) in enumerate(self.names):
            metrics |= {f"{before}_{kind}{after}": float(value) for kind, value in zip(KINDS, values[i], strict=True)}
            metrics[f"{before}_max_error{after}"] = float(self.largest[:, i].max())
        return {name: value for name, value in metrics.items() if not np.isnan(value)}


def of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The `KINDS` of metrics (..., 3) of sums (..., 5); R² is NaN where it is not defined."""
    number, absolute, squares, true, true_squares = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = true_squares - true**2 / number
        r2 = np.where(variance > CONSTANT * number, 1 - squares / variance, np.nan)
        return np.stack([absolute / number, np.sqrt(squares / number), r2], axis=-1)


def energy_deviations(
    predicted: NDArray[np.float64], true: NDArray[np.float64], n_atoms: NDArray[np.int64]
) -> Deviations:
    """Errors of total energies (eV) and of energies per atom (eV/atom).

    Args:
        predicted, true: (n_structures,), eV.
        n_atoms: (n_structures,).

    Raises:
        BdqmError: there is no structure.
    """
    structure = np.arange(len(true))
    return joined(
        _deviations(("energy", ""), predicted - true, true, structure, len(true)),
        _deviations(("energy", "_per_atom"), (predicted - true) / n_atoms, true / n_atoms, structure, len(true)),
    )


def force_deviations(
    predicted: Sequence[NDArray[np.float64]],
    true: Sequence[NDArray[np.float64]],
    chosen: Sequence[NDArray[np.bool_]] | None = None,
) -> Deviations:
    """Errors of the forces' components, eV/Å.

    Args:
        predicted, true: for each structure (n_atoms, 3), eV/Å; atoms whose true forces are NaN do not count.
        chosen: for each structure (n_atoms,), True for the atoms that count; None: all.

    Raises:
        BdqmError: there is no structure.
    """
    _check(len(true))
    atoms = np.ones(sum(map(len, true)), dtype=bool) if chosen is None else np.concatenate(chosen)
    atoms &= ~np.isnan(np.concatenate(true)).any(axis=1)
    structure = np.repeat(np.arange(len(true)), [len(forces) for forces in true])[atoms]
    labels = np.concatenate(true)[atoms]
    errors = np.concatenate(predicted)[atoms] - labels
    return _deviations(("forces", ""), errors.ravel(), labels.ravel(), np.repeat(structure, 3), len(true))


def stress_deviations(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> Deviations:
    """Errors of the stress's components, eV/Å³.

    Args:
        predicted, true: (n_structures, 6), eV/Å³; structures whose true stress is NaN do not count.

    Raises:
        BdqmError: there is no structure.
    """
    known = np.flatnonzero(~np.isnan(true).any(axis=1))
    errors, labels = (predicted - true)[known], true[known]
    return _deviations(("stress", ""), errors.ravel(), labels.ravel(), np.repeat(known, 6), len(true))


def joined(*deviations: Deviations) -> Deviations:
    """The deviations of several quantities of the same structures as one."""
    return Deviations(
        tuple(name for each in deviations for name in each.names),
        np.concatenate([each.sums for each in deviations], axis=1),
        np.concatenate([each.largest for each in deviations], axis=1),
    )


def energy_metrics(
    predicted: NDArray[np.float64], true: NDArray[np.float64], n_atoms: NDArray[np.int64]
) -> dict[str, float]:
    """energy_mae, energy_rmse, energy_max_error (eV) and energy_r2, and the same with `_per_atom` (eV/atom).

    Args:
        predicted, true: (n_structures,), eV.
        n_atoms: (n_structures,).
    """
    return energy_deviations(predicted, true, n_atoms).metrics()


def energy_and_forces(energy_mae_per_atom: Error, forces_mae: Error) -> Error:
    """The error of energies per atom (eV/atom) and that of forces (eV/Å) in one number, eV/atom; see `FORCE_LENGTH`."""
    return energy_mae_per_atom + FORCE_LENGTH * forces_mae


def _deviations(
    name: tuple[str, str],
    errors: NDArray[np.float64],
    true: NDArray[np.float64],
    structure: NDArray[np.int64],
    n: int,
) -> Deviations:
    """Args: errors, true and structure (n_values,), the last with the structure that each value belongs to."""
    _check(n)
    centred = true - (true.mean() if len(true) else 0)  # or the squares of large energies would leave no digits
    terms = (np.ones_like(errors), np.abs(errors), errors**2, centred, centred**2)
    sums = np.stack([np.bincount(structure, term, n).astype(float) for term in terms], axis=-1)
    largest = np.zeros(n)
    np.maximum.at(largest, structure, np.abs(errors))
    return Deviations((name,), sums[:, None], largest[:, None])


def _check(n: int) -> None:
    if n == 0:
        raise BdqmError("there is no structure to compare")
