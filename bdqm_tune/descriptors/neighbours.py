"""Neighbour lists as flat arrays sorted by centre: of small structures from all pairs, of larger ones by vesin."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from vesin import NeighborList

from bdqm_tune.compiled import compiled

# Atoms of a structure up to which all pairs are faster than vesin's search by cells: six times with 64, equal at 600.
DIRECT = 500
ROUNDING = 1e-6  # of a fraction of a lattice vector, of atoms 10⁶ Å away


@dataclass(frozen=True)
class Neighbours:
    """The neighbours of every atom of some structures; those of atom i are at `start[i]:start[i + 1]`.

    An atom is not its own neighbour, but its periodic images are.
    """

    start: NDArray[np.int64]  # (n_atoms + 1,)
    index: NDArray[np.int64]  # (n_pairs,) the neighbour
    vector: NDArray[np.float64]  # (n_pairs, 3) Å, from the centre to the neighbour


@dataclass(frozen=True)
class Entries:
    """The distinct pairs (centre, atom), images of an atom taken together or not, and each atom with itself."""

    centre: NDArray[np.int64]  # (n_entries,) ascending
    atom: NDArray[np.int64]  # (n_entries,) ascending for each centre where images are taken together
    of_pair: NDArray[np.int64]  # (n_pairs,) the entry to which a neighbour belongs
    own: NDArray[np.int64]  # (n_atoms,) the entry of an atom with itself
    vector: NDArray[np.float64] | None = None  # (n_entries, 3) Å; None: images are taken together


def find_neighbours(structures: Sequence[Atoms], cutoff: float) -> Neighbours:
    """All pairs closer than `cutoff` (Å), with periodic images along the directions in `atoms.pbc`.

    Atoms are numbered consecutively over the structures; neighbours are of the same structure.
    """
    found = [_of_structure(atoms, cutoff) for atoms in structures]
    counts, indices, vectors = zip(*found, strict=True)
    if len(structures) == 1:
        count, index, vector = found[0]
    else:
        first = np.cumsum([0, *map(len, structures)])
        count, vector = np.concatenate(counts), np.concatenate(vectors)
        index = np.concatenate([index + start for index, start in zip(indices, first[:-1], strict=True)])
    start = np.zeros(len(count) + 1, dtype=np.int64)
    np.cumsum(count, out=start[1:])
    return Neighbours(start, index, vector)


def _of_structure(atoms: Atoms, cutoff: float) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """How many neighbours each atom has, (n_atoms,), which, (n_pairs,), and the vectors to them, (n_pairs, 3), Å."""
    cell = np.asarray(atoms.cell)
    if len(atoms) <= DIRECT:
        return _all_pairs(np.ascontiguousarray(atoms.positions), cell, atoms.pbc, cutoff)
    # One thread: callers use threads for different structures.
    search = NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    centre, index, vector = search.compute(points=atoms.positions, box=cell, periodic=atoms.pbc, quantities="ijD")
    return np.bincount(centre.astype(np.int64), minlength=len(atoms)), index.astype(np.int64), vector


@compiled
def _all_pairs(positions, cell, pbc, cutoff):  # type: ignore[no-untyped-def]
    """The same, from the distances of all pairs of atoms, and of those images that can be near enough.

    With a and b the vectors of lattice and reciprocal lattice, the image of an atom s·a further can only be within the
    cutoff of another where |(r_j - r_i)·b + s| ≤ cutoff·|b|, along each periodic direction.
    """
    n, n_found = len(positions), 0
    lattice, reciprocal, reach = np.zeros((3, 3)), np.zeros((3, 3)), np.zeros(3)
    if pbc.any():
        inverse, place = np.linalg.pinv(cell[pbc]), 0
        for axis in range(3):
            if pbc[axis]:
                lattice[axis], reciprocal[:, axis] = cell[axis], inverse[:, place]
                reach[axis] = cutoff * np.sqrt(np.sum(inverse[:, place] ** 2)) + ROUNDING
                place += 1
    counts, indices, vectors = np.zeros(n, np.int64), np.empty(32 * n, np.int64), np.empty((32 * n, 3))
    between, fraction, low, high = np.empty(3), np.empty(3), np.empty(3, np.int64), np.empty(3, np.int64)
    for i in range(n):
        for j in range(n):
            for x in range(3):
                between[x] = positions[j, x] - positions[i, x]
            for axis in range(3):
                fraction[axis] = 0.0
                for x in range(3):
                    fraction[axis] += between[x] * reciprocal[x, axis]
                low[axis] = int(np.ceil(-reach[axis] - fraction[axis]))
                high[axis] = int(np.floor(reach[axis] - fraction[axis])) + 1
            for s in range(low[0], high[0]):
                for t in range(low[1], high[1]):
                    for u in range(low[2], high[2]):
                        if i == j and s == t == u == 0:
                            continue
                        dx = between[0] + s * lattice[0, 0] + t * lattice[1, 0] + u * lattice[2, 0]
                        dy = between[1] + s * lattice[0, 1] + t * lattice[1, 1] + u * lattice[2, 1]
                        dz = between[2] + s * lattice[0, 2] + t * lattice[1, 2] + u * lattice[2, 2]
                        if dx * dx + dy * dy + dz * dz >= cutoff * cutoff:
                            continue
                        if n_found == len(indices):
                            indices = np.concatenate((indices, np.empty(n_found, np.int64)))
                            vectors = np.concatenate((vectors, np.empty((n_found, 3))))
                        counts[i] += 1
                        indices[n_found] = j
                        vectors[n_found, 0], vectors[n_found, 1], vectors[n_found, 2] = dx, dy, dz
                        n_found += 1
    return counts, indices[:n_found].copy(), vectors[:n_found].copy()


def find_entries(neighbours: Neighbours, images: bool = False) -> Entries:
    """The pairs of atoms for which there are derivatives; with `images`, one for each periodic image of an atom."""
    n_atoms = len(neighbours.start) - 1
    centre = np.repeat(np.arange(n_atoms), np.diff(neighbours.start))
    if images:
        # Before the neighbours of each atom, the atom itself.
        of_pair, own = np.arange(len(centre)) + centre + 1, neighbours.start[:-1] + np.arange(n_atoms)
        centres, atom = np.empty((2, len(centre) + n_atoms), dtype=np.int64)
        vector = np.zeros((len(atom), 3))
        centres[own], atom[own] = np.arange(n_atoms), np.arange(n_atoms)
        centres[of_pair], atom[of_pair], vector[of_pair] = centre, neighbours.index, neighbours.vector
        return Entries(centres, atom, of_pair, own, vector)
    own = np.arange(n_atoms) * (n_atoms + 1)
    pairs = centre * n_atoms + neighbours.index
    different, entry = np.unique(np.concatenate([own, pairs]), return_inverse=True)
    return Entries(different // n_atoms, different % n_atoms, entry[n_atoms:], entry[:n_atoms])
