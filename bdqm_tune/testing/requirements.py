"""How the checks say what is wrong, and the differences and moved structures that they compare with."""

from collections.abc import Callable

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray


def require(holds: bool, what: str) -> None:
    """Raise AssertionError, with `python -O`, too."""
    if not holds:
        raise AssertionError(what)


def require_equal(left: ArrayLike, right: ArrayLike, tolerance: float, what: str) -> None:
    """Raise AssertionError unless two arrays are equal in their shapes and, to an absolute tolerance, their values."""
    left, right = np.asarray(left), np.asarray(right)
    require(left.shape == right.shape, f"{what}: shapes {left.shape} and {right.shape}")
    worst = float(np.abs(left - right).max(initial=0.0))
    require(worst <= tolerance, f"{what}: off by {worst:.2g}, more than {tolerance:.2g}")


def difference(function: Callable[[float], NDArray[np.float64]], step: float) -> NDArray[np.float64]:
    """The derivative of a function at 0 by differences of fourth order, (8 (f₁ - f₋₁) - (f₂ - f₋₂)) / 12 step."""
    one, two = ((function(n * step) - function(-n * step)) for n in (1, 2))
    return (8 * one - two) / (12 * step)


def displaced(atoms: Atoms, i: int, axis: int, by: float) -> Atoms:
    """The structure with an atom moved along an axis, Å."""
    moved = atoms.copy()
    moved.positions[i, axis] += by
    return moved


def strained(atoms: Atoms, a: int, b: int, by: float) -> Atoms:
    """The structure with its cell under a symmetric strain."""
    deformation = np.eye(3)
    deformation[a, b] += by / 2
    deformation[b, a] += by / 2
    changed = atoms.copy()
    changed.set_cell(np.asarray(atoms.cell) @ deformation, scale_atoms=True)
    return changed


def turned(atoms: Atoms, turn: NDArray[np.float64]) -> Atoms:
    """The structure and its cell after a rotation (3, 3)."""
    return Atoms(atoms.numbers, atoms.positions @ turn.T, cell=np.asarray(atoms.cell) @ turn.T, pbc=atoms.pbc)


def rotation(random: np.random.Generator) -> NDArray[np.float64]:
    """A rotation (3, 3)."""
    matrix = np.linalg.qr(random.normal(size=(3, 3)))[0]
    return matrix * np.sign(np.linalg.det(matrix))
