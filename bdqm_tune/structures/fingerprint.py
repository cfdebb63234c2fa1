"""Numbers that are the same for the same geometry, by which copies among many structures are found fast.

They are structure factors: with S(G) = Σ_j w_j exp(i G·r_j), the sums of |S(G) / N|² over the reciprocal lattice
vectors G in a shell depend on the set of all atoms only: not on their order, a shift, a rotation, the choice of cell
vectors or how often a cell is repeated. Along directions that are not periodic, waves cos(q·h) of the distance h from
the centre take their place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from bdqm_tune.structures.equivalence import TOLERANCE, full_basis

RADIUS = 3 * TOLERANCE  # Å, between the fingerprints of structures that may be the same
WAVES = (0.0, 0.5, 1.0, 1.7)  # 1/Å, along directions that are not periodic
SHELLS = 6
SOFTENING = 0.02  # so that sums that are 0 in a perfect crystal do not follow the rounding of its positions
AT_ONCE = 2**20  # phases that are held at once
SHORTEST, DENSITY = 1.5, 1.5  # least length of the largest G, 1/Å, and how many G there are an atom, about


@dataclass(frozen=True)
class Fingerprint:
    """What the same geometry has in common."""

    key: tuple[object, ...]  # equal for the same geometry: composition and number of periodic directions
    sums: NDArray[np.float64]  # (n_sums,) Å, once multiplied by √N
    extent: float  # Å: root of the volume, area or length an atom, once multiplied by that root of N
    dimensions: int  # periodic directions

    def scaled(self, n_atoms: int) -> NDArray[np.float64]:
        """The numbers, Å: rounding positions and cell of that many atoms changes none by more than `RADIUS`."""
        size = n_atoms ** (1 / self.dimensions) if self.dimensions else 1.0
        return np.append(self.sums * np.sqrt(n_atoms), self.extent * size)


class Fingerprints:
    """Makes fingerprints; frames of one trajectory share the reciprocal lattice of their cell."""

    def __init__(self) -> None:
        self._cell: tuple[bytes, bytes, int] | None = None

    def of(self, atoms: Atoms) -> Fingerprint:
        """The fingerprint of a structure."""
        n, pbc = len(atoms), np.asarray(atoms.pbc, dtype=bool)
        dimensions = int(pbc.sum())
        cell = np.asarray(atoms.cell).tobytes(), pbc.tobytes(), n
        if cell != self._cell:
            self._cell, self._basis = cell, full_basis(atoms)
            self._inverse = np.linalg.inv(self._basis)
            self._vectors(n, pbc)
        fractions = np.asarray(atoms.positions) @ self._inverse
        heights = np.zeros(n)
        if dimensions < 3:
            across = fractions[:, ~pbc]
            heights = np.linalg.norm(across - across.mean(axis=0), axis=1)
        sums = self._sums(
            fractions[:, pbc] % 1.0, heights, np.asarray(atoms.numbers), WAVES if dimensions < 3 else (0.0,)
        )
        elements, count = np.unique(atoms.numbers, return_counts=True)
        count //= np.gcd.reduce(count) if dimensions else 1
        key = dimensions, tuple(elements.tolist()), tuple(count.tolist())
        return Fingerprint(key, sums, self._extent if dimensions else 0.0, dimensions)

    def _vectors(self, n: int, pbc: NDArray[np.bool_]) -> None:
        """Half of the reciprocal lattice vectors: indices, and their weights in each shell."""
        periods = self._basis[pbc]
        d = len(periods)
        size = float(np.sqrt(np.linalg.det(periods @ periods.T))) / n
        self._extent = size ** (1 / d) if d else 0.0
        ball = {0: 1.0, 1: 2.0, 2: np.pi, 3: 4 * np.pi / 3}[d]
        # As many vectors as atoms, about: ball · G^d / (2π/extent)^d.
        self._largest = max(SHORTEST, 2 * np.pi / self._extent * (2 * DENSITY / ball) ** (1 / d)) if d else SHORTEST
        most = np.floor(self._largest * np.linalg.norm(periods, axis=1) / (2 * np.pi)).astype(int)
        grid = np.indices(tuple(2 * most + 1)).reshape(d, np.prod(2 * most + 1, dtype=int)).T - most
        half = grid[len(grid) // 2 :]  # the origin first, and of each pair ±G one
        reciprocal = 2 * np.pi * np.linalg.pinv(periods).T if d else np.zeros((0, 3))
        lengths = np.linalg.norm(half @ reciprocal, axis=1)
        inside = lengths < self._largest
        self._indices, x = half[inside], lengths[inside] / self._largest
        centres = np.arange(SHELLS) / SHELLS
        bumps = np.maximum(0, 1 - np.abs(x - centres[:, None]) * SHELLS)
        self._weights = bumps if d else np.ones((1, 1))

    def _sums(
        self,
        fractions: NDArray[np.float64],
        heights: NDArray[np.float64],
        numbers: NDArray[np.int64],
        waves: Sequence[float],
    ) -> NDArray[np.float64]:
        n = len(numbers)
        columns = np.stack([weight * np.cos(q * heights) for weight in _element_weights(numbers) for q in waves])
        powers = np.empty((len(columns), len(self._indices)))
        at_once = max(1, AT_ONCE // n)
        columns = (columns / n).astype(np.float32)
        for first in range(0, len(powers[0]), at_once):
            some = slice(first, first + at_once)
            # In single precision: rounding is then 1e-7 of a sum, far below the radius.
            turns = fractions @ self._indices[some].T
            phases = (2 * np.pi * (turns - np.round(turns))).astype(np.float32)
            powers[:, some] = (columns @ np.cos(phases)) ** 2 + (columns @ np.sin(phases)) ** 2
        squares = powers @ self._weights.T
        return (np.sqrt(squares + SOFTENING**2) / self._largest).ravel()


def _element_weights(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Two weights of each atom (2, n_atoms): all alike, and by its element, between 0.5 and 1.5."""
    return np.stack([np.ones(len(numbers)), 1 + 0.5 * np.sin(2.4 * numbers)])


def candidates(one: NDArray[np.float64], other: NDArray[np.float64]) -> list[list[int]]:
    """For each of some scaled fingerprints, indices of those others that may be of the same geometry."""
    found: list[list[int]] = cKDTree(other).query_ball_point(one, RADIUS, p=np.inf).tolist()
    return found
