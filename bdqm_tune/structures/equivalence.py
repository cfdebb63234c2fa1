"""Whether two structures are the same: equal but for a motion, the order of atoms, and the choice of the cell."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray
from scipy.spatial import cKDTree

TOLERANCE = 1e-3  # Å, of a coordinate
APART = np.sqrt(3) * TOLERANCE  # Å, between atoms that count as the same
NEARBY = 0.1  # Å, between atoms that a motion brings together before it is refined
NEIGHBOURS = 8  # whose distances tell atoms apart
SHELL = 30  # nearest neighbours that a rotation is taken from
QUANTILES = 16  # of the distances to neighbours, over the atoms
FIRST_REACH = 4.0  # Å


class Crystal:
    """A structure as the set of all its atoms, periodic images included, ready for comparisons."""

    def __init__(self, atoms: Atoms) -> None:
        self.numbers, self.pbc = np.asarray(atoms.numbers), np.asarray(atoms.pbc, dtype=bool)
        self.basis = full_basis(atoms)
        self.lengths = np.linalg.norm(self.basis, axis=1)
        self._inverse = np.linalg.inv(self.basis)
        fractions = np.asarray(atoms.positions) @ self._inverse
        fractions[:, self.pbc] %= 1.0
        self.positions = fractions @ self.basis  # (n_atoms, 3), Å, within the cell
        self._tree = cKDTree(self._along(self.positions), boxsize=np.where(self.pbc, self.lengths, 0))
        self._reach = 0.0  # Å: images of atoms are made as far as this from the cell

    @property
    def periods(self) -> NDArray[np.float64]:
        """(number of periodic directions, 3), Å."""
        return self.basis[self.pbc]

    @property
    def extent(self) -> float:
        """Volume (Å³), area (Å²) or length (Å) of the cell an atom; without periodicity 1 / the number of atoms."""
        return float(np.sqrt(np.linalg.det(self.periods @ self.periods.T))) / len(self.numbers)

    def _along(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coordinates of points along the cell's vectors, Å, within the cell."""
        fractions = points @ self._inverse
        fractions[:, self.pbc] %= 1.0
        fractions[fractions >= 1.0] = np.where(self.pbc, 0.0, fractions)[fractions >= 1.0]
        return fractions * self.lengths

    def nearest(
        self, points: NDArray[np.float64], numbers: NDArray[np.integer], within: float
    ) -> NDArray[np.float64] | None:
        """Vectors (n, 3), Å, from points to the atoms there; None unless each has one of its element so near."""
        _, index = self._tree.query(self._along(points))
        if not np.array_equal(self.numbers[index], numbers):
            return None
        fractions = (self.positions[index] - points) @ self._inverse
        fractions[:, self.pbc] -= np.round(fractions[:, self.pbc])
        vectors = fractions @ self.basis
        return vectors if np.einsum("ij,ij->i", vectors, vectors).max() <= within**2 else None

    @cached_property
    def surroundings(self) -> NDArray[np.float64]:
        """Distances (n_atoms, NEIGHBOURS) to the nearest neighbours, Å, ascending; 0 beyond the last."""
        return self._within_reach(self.positions, NEIGHBOURS)[0]

    @cached_property
    def profile(self) -> NDArray[np.float64]:
        """Quantiles over the atoms of the distances to their neighbours, Å, flat; a repeated cell has the same.

        No displacement of all atoms changes one of them by more than twice the largest displacement.
        """
        n = len(self.numbers)
        chosen = ((np.arange(QUANTILES) + 0.5) / QUANTILES * n).astype(int)
        return np.sort(self.surroundings, axis=0)[chosen].ravel()

    def neighbours(self, atom: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Vectors (n, 3), Å, to the `SHELL` nearest neighbours of an atom, and their atomic numbers."""
        _, index = self._within_reach(self.positions[[atom]], SHELL)
        index = index[0, index[0] >= 0]
        return self._images[index] - self.positions[atom], self.numbers[self._owner[index]]

    def neighbours_within(self, atom: int, radius: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Vectors (n, 3), Å, to all neighbours of an atom within a radius, and their atomic numbers."""
        self._reach_out(radius)
        index = np.array(self._cloud.query_ball_point(self.positions[atom], radius), dtype=int)
        vectors = self._images[index] - self.positions[atom]
        others = np.einsum("ij,ij->i", vectors, vectors) > 1e-12
        return vectors[others], self.numbers[self._owner[index[others]]]

    def _within_reach(self, points: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Distances (n, k), Å, of atoms to their nearest neighbours, 0 beyond the last, and these among the images."""
        self._reach_out(FIRST_REACH)
        while True:
            distance, index = self._cloud.query(points, k=np.arange(2, k + 2))
            there = np.isfinite(distance)
            if not self.pbc.any() or (there.all() and distance.max() <= self._reach):
                return np.where(there, distance, 0.0), np.where(there, index, -1)
            self._reach_out(1.5 * self._reach)

    def _reach_out(self, reach: float) -> None:
        """Make the images of all atoms that are within this distance (Å) of the cell."""
        if reach <= self._reach:
            return
        self._reach = reach
        margin = reach * np.linalg.norm(self._inverse, axis=0)
        most = np.where(self.pbc, np.ceil(margin), 0).astype(int)
        steps = np.indices(tuple(2 * most + 1)).reshape(3, -1).T - most
        fractions = (self.positions @ self._inverse) + steps[:, None]
        inside = (((fractions >= -margin) & (fractions <= 1 + margin)) | ~self.pbc).all(axis=2)
        self._images, self._owner = fractions[inside] @ self.basis, np.nonzero(inside)[1]
        self._cloud = cKDTree(self._images)


def full_basis(atoms: Atoms) -> NDArray[np.float64]:
    """Cell vectors (3, 3), Å, reduced where periodic; the others are of length 1 and normal to these."""
    cell, pbc = np.array(atoms.cell), np.asarray(atoms.pbc, dtype=bool)
    periods = minkowski_reduce(np.where(pbc[:, None], cell, 0.0), pbc)[0][pbc]
    normals = np.linalg.svd(periods)[2][len(periods) :] if len(periods) else np.eye(3)
    basis = np.empty((3, 3))
    basis[pbc], basis[~pbc] = periods, normals
    return basis


def same_geometry(one: Crystal, other: Crystal, turned: bool = True) -> bool:
    """Whether a motion (shift, rotation, reflection) makes the atoms of both the same to `TOLERANCE` a coordinate.

    Neither the order of the atoms counts, nor which cell of the same lattice is given, nor how often it is repeated;
    cell vectors along which a structure is not periodic do not count either. A potential cannot tell such structures
    apart. ASE's SymmetryEquivalenceCheck compares structures that are periodic along all vectors, and needs spglib to
    reduce repeated cells.

    Args:
        turned: also by rotations and reflections, else by shifts alone.
    """
    if one.pbc.sum() != other.pbc.sum():
        return False
    if len(one.numbers) > len(other.numbers):
        one, other = other, one
    if not one.pbc.any() and len(one.numbers) != len(other.numbers):
        return False
    if one.pbc.any():
        dimensions = int(one.pbc.sum())
        lengths = np.array([one.extent, other.extent]) ** (1 / dimensions)
        size = len(one.numbers) ** (1 / dimensions)
        if abs(lengths[0] - lengths[1]) * size > 2 * TOLERANCE:
            return False
    anchor = _rarest(one.numbers)
    return any(_fits(one, other, anchor, *motion) for motion in _motions(one, other, anchor, turned))


def _rarest(numbers: NDArray[np.integer]) -> int:
    """Index of an atom of the rarest element."""
    elements, count = np.unique(numbers, return_counts=True)
    return int(np.flatnonzero(numbers == elements[count.argmin()])[0])


def _motions(one: Crystal, other: Crystal, anchor: int, turned: bool) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Atoms of `other` that the anchor may be, and rotations that bring its neighbours to those of that atom."""
    if len(one.numbers) == len(other.numbers) and one.numbers[anchor] == other.numbers[anchor]:
        yield anchor, np.eye(3)
    alike = np.abs(other.surroundings - one.surroundings[anchor]).max(axis=1) <= 2 * APART
    chosen = np.flatnonzero(alike & (other.numbers == one.numbers[anchor])).tolist()
    yield from ((index, np.eye(3)) for index in chosen)
    if not turned:
        return
    vectors, kinds = one.neighbours(anchor)
    pair = _pair(vectors)
    vectors, kinds = vectors[pair], kinds[pair]
    if pair:
        radius = float(np.linalg.norm(vectors, axis=1).max()) + 2 * APART
        for index in chosen:
            around = other.neighbours_within(index, radius)
            yield from ((index, rotation) for rotation in _rotations(vectors, kinds, *around))


def _pair(vectors: NDArray[np.float64]) -> list[int]:
    """Indices of the first of some vectors (n, 3), and of the first that is not along it, where there is one."""
    if not len(vectors):
        return []
    sine = (
        np.linalg.norm(np.cross(vectors, vectors[0]), axis=1)
        / np.linalg.norm(vectors, axis=1)
        / np.linalg.norm(vectors[0])
    )
    across = np.flatnonzero(sine > 0.1)
    return [0, int(across[0])] if len(across) else [0]


def _rotations(
    vectors: NDArray[np.float64],
    kinds: NDArray[np.int64],
    others: NDArray[np.float64],
    other_kinds: NDArray[np.int64],
) -> Iterator[NDArray[np.float64]]:
    """Rotations and reflections (3, 3) that bring one or two vectors to some of the others of the same elements."""
    lengths, wanted = np.linalg.norm(others, axis=1), np.linalg.norm(vectors, axis=1)
    first, *second = (
        np.flatnonzero((np.abs(lengths - length) <= 2 * APART) & (other_kinds == kind))
        for length, kind in zip(wanted, kinds, strict=True)
    )
    if not second:
        yield from (_turn(vectors[0], others[k]) for k in first)
        return
    product, slack, frame = vectors[0] @ vectors[1], 4 * APART * wanted.max(), _frame(*vectors)
    for k in first:
        for m in second[0]:
            if k != m and abs(others[k] @ others[m] - product) <= slack:
                target = _frame(others[k], others[m])
                yield frame.T @ target
                yield frame.T @ (target * [[1.0], [1.0], [-1.0]])


def _frame(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal rows (3, 3): along the first vector, across it towards the second, and normal to both."""
    along = first / np.linalg.norm(first)
    across = second - (second @ along) * along
    across /= np.linalg.norm(across)
    return np.stack([along, across, np.cross(along, across)])


def _turn(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """A rotation (3, 3), or reflection, that brings the direction of the first vector to that of the second."""
    normal = first / np.linalg.norm(first) - second / np.linalg.norm(second)
    size = normal @ normal
    return np.eye(3) if size < 1e-20 else np.eye(3) - 2 * np.outer(normal, normal) / size


def _fits(one: Crystal, other: Crystal, anchor: int, index: int, rotation: NDArray[np.float64]) -> bool:
    """Whether the motion that brings the anchor to an atom of `other` brings all atoms of both together."""
    points = (one.positions - one.positions[anchor]) @ rotation + other.positions[index]
    for _ in range(2):
        vectors = other.nearest(points, one.numbers, NEARBY)
        if vectors is None:
            return False
        points, rotation = _moved(points, vectors, rotation)
    vectors = other.nearest(points, one.numbers, APART)
    if vectors is None:
        return False
    # All periods of one are periods of the other; with as many atoms a volume, both have the same atoms.
    periods = one.periods @ rotation
    return all(other.nearest(other.positions + period, other.numbers, 2 * APART) is not None for period in periods)


def _moved(
    points: NDArray[np.float64], vectors: NDArray[np.float64], rotation: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points moved as near as possible to their targets, by least squares (Kabsch), and the rotation so far.

    A rotation by itself is refined only if there was one: else rounding of the positions would turn the cell.
    """
    centre, target = points.mean(axis=0), (points + vectors).mean(axis=0)
    left, sizes, right = np.linalg.svd((points - centre).T @ (points + vectors - target))
    on_a_line = sizes[1] < 1e-6 * sizes[0]  # which leaves the angle about it open
    if np.array_equal(rotation, np.eye(3)) or len(points) < 3 or on_a_line:
        return points + (target - centre), rotation
    sign = np.sign(np.linalg.det(left @ right))
    left[:, 2] *= sign
    refined = left @ right
    return (points - centre) @ refined + target, rotation @ refined
