"""The split: a seeded partition into training and validation."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given, settings
from hypothesis import strategies as st

from bdqm_tune.errors import BadInput
from bdqm_tune.structures import Structures, split_indices
from bdqm_tune.structures.read import from_atoms

FORMULAS = ["Cu", "Cu2", "CuO", "CO", "CO2", "H2O", "NH3", "Pt4", "PtH"]


def structures(formulas: list[str]) -> Structures:
    images = []
    for i, formula in enumerate(formulas):
        atoms = Atoms(formula)
        atoms.positions[:, 0] = np.arange(len(atoms)) + 0.01 * i
        atoms.calc = SinglePointCalculator(atoms, energy=-float(i))
        images.append(atoms)
    return from_atoms(images, "given.traj")


@pytest.mark.parametrize("method", ["random", "composition"])
@given(
    formulas=st.lists(st.sampled_from(FORMULAS), min_size=2, max_size=30).filter(lambda f: len(set(f)) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_every_structure_is_on_exactly_one_side(method: str, formulas: list[str], fraction: float, seed: int) -> None:
    train, validation = split_indices(structures(formulas), fraction, method, seed)
    assert sorted([*train, *validation]) == list(range(len(formulas)))
    assert len(train) > 0
    assert len(validation) > 0
    assert list(train) == sorted(train)
    assert list(validation) == sorted(validation)


@given(
    formulas=st.lists(st.sampled_from(FORMULAS), min_size=2, max_size=40).filter(lambda f: len(set(f)) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_by_composition_no_formula_is_on_both_sides_and_the_share_is_met(
    formulas: list[str], fraction: float, seed: int
) -> None:
    train, validation = split_indices(structures(formulas), fraction, "composition", seed)
    left, right = {formulas[i] for i in train}, {formulas[i] for i in validation}
    assert not left & right
    wanted = fraction * len(formulas)
    # It stops at the first formula with which it has enough; the training side keeps one formula in any case.
    assert len(validation) >= wanted - 0.5 or len(left) == 1
    assert len(validation) - max(sum(formulas[i] == f for i in validation) for f in right) < wanted + 0.5


@pytest.mark.parametrize(
    ("n", "fraction", "expected"),
    [(100, 0.1, 10), (100, 0.25, 25), (10, 0.01, 1), (10, 0.99, 9), (2, 0.5, 1), (2, 0.01, 1), (2, 0.99, 1)],
)
def test_at_random_the_validation_split_has_its_share(n: int, fraction: float, expected: int) -> None:
    train, validation = split_indices(structures(["CuO"] * n), fraction, "random", 0)
    assert (len(train), len(validation)) == (n - expected, expected)


@pytest.mark.parametrize("method", ["random", "composition"])
def test_the_seed_decides(method: str) -> None:
    given = structures([formula for formula in FORMULAS for _ in range(5)])
    splits = {seed: tuple(split_indices(given, 0.3, method, seed)[1].tolist()) for seed in range(10)}
    again = {seed: tuple(split_indices(given, 0.3, method, seed)[1].tolist()) for seed in splits}
    assert again == splits
    assert len(set(splits.values())) > 5


def test_at_random_the_validation_structures_are_spread_over_the_file() -> None:
    _, validation = split_indices(structures(["CuO"] * 400), 0.25, "random", 12)
    quarters = np.bincount(validation // 100, minlength=4)
    assert quarters.min() >= 10


def test_the_order_of_the_atoms_is_no_part_of_a_formula() -> None:
    given = structures(["CuO", "OCu", "PtH", "HPt", "CO", "OC"])
    for seed in range(10):
        _, validation = split_indices(given, 0.3, "composition", seed)
        assert validation.tolist() in ([0, 1], [2, 3], [4, 5])


def test_a_single_composition_cannot_be_split_by_composition() -> None:
    with pytest.raises(BadInput, match=r"given\.traj: all structures have the formula CuO; .*'random'"):
        split_indices(structures(["CuO", "OCu", "CuO"]), 0.3, "composition", 0)


@pytest.mark.parametrize("method", ["random", "composition"])
def test_one_structure_cannot_be_split(method: str) -> None:
    with pytest.raises(BadInput, match=r"given\.traj: needs at least 2 structures.*got 1"):
        split_indices(structures(["CuO"]), 0.1, method, 0)


def test_without_copies_the_split_is_that_of_a_permutation() -> None:
    """Of studies that were made before copies were looked for."""
    given = structures(["CuO"] * 40)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(40)
        for copies in (None, np.arange(40)):
            train, validation = split_indices(given, 0.2, "random", seed, copies)
            assert validation.tolist() == sorted(order[:8].tolist())
            assert train.tolist() == sorted(order[8:].tolist())


@pytest.mark.parametrize("method", ["random", "composition", "blocks"])
@given(
    labels=st.lists(st.integers(0, 6), min_size=2, max_size=30).filter(lambda given: len(set(given)) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
@settings(max_examples=80, deadline=None)
def test_copies_are_on_one_side(method: str, labels: list[int], fraction: float, seed: int) -> None:
    given = structures([FORMULAS[label] for label in labels])
    copies = np.array([labels.index(label) for label in labels])
    train, validation = split_indices(given, fraction, method, seed, copies)
    assert sorted([*train, *validation]) == list(range(len(labels)))
    assert len(train) > 0
    assert len(validation) > 0
    assert not set(copies[train]) & set(copies[validation])


def test_a_repeated_cell_is_on_the_side_of_its_formula() -> None:
    given = structures(["Cu", "Cu2", "CuO", "CO", "Pt4"])
    for seed in range(20):
        _, validation = split_indices(given, 0.4, "composition", seed, np.array([0, 0, 2, 3, 4]))
        assert (0 in validation) == (1 in validation)


def test_only_copies_of_one_structure_cannot_be_split() -> None:
    with pytest.raises(BadInput, match=r"given\.traj: all 3 structures are copies of one"):
        split_indices(structures(["CuO"] * 3), 0.3, "random", 0, np.zeros(3, dtype=int))


def test_blocks_are_consecutive_and_the_seed_says_where() -> None:
    given = structures(["CuO"] * 50)
    starts = set()
    for seed in range(20):
        _, validation = split_indices(given, 0.2, "blocks", seed)
        assert validation.tolist() == list(range(validation[0], validation[0] + 10))
        starts.add(int(validation[0]))
    assert len(starts) > 10
    assert max(starts) > 30
