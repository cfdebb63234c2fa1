"""Targets of a network: energies minus the reference energies of the elements, scaled."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

LEAST_SCALE = 1e-6  # eV; energies that differ by less differ by rounding
NULL = 1e-10  # singular value, by the largest, below which compositions do not determine a combination of elements


@dataclass(frozen=True)
class ReferenceEnergies:
    """One energy per element; a structure's reference energy is the sum over its atoms."""

    per_element: dict[int, float]  # atomic number → eV
    fallback: float  # eV, for an element that the training split does not have: the mean energy of an atom there

    @property
    def by_symbol(self) -> dict[str, float]:
        """The energies of the elements by their symbols, eV."""
        return {chemical_symbols[z]: energy for z, energy in self.per_element.items()}

    def of(self, structures: list[Atoms]) -> NDArray[np.float64]:
        """Reference energies (n_structures,), eV.

        Rounded once a term and once a sum: those of all electrons have 10⁷ eV a structure.
        """
        return np.array([math.fsum(self._of(z) * n for z, n in counted(atoms).items()) for atoms in structures])

    def _of(self, z: int) -> float:
        return self.per_element.get(z, self.fallback)


NO_REFERENCES = ReferenceEnergies({}, 0.0)


def counted(atoms: Atoms) -> dict[int, int]:
    """Number of atoms of each element, by atomic number."""
    return Counter(atoms.numbers.tolist())


def fit_reference_energies(
    structures: list[Atoms], energies: NDArray[np.float64], given: Mapping[int, float] | None = None
) -> ReferenceEnergies:
    """Fit one energy per element by least squares of the energy per atom on the composition.

    With x_i the shares of the elements in structure i and y_i its energy per atom, this minimises Σ_i (y_i - x_i·e)².
    The equations are per atom because the error of a sum over atoms grows with their number. The fit adds nothing to
    them: E → E + Σ c_z n_z makes e_z → e_z + c_z, and leaves the same energies to the network, whatever the zero of
    energy that a code counts from. Of solutions as good as each other, where elements come in the same proportions
    everywhere, it takes the one nearest to the same energy for every atom.

    Args:
        structures: at least one.
        energies: total energies (n_structures,), eV.
        given: reference energies by atomic number, eV, that are not fitted.
    """
    given = dict(given or {})
    sizes = np.array([len(atoms) for atoms in structures])
    rest = energies - ReferenceEnergies(given, 0.0).of(structures)
    elements = _elements(structures) - given.keys()
    mean = float((energies / sizes).mean())
    fitted: dict[int, float] = {}
    if elements:
        shares, per_atom = _shares(structures, sorted(elements)), rest / sizes
        of_all = shares.sum(axis=1)
        common = float(of_all @ per_atom / (of_all @ of_all))
        apart = np.zeros(len(elements))
        inverse = np.linalg.pinv(shares, rcond=NULL)
        for _ in range(3):  # each round takes the rounding of the one before away
            apart += inverse @ (per_atom - of_all * common - shares @ apart)
        fitted = {z: common + float(d) for z, d in zip(sorted(elements), apart, strict=True)}
    return ReferenceEnergies(dict(sorted((given | fitted).items())), mean)


def undetermined(
    structures: list[Atoms], others: list[Atoms], given: Collection[int] = ()
) -> tuple[list[int], NDArray[np.int64]]:
    """What the compositions of `structures` do not say of the reference energies.

    Args:
        given: atomic numbers of the elements whose energies are not fitted.

    Returns:
        The atomic numbers of elements whose energies are known in sums only, and the indices of those of `others`, as
        far as they have elements of `structures`, whose reference energy depends on how the sums are shared out.
    """
    elements = sorted(_elements(structures) - set(given))
    if not elements:
        return [], np.zeros(0, dtype=np.int64)
    triangle = np.linalg.qr(_shares(structures, elements), mode="r")  # (k, n_elements): as good for this, and small
    _, singular, right = np.linalg.svd(triangle)
    null = right[int((singular > NULL * singular[0]).sum()) :]
    free = [z for z, column in zip(elements, null.T, strict=True) if np.abs(column).max(initial=0) > 1e-6]
    return free, np.flatnonzero(np.abs(_shares(others, elements) @ null.T).max(axis=1, initial=0) > 1e-6)


def _elements(structures: list[Atoms]) -> set[int]:
    return {int(z) for atoms in structures for z in atoms.numbers}


def _shares(structures: list[Atoms], elements: list[int]) -> NDArray[np.float64]:
    """Shares (n_structures, n_elements) of the elements among the atoms of each structure."""
    shares = [[np.mean(atoms.numbers == z) for z in elements] for atoms in structures]
    return np.array(shares).reshape(len(structures), len(elements))


def target_scale(residuals: NDArray[np.float64]) -> float:
    """Scale (eV) of the network's output: the standard deviation of residuals (n_structures,), eV.

    It is 1 if they do not differ by more than rounding, which would be learned else.
    """
    deviation = float(residuals.std())
    return deviation if deviation > LEAST_SCALE else 1.0


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
    return (deviation, float(residuals.mean())) if deviation > LEAST_SCALE else (1.0, 0.0)
