"""Neighbour lists as flat arrays sorted by centre, found by vesin."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from vesin import NeighborList


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
    # One thread: callers use threads for different structures.
    search = NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    lists = [
        search.compute(points=atoms.positions, box=np.asarray(atoms.cell), periodic=atoms.pbc, quantities="ijD")
        for atoms in structures
    ]
    first = np.cumsum([0, *map(len, structures)])
    centres, indices, vectors = zip(*lists, strict=True)
    centre, index = (
        np.concatenate([part.astype(np.int64) + first[k] for k, part in enumerate(parts)])
        for parts in (centres, indices)
    )
    start = np.concatenate([[0], np.cumsum(np.bincount(centre, minlength=first[-1]))])
    return Neighbours(start, index, np.concatenate(vectors))


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
