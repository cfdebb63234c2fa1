"""Neighbours from all pairs of atoms: those that vesin finds, image by image."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from bdqm_tune.descriptors import neighbours
from bdqm_tune.descriptors.neighbours import Neighbours, find_neighbours
from tests.descriptors.cases import crystal, free


def scattered(seed: int, pbc: list[bool]) -> Atoms:
    """Atoms in images of the cell that are not the first."""
    random = np.random.default_rng(seed)
    atoms = crystal(random, pbc)
    atoms.positions += random.integers(-4, 5, (len(atoms), 3)) @ np.asarray(atoms.cell)
    return atoms


def flat() -> Atoms:
    """Without a third vector of the cell."""
    atoms = scattered(3, [True, True, False])
    atoms.cell[2] = 0
    return atoms


STRUCTURES = {
    "molecule": free(np.random.default_rng(0)),
    "atom": Atoms("Cu"),
    "crystal": scattered(1, [True, True, True]),
    "wire": scattered(2, [False, True, False]),
    "flat": flat(),
    "primitive": bulk("Cu"),
    "skewed": Atoms("Cu", cell=[[2.5, 0, 0], [11.0, 2.4, 0], [-7.0, 9.0, 2.6]], pbc=True),
    "large": bulk("Si", cubic=True).repeat(3),
}


def pairs(found: Neighbours) -> np.ndarray:
    """(n_pairs, 5): centre, neighbour and vector, in an order that does not depend on how they were found."""
    centre = np.repeat(np.arange(len(found.start) - 1), np.diff(found.start))
    rows = np.column_stack([centre, found.index, found.vector])
    return rows[np.lexsort(np.round(rows, 6).T[::-1])]


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("cutoff", [3.1, 6.0])
def test_all_pairs_give_the_neighbours_that_vesin_finds(
    name: str, cutoff: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    atoms = STRUCTURES[name]
    assert len(atoms) <= neighbours.DIRECT
    direct = find_neighbours([atoms], cutoff)
    monkeypatch.setattr(neighbours, "DIRECT", 0)
    by_cells = find_neighbours([atoms], cutoff)
    np.testing.assert_array_equal(direct.start, by_cells.start)
    np.testing.assert_allclose(pairs(direct), pairs(by_cells), rtol=0, atol=1e-9)
    assert len(direct.index) > 0 or name == "atom"
    for found in (direct, by_cells):
        assert (found.start.dtype, found.index.dtype, found.vector.dtype) == (np.int64, np.int64, np.float64)
        assert found.vector.shape == (len(found.index), 3)


def test_structures_have_their_own_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of them found in the one way, some in the other."""
    monkeypatch.setattr(neighbours, "DIRECT", 6)
    structures = list(STRUCTURES.values())
    together = find_neighbours(structures, 4.0)
    first = 0
    for atoms in structures:
        alone = find_neighbours([atoms], 4.0)
        start = together.start[first : first + len(atoms) + 1]
        np.testing.assert_array_equal(start - start[0], alone.start)
        np.testing.assert_array_equal(together.index[start[0] : start[-1]] - first, alone.index)
        np.testing.assert_array_equal(together.vector[start[0] : start[-1]], alone.vector)
        first += len(atoms)
    assert len(together.start) == first + 1
