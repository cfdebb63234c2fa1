"""Whether two structures are the same: equal but for a motion, the order of atoms, and the choice of the cell."""

from collections.abc import Iterator

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
        self._shells: tuple[NDArray[np.float64], NDArray[np.int64]] | None = None

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

    @property
    def shells(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Vectors (n_atoms, SHELL, 3), Å, to the nearest neighbours, and their atomic numbers; infinite beyond."""
        reach = 5.0
        while self._shells is None:
            self._shells = self._within(reach)
            reach *= 1.5
        return self._shells

    def _within(self, reach: float) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
        """The shells, where all of them are within so many Å; else None."""
        n = len(self.numbers)
        heights = 1 / np.linalg.norm(self._inverse, axis=0)
        most = np.where(self.pbc, np.ceil(reach / heights), 0).astype(int)
        steps = np.indices(tuple(2 * most + 1)).reshape(3, -1).T - most
        images = ((steps @ self.basis)[:, None] + self.positions).reshape(-1, 3)
        distance, index = cKDTree(images).query(self.positions, k=np.arange(2, SHELL + 2))
        there = np.isfinite(distance)
        if self.pbc.any() and (not there.all() or distance.max() > reach):
            return None
        vectors = np.full((*distance.shape, 3), np.inf)
        vectors[there] = images[index[there]] - self.positions[np.nonzero(there)[0]]
        return vectors, np.where(there, self.numbers[index % n], 0)

    @property
    def surroundings(self) -> NDArray[np.float64]:
        """Distances (n_atoms, NEIGHBOURS) to the nearest neighbours, Å, ascending; 0 beyond the last."""
        distances = np.linalg.norm(self.shells[0][:, :NEIGHBOURS], axis=2)
        return np.where(np.isfinite(distances), distances, 0.0)


def full_basis(atoms: Atoms) -> NDArray[np.float64]:
    """Cell vectors (3, 3), Å, reduced where periodic; the others are of length 1 and normal to these."""
    cell, pbc = np.array(atoms.cell), np.asarray(atoms.pbc, dtype=bool)
    periods = minkowski_reduce(np.where(pbc[:, None], cell, 0.0), pbc)[0][pbc]
    normals = np.linalg.svd(periods)[2][len(periods) :] if len(periods) else np.eye(3)
    basis = np.empty((3, 3))
    basis[pbc], basis[~pbc] = periods, normals
    return basis


def same_geometry(one: Crystal, other: Crystal) -> bool:
    """Whether a motion (shift, rotation, reflection) makes the atoms of both the same to `TOLERANCE` a coordinate.

    Neither the order of the atoms counts, nor which cell of the same lattice is given, nor how often it is repeated;
    cell vectors along which a structure is not periodic do not count either. A potential cannot tell such structures
    apart. ASE's SymmetryEquivalenceCheck compares structures that are periodic along all vectors, and needs spglib to
    reduce repeated cells.
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
    return any(_fits(one, other, anchor, *motion) for motion in _motions(one, other, anchor))


def _rarest(numbers: NDArray[np.integer]) -> int:
    """Index of an atom of the rarest element."""
    elements, count = np.unique(numbers, return_counts=True)
    return int(np.flatnonzero(numbers == elements[count.argmin()])[0])


def _motions(one: Crystal, other: Crystal, anchor: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Atoms of `other` that the anchor may be, and rotations that bring its neighbours to those of that atom."""
    if len(one.numbers) == len(other.numbers) and one.numbers[anchor] == other.numbers[anchor]:
        yield anchor, np.eye(3)
    alike = np.abs(other.surroundings - one.surroundings[anchor]).max(axis=1) <= 2 * APART
    chosen = np.flatnonzero(alike & (other.numbers == one.numbers[anchor])).tolist()
    yield from ((index, np.eye(3)) for index in chosen)
    vectors, kinds = (part[anchor] for part in one.shells)
    there = np.isfinite(vectors[:, 0])
    pair = _pair(vectors[there])
    for index in chosen:
        yield from (
            (index, rotation) for rotation in _rotations(vectors, kinds, pair, *(p[index] for p in other.shells))
        )


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
    pair: list[int],
    others: NDArray[np.float64],
    other_kinds: NDArray[np.int64],
) -> Iterator[NDArray[np.float64]]:
    """Rotations and reflections (3, 3) that bring a pair of vectors to two of the others of the same elements."""
    lengths = np.linalg.norm(others, axis=1)
    matches = [
        np.flatnonzero((abs(lengths - np.linalg.norm(vectors[i])) <= 2 * APART) & (other_kinds == kinds[i]))
        for i in pair
    ]
    if len(pair) == 1:
        yield from (_turn(vectors[pair[0]], others[k]) for k in matches[0])
    if len(pair) < 2:
        return
    product = vectors[pair[0]] @ vectors[pair[1]]
    slack = 4 * APART * max(np.linalg.norm(vectors[i]) for i in pair)
    frame = _frame(vectors[pair[0]], vectors[pair[1]])
    for k in matches[0]:
        for m in matches[1]:
            if k != m and abs(others[k] @ others[m] - product) <= slack:
                target = _frame(others[k], others[m])
                for side in (1.0, -1.0):
                    yield frame.T @ (target * [[1.0], [1.0], [side]])


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
