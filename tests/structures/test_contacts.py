"""Atoms on top of each other are found as ASE's neighbour search finds them, in the cell and across its faces."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from bdqm_tune.config.config import Data
from bdqm_tune.errors import BadInput
from bdqm_tune.structures.contacts import check_contacts
from bdqm_tune.structures.read import from_atoms

CELL = [5.0] * 3


def refused(atoms: Atoms, least: float = 0.25) -> bool:
    try:
        check_contacts(atoms, least)
    except BadInput:
        return True
    return False


def test_two_atoms_are_refused_exactly_where_the_least_ratio_of_their_distance_is_too_small() -> None:
    random = np.random.default_rng(3)
    outcomes, wrong = [], []
    for i in range(150):
        n, pbc = int(random.integers(1, 7)), random.random(3) < 0.6
        cell = np.diag(random.uniform(0.8, 6, 3)) + random.normal(scale=0.4, size=(3, 3))
        numbers, positions = random.integers(1, 87, n), random.normal(scale=4, size=(n, 3))
        atoms = Atoms(numbers=numbers, positions=positions, cell=cell, pbc=pbc)
        first, second, distance = neighbor_list("ijd", atoms, 6.0)
        ratios = distance / (covalent_radii[numbers[first]] + covalent_radii[numbers[second]])
        expected = bool((ratios < 0.6).any())
        outcomes.append(expected)
        if refused(atoms, 0.6) != expected:
            wrong.append((i, ratios.min()))
    assert not wrong
    assert 30 < sum(outcomes) < 120


def test_atoms_at_one_place_are_refused_and_named() -> None:
    cases = {
        "the same place": ([[0, 0, 0], [0, 0, 0]], "atom 0 (Cu) and atom 1 (Cu) are 0 Å apart"),
        "by periodicity": ([[0, 0, 0], [5, 0, 0]], "atom 0 (Cu) and atom 1 (Cu) are 0 Å apart"),
        "some cells away": ([[0, 0, 0], [-10, 15, 5]], "atom 0 (Cu) and atom 1 (Cu) are 0 Å apart"),
        "close": ([[1, 1, 1], [1, 1, 1.001]], "are 0.001 Å apart"),
        "across a face": ([[0.02, 0, 0], [4.97, 0, 0]], "are 0.05 Å apart"),
        "across a corner": ([[0.02] * 3, [4.99] * 3], "are 0.052 Å apart"),
        "all": ([[0, 0, 0]] * 4, "are 0 Å apart"),
    }
    for what, (positions, expected) in cases.items():
        with pytest.raises(BadInput) as caught:
            check_contacts(Atoms("Cu" * len(positions), positions, cell=CELL, pbc=True), 0.25)
        assert expected in str(caught.value), what
    with pytest.raises(BadInput, match=r"atom 0 \(Cu\) and its periodic image are 0.5 Å apart"):
        check_contacts(Atoms("Cu", cell=[0.5, 5, 5], pbc=True), 0.25)


def test_what_calculations_have_passes() -> None:
    structures = [
        Atoms("H2", [[0, 0, 0], [0, 0, 0.5]]),
        Atoms("Cu2", [[0, 0, 0], [5, 0, 0]], cell=CELL, pbc=[False, True, True]),
        Atoms("H"),
        bulk("Cu"),
        bulk("Cs"),
        *(molecule(name) for name in ("H2O", "CH4", "C2H2", "HF", "LiH")),
    ]
    assert [atoms.get_chemical_formula() for atoms in structures if refused(atoms)] == []


@pytest.mark.parametrize("pbc", [False, True, [True, False, False], [True, True, False]])
def test_atoms_as_far_apart_as_they_may_be_are_no_burden(pbc: bool | list[bool]) -> None:
    positions = [[-1e6, -1e6, -1e6], [1e6, 1e6, 1e6], [1e6 - 3, 0, 0]]
    check_contacts(Atoms("H3", positions, cell=[4, 7, 1e6], pbc=pbc), 0.25)


def test_the_option_sets_the_ratio_and_zero_does_not_check() -> None:
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 0.9]])  # 0.341 of 2 × 1.32 Å
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    for ratio, expected in ((0.0, False), (0.34, False), (0.342, True), (1.0, True)):
        try:
            from_atoms([atoms], "given.traj", Data(min_covalent_ratio=ratio))
            outcome = False
        except BadInput as error:
            outcome = str(error).startswith("given.traj, image 0: atom 0 (Cu) and atom 1 (Cu)")
        assert outcome == expected, ratio
