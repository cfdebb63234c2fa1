"""The copies that amptorch is given: the same neighbours, and nothing near a face of the cell."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from bdqm_tune.backends.amptorch_copies import lies_within, shifted_copies


def skewed(seed: int, pbc: tuple[bool, bool, bool]) -> Atoms:
    """Five atoms, some of them on faces of the cell or, by rounding, just below."""
    random = np.random.default_rng(seed)
    cell = np.diag([4.0, 5.0, 6.0]) + random.uniform(-2.0, 2.0, (3, 3))
    fractions = random.random((5, 3))
    fractions[:3] *= random.random((3, 3)) < 0.5
    fractions[1:3] -= 1e-9
    return Atoms("CuOHCN", scaled_positions=fractions, cell=cell, pbc=pbc)


def slab_below_its_cell() -> Atoms:
    slab = fcc111("Cu", (2, 2, 2), vacuum=4.0)
    slab.positions[:, 2] -= 7.0
    return slab


STRUCTURES = {
    **{f"skewed {seed}": skewed(seed, (True, True, True)) for seed in range(5)},
    "open along one": skewed(5, (True, False, True)),
    "open along two": skewed(6, (False, True, False)),
    "one atom": bulk("Cu"),
    "slab below its cell": slab_below_its_cell(),
    "molecule without a cell": molecule("CH3OH"),
    "a single atom without a cell": Atoms("H", [[3.0, -2.0, 1.0]]),
}


def vectors(atoms: Atoms) -> NDArray[np.float64]:
    """All vectors to neighbours within 6 Å, with the two atoms; the same neighbours come in the same order."""
    if not atoms.cell.rank:
        atoms = Atoms(atoms.numbers, atoms.positions, cell=np.eye(3) * 100)
    i, j, d = neighbor_list("ijD", atoms, 6.0)
    table = np.column_stack([i, j, d])
    return table[np.lexsort(np.round(table, 4).T[::-1])]


@pytest.mark.parametrize("name", STRUCTURES)
def test_copies_have_the_same_neighbours_and_no_atom_at_a_face(name: str) -> None:
    atoms = STRUCTURES[name]
    copies = list(shifted_copies(atoms))
    assert len(copies) == 3
    for k, copy in enumerate(copies):
        assert copy.numbers.tolist() == atoms.numbers.tolist()
        assert copy.pbc.tolist() == atoms.pbc.tolist()
        np.testing.assert_allclose(vectors(copy), vectors(atoms), atol=1e-9)
        assert lies_within(copy)
        fractions = copy.cell.scaled_positions(copy.positions)
        closest = np.minimum(fractions, 1 - fractions).min()
        # Of n gaps in a cell the widest is at least 1/n.
        assert closest > (0.5 / len(atoms) - 1e-9 if k == 0 and atoms.pbc.all() else 1e-3)


def test_of_a_structure_that_does_not_lie_within_its_cell_amptorch_must_know_nothing() -> None:
    cell = [6.0, 6.0, 6.0]
    outside = [[1, 1, -0.1], [1, 1, 6.0], [1, 1, 20.0]]
    for position in outside:
        assert not lies_within(Atoms("H", [position], cell=cell, pbc=[True, True, False])), position
        assert lies_within(Atoms("H", [position], cell=cell, pbc=True)), position
    assert lies_within(Atoms("H", [[9, -9, 1]], cell=cell, pbc=[True, True, False]))
    assert not lies_within(Atoms("H", [[1, 1, 1]]))
