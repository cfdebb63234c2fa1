"""Copies of a structure that amptorch's neighbour search describes: the same neighbours, at other coordinates.

amptorch wraps positions with a tolerance of 1e-7 of a cell vector (as ASE does by default) and fractions without one.
An atom that rounding has put just below a face is then searched at one end of the cell and stands at the other: it
loses neighbours, and others lose it. Along a direction without periodicity every atom must lie within the cell.
"""

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from numpy.typing import NDArray

MARGIN = 1.0  # Å, from the atoms to the end of the cell, along a direction without periodicity
SHIFTS = 3


def lies_within(atoms: Atoms) -> bool:
    """Whether the atoms lie within the cell along the directions without periodicity; amptorch must not see others.

    It refuses fractions above 1, but of an atom at 1 itself it writes beyond the end of an array.
    """
    open_axes = ~atoms.pbc
    if not open_axes.any():
        return True
    if atoms.cell.rank < 3:
        return False
    fractions = atoms.cell.scaled_positions(atoms.positions)[:, open_axes]
    return bool(((fractions >= 0) & (fractions < 1)).all())


def shifted_copies(atoms: Atoms) -> Iterator[Atoms]:
    """Copies with the same neighbours; the cell has its faces as far from all atoms as a shift can bring them.

    Along a periodic direction, the face lies first in the middle of the widest gap between the atoms' fractions, then
    in that of the second widest, and so on; along the others, a new cell vector encloses the atoms.
    """
    cell, periodic = atoms.cell.array.copy(), atoms.pbc
    cell[~periodic] = 0
    cell = complete_cell(cell)  # unit vectors, orthogonal to the periodic ones
    fractions = np.linalg.solve(cell.T, atoms.positions.T).T
    for k in range(SHIFTS):
        moved, enclosing = fractions.copy(), cell.copy()
        for axis in range(3):
            along = fractions[:, axis]
            if periodic[axis]:
                moved[:, axis] = (along - _middle_of_gap(along, k)) % 1.0
            else:
                extent = np.ptp(along) + 2 * MARGIN  # Å
                moved[:, axis] = (along - along.min() + MARGIN) / extent
                enclosing[axis] *= extent
        yield Atoms(atoms.numbers, cell=enclosing, pbc=periodic, scaled_positions=moved)


def _middle_of_gap(fractions: NDArray[np.float64], k: int) -> float:
    """The middle of the k-th widest gap between fractions (n_atoms,) that repeat with period 1."""
    ordered = np.sort(fractions % 1.0)
    gaps = np.diff(np.append(ordered, ordered[0] + 1))
    widest = np.argsort(-gaps, kind="stable")[min(k, len(gaps) - 1)]
    return float(ordered[widest] + gaps[widest] / 2)
