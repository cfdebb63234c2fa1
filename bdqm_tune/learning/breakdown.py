"""Errors by element and by composition class."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from ase.data import chemical_symbols
from numpy.typing import NDArray

from bdqm_tune.learning.bootstrap import LEAST, with_intervals
from bdqm_tune.learning.metrics import Deviations, energy_deviations, force_deviations, joined, stress_deviations
from bdqm_tune.structures import Geometries, Structures


def deviations(
    structures: Structures,
    energies: NDArray[np.float64],
    forces: Sequence[NDArray[np.float64]] | None,
    stress: NDArray[np.float64] | None = None,
) -> Deviations:
    """Errors of predicted energies (n_structures,), eV, and, where there are any labels of them, of forces and stress.

    Args:
        forces: each (n_atoms, 3), eV/Å.
        stress: (n_structures, 6), eV/Å³.
    """
    found = [energy_deviations(energies, structures.energies, structures.n_atoms)]
    if forces is not None and structures.forces is not None:
        found.append(force_deviations(forces, structures.forces))
    if stress is not None and structures.stress_counts:
        found.append(stress_deviations(stress, structures.stresses))
    return joined(*found)


def by_element(
    structures: Structures, energies: NDArray[np.float64], forces: Sequence[NDArray[np.float64]] | None
) -> pd.DataFrame:
    """Errors by element: energies of the structures that contain it, and forces on its atoms; by atomic number.

    Returns:
        columns element, structures, atoms (of it), and metrics with their intervals, in the units of the metrics.
    """
    of_energies = energy_deviations(energies, structures.energies, structures.n_atoms)
    rows = []
    for symbol in structures.elements:
        own = [atoms.numbers == chemical_symbols.index(symbol) for atoms in structures.atoms]
        count = np.array([mask.sum() for mask in own])
        errors = of_energies
        if forces is not None and structures.forces is not None:
            errors = joined(of_energies, force_deviations(forces, structures.forces, own))
        metrics = with_intervals(errors.select(np.flatnonzero(count)))
        rows.append({"element": symbol, "structures": int((count > 0).sum()), "atoms": int(count.sum()), **metrics})
    return pd.DataFrame(rows)


def by_class(structures: Structures, errors: Deviations) -> pd.DataFrame:
    """Errors of each composition class, the largest class first.

    Returns:
        columns composition, structures, atoms, and metrics with their intervals, in the units of the metrics.
    """
    classes = composition_classes(structures)
    names, first, count = np.unique(classes, return_index=True, return_counts=True)
    rows = []
    for k in np.lexsort((first, -count)):
        members = np.flatnonzero(classes == names[k])
        atoms = int(structures.n_atoms[members].sum())
        metrics = with_intervals(errors.select(members))
        rows.append({"composition": str(names[k]), "structures": len(members), "atoms": atoms, **metrics})
    return pd.DataFrame(rows)


def composition_classes(structures: Geometries, least: int = LEAST) -> NDArray[np.str_]:
    """The set of elements of each structure (n_structures,), as `O-Cu`, by atomic number.

    Sets that fewer than `least` structures have are pooled by their number of elements: `others of 3 elements`.
    """
    sets = [sorted({int(z) for z in atoms.numbers}) for atoms in structures.atoms]
    names = np.array(["-".join(chemical_symbols[z] for z in elements) for elements in sets])
    _, kind, count = np.unique(names, return_inverse=True, return_counts=True)
    pooled = [f"others of {len(elements)} element{'s' * (len(elements) > 1)}" for elements in sets]
    return np.where(count[kind] < least, pooled, names)
