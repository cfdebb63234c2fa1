"""Targets of a network: energies minus the reference energies of the elements, scaled."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

RIDGES = np.logspace(-6, 1, 29)  # dimensionless, as the shares of the elements


@dataclass(frozen=True)
class ReferenceEnergies:
    """One energy per element; a structure's reference energy is the sum over its atoms."""

    per_element: dict[int, float]  # atomic number → eV
    fallback: float  # eV, for an element that the training split does not have: the mean energy of an atom there

    def of(self, structures: list[Atoms]) -> NDArray[np.float64]:
        """Reference energies (n_structures,), eV."""
        return np.array(
            [sum(self.per_element.get(int(z), self.fallback) for z in atoms.numbers) for atoms in structures]
        )


NO_REFERENCES = ReferenceEnergies({}, 0.0)


def fit_reference_energies(structures: list[Atoms], energies: NDArray[np.float64]) -> ReferenceEnergies:
    """Fit one energy per element by ridge regression of the energy per atom on the composition.

    With x_i the shares of the elements in structure i and y_i its energy per atom, this minimises
    Σ_i (y_i - m - x_i·d)² + ridge·|d|², where m is the mean of y; element k then has the energy m + d_k. The equations
    are per atom because the error of a sum over atoms grows with their number. The ridge, one of `RIDGES`, has the
    least mean absolute leave-one-out error (closed form from the hat matrix: Golub, Heath and Wahba,
    Technometrics 21, 215 (1979)).

    Args:
        structures: at least one.
        energies: total energies (n_structures,), eV.
    """
    elements = sorted({int(z) for atoms in structures for z in atoms.numbers})
    shares = np.array([[np.mean(atoms.numbers == z) for z in elements] for atoms in structures])
    per_atom = energies / np.array([len(atoms) for atoms in structures])
    mean = float(per_atom.mean())
    left, singular, right = np.linalg.svd(shares, full_matrices=False)
    projected = left.T @ (per_atom - mean)
    best = (np.inf, np.zeros(len(elements)))
    for ridge in RIDGES:
        shrunk = singular**2 / (singular**2 + ridge)
        leverage = np.einsum("ik,k->i", left**2, shrunk)
        # A structure that alone has an element has leverage 1 without a ridge; its own error is then unknown.
        errors = (per_atom - mean - left @ (shrunk * projected)) / np.maximum(1 - leverage, 1e-9)
        error = float(np.abs(errors).mean())
        if error < best[0]:
            best = (error, right.T @ (singular / (singular**2 + ridge) * projected))
    return ReferenceEnergies(
        {z: mean + float(d) for z, d in zip(elements, best[1], strict=True)},
        mean,
    )


def target_scale(residuals: NDArray[np.float64]) -> float:
    """Scale (eV) of the network's output: the standard deviation of residuals (n_structures,), eV; 1 if that is 0."""
    deviation = float(residuals.std())
    return deviation if deviation > 0 else 1.0


def target_scale_and_shift(
    residuals: NDArray[np.float64], scaling: Literal["deviation", "mean_deviation"]
) -> tuple[float, float]:
    """Scale (eV) of the network's output and shift (eV) of every structure's energy, whatever its size.

    Args:
        residuals: (n_structures,) the energies that the references leave, eV.
        scaling: `deviation`: that of `target_scale`, and no shift; `mean_deviation`: mean and sample deviation, as
            amptorch's `TargetScaler` takes them of the total energies.
    """
    if scaling == "deviation":
        return target_scale(residuals), 0.0
    deviation = float(residuals.std(ddof=1)) if len(residuals) > 1 else 0.0
    return (deviation, float(residuals.mean())) if deviation > 0 else (1.0, 0.0)
