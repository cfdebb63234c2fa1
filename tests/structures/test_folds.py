"""Folds: a seeded partition of all structures, in which what belongs together is in one part."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdqm_tune.errors import BadInput
from bdqm_tune.structures import fold_indices
from tests.structures.test_split import FORMULAS, structures

METHODS = ["random", "composition", "blocks"]


@pytest.mark.parametrize("method", METHODS)
@given(
    labels=st.lists(st.integers(0, 8), min_size=2, max_size=40),
    n_folds=st.integers(2, 6),
    seed=st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_each_structure_is_in_one_fold_and_copies_are_in_the_same(
    method: str, labels: list[int], n_folds: int, seed: int
) -> None:
    given = structures([FORMULAS[label] for label in labels])
    copies = np.array([labels.index(label) for label in labels])
    if len(set(labels)) < n_folds:
        with pytest.raises(BadInput, match=r"given\.traj: data\.validation\.folds: \d folds need at least as many"):
            fold_indices(given, n_folds, method, seed, copies)
        return
    folds = fold_indices(given, n_folds, method, seed, copies)
    assert len(folds) == n_folds
    assert sorted(np.concatenate(folds).tolist()) == list(range(len(labels)))
    assert all(len(fold) and fold.tolist() == sorted(fold) for fold in folds)
    for i, one in enumerate(folds):
        for other in folds[i + 1 :]:
            assert not set(copies[one]) & set(copies[other])


@pytest.mark.parametrize("method", ["random", "blocks"])
@given(n=st.integers(2, 200), n_folds=st.integers(2, 20), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_without_copies_folds_differ_by_one_structure_at_most(method: str, n: int, n_folds: int, seed: int) -> None:
    if n < n_folds:
        return
    sizes = [len(fold) for fold in fold_indices(structures(["CuO"] * n), n_folds, method, seed)]
    assert sum(sizes) == n
    assert max(sizes) - min(sizes) <= 1


@given(formulas=st.lists(st.sampled_from(FORMULAS), min_size=4, max_size=60), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_by_composition_a_formula_is_in_one_fold_and_folds_are_of_like_size(formulas: list[str], seed: int) -> None:
    given = structures(formulas)
    if len(set(formulas)) < 3:
        with pytest.raises(BadInput, match="3 folds need at least as many formulas"):
            fold_indices(given, 3, "composition", seed)
        return
    folds = [{formulas[i] for i in fold} for fold in fold_indices(given, 3, "composition", seed)]
    assert sum(map(len, folds)) == len(set(formulas))
    sizes = [sum(formulas.count(formula) for formula in fold) for fold in folds]
    largest = max(formulas.count(formula) for formula in formulas)
    assert max(sizes) - min(sizes) <= largest, "the next one goes to the smallest"


@pytest.mark.parametrize("method", ["random", "composition"])
def test_the_seed_says_who_is_in_which(method: str) -> None:
    given = structures([FORMULAS[i % len(FORMULAS)] for i in range(30)])
    found = {seed: [fold.tolist() for fold in fold_indices(given, 3, method, seed)] for seed in range(5)}
    again = {seed: [fold.tolist() for fold in fold_indices(given, 3, method, seed)] for seed in found}
    assert found == again
    assert len({str(folds) for folds in found.values()}) == 5


def test_blocks_are_consecutive() -> None:
    folds = fold_indices(structures(["CuO"] * 23), 4, "blocks", 5)
    assert np.concatenate(folds).tolist() == list(range(23))


def test_a_repeated_cell_is_in_the_fold_of_its_formula() -> None:
    given = structures(["Cu", "Cu2", "CuO", "CO", "Pt4"])
    for seed in range(10):
        folds = fold_indices(given, 3, "composition", seed, np.array([0, 0, 2, 3, 4]))
        assert any({0, 1} <= set(fold.tolist()) for fold in folds)
