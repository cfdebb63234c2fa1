"""Feature scalers: what they do to the columns they were fitted to, at the edges, and to each element."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.covariance import oas

from bdqm_tune.learning.scalers import (
    FLOORS,
    ElementScaler,
    FeatureScaler,
    Scaler,
    Scaling,
    _shrinkage,
    fit_scaler,
)

SCALINGS: list[Scaling] = ["whiten", "standardise", "normalise", "log"]
NUMBERS = np.random.default_rng(4).choice([1, 8, 29], 200)
COLUMNS = np.random.default_rng(3).lognormal(size=(200, 5)) * [1e-6, 1e-2, 1.0, 1e3, 1e8]


def fitted(features: NDArray[np.float64], scaling: Scaling, limits: tuple[float, float] = (0.0, 1.0)) -> FeatureScaler:
    """A scaler of all atoms, fitted to features in one piece."""
    scaler = fit_scaler(lambda: [(features, np.ones(len(features), dtype=np.int64))], scaling, limits)
    assert isinstance(scaler, FeatureScaler)
    return scaler


def fitted_per_element(scaling: Scaling) -> Scaler:
    return fit_scaler(lambda: [(COLUMNS, NUMBERS)], scaling, per_element=True)


@pytest.mark.parametrize("scaling", ["whiten", "standardise", "log"])
def test_scaled_training_columns_have_mean_zero_and_deviation_one(scaling: Scaling) -> None:
    scaled = fitted(COLUMNS, scaling)(COLUMNS)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-10)


def test_standardising_is_linear() -> None:
    scaler = fitted(COLUMNS, "standardise")
    mean, deviation = COLUMNS.mean(axis=0), COLUMNS.std(axis=0)
    np.testing.assert_allclose(scaler(mean + 3 * deviation), np.full(5, 3.0), rtol=1e-9)
    assert scaler.floor is None


def test_the_logarithm_has_a_floor_of_a_thousandth_of_the_mean() -> None:
    scaler = fitted(COLUMNS, "log")
    assert scaler.floor is not None
    np.testing.assert_allclose(scaler.floor, COLUMNS.mean(axis=0) / 1000, rtol=1e-12)
    logarithms = np.log(COLUMNS + scaler.floor)
    expected = (logarithms - logarithms.mean(axis=0)) / logarithms.std(axis=0)
    np.testing.assert_allclose(scaler(COLUMNS), expected, rtol=1e-9, atol=1e-12)


def test_the_logarithm_bears_zeros_and_negative_values() -> None:
    scaler = fitted(COLUMNS, "log")
    assert np.isfinite(scaler(np.zeros((1, 5)))).all()
    np.testing.assert_array_equal(scaler(np.full((1, 5), -1.0)), scaler(np.zeros((1, 5))))


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("value", [0.0, 1e-12, 0.1, 7.3e11])
def test_constant_columns_become_zero_and_stay_small_on_other_data(scaling: Scaling, value: float, pieces: int) -> None:
    constant = np.full((50, 1), value)
    # What rounding adds is no variation.
    constant[::2] *= 1 + 1e-15
    parts = [(part, np.ones(len(part), dtype=np.int64)) for part in np.array_split(constant, pieces)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaler = fit_scaler(lambda: parts, scaling)
        assert isinstance(scaler, FeatureScaler)
        assert np.abs(scaler(constant)).max() < 1e-3 * max(1.0, value)
        assert np.isfinite(scaler(constant)).all()
    assert scaler.divisor.tolist() == [1.0]


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_single_row_is_scaled_to_zero(scaling: Scaling) -> None:
    row = COLUMNS[:1]
    np.testing.assert_allclose(fitted(row, scaling)(row), 0, atol=1e-12)


@pytest.mark.parametrize("limits", [(0.0, 1.0), (-1.0, 1.0), (2.0, 7.0)])
def test_normalised_training_columns_fill_their_range(limits: tuple[float, float]) -> None:
    scaled = fitted(COLUMNS, "normalise", limits)(COLUMNS)
    np.testing.assert_allclose(scaled.min(axis=0), limits[0], atol=1e-10)
    np.testing.assert_allclose(scaled.max(axis=0), limits[1], rtol=1e-10)
    ranks = np.argsort(COLUMNS, axis=0)
    assert np.array_equal(np.argsort(scaled, axis=0), ranks)


def test_each_element_is_scaled_as_if_it_were_alone() -> None:
    for scaling in SCALINGS:
        scaled = fitted_per_element(scaling)(COLUMNS, NUMBERS)
        for z in (1, 8, 29):
            own = COLUMNS[z == NUMBERS]
            np.testing.assert_array_equal(scaled[z == NUMBERS], fitted(own, scaling)(own))


def test_an_element_that_was_not_there_is_scaled_as_all_atoms_are() -> None:
    gold = np.full(200, 79)
    for scaling in SCALINGS:
        scaler = fitted_per_element(scaling)
        np.testing.assert_array_equal(scaler(COLUMNS, gold), fitted(COLUMNS, scaling)(COLUMNS))


def scalers_in(scaler: Scaler) -> dict[int, FeatureScaler]:
    """The scalers of all elements by atomic number, that of other elements under 0."""
    assert isinstance(scaler, ElementScaler)
    return {0: scaler.others, **scaler.per_element}


@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(1, 199), max_size=8, unique=True))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_in_whatever_pieces_the_features_come_the_scaler_is_the_same(
    scaling: Scaling, seed: int, cuts: list[int]
) -> None:
    random = np.random.default_rng(seed)
    # Far from zero a sum of squares would have lost the deviation.
    columns = COLUMNS + np.array([0, 0, 1e6, 0, 1e14])
    order = np.sort(random.integers(0, 200, 200))
    columns, numbers = columns[order], NUMBERS[order]
    parts = list(zip(np.split(columns, sorted(cuts)), np.split(numbers, sorted(cuts)), strict=True))
    whole = scalers_in(fit_scaler(lambda: [(columns, numbers)], scaling, (-1.0, 1.0), per_element=True))
    pieces = scalers_in(fit_scaler(lambda: parts, scaling, (-1.0, 1.0), per_element=True))
    assert pieces.keys() == whole.keys()
    for z, expected in whole.items():
        np.testing.assert_allclose(pieces[z].offset, expected.offset, rtol=1e-12)
        np.testing.assert_allclose(pieces[z].divisor, expected.divisor, rtol=1e-7)
        assert (pieces[z].floor is None) == (expected.floor is None) == (scaling not in ("log", "whiten"))
        if expected.floor is not None:
            np.testing.assert_allclose(pieces[z].floor, expected.floor, rtol=1e-12)
        assert (pieces[z].matrix is None) == (expected.matrix is None) == (scaling != "whiten")
        if pieces[z].matrix is not None and expected.matrix is not None:
            # The axes of equal eigenvalues are any: what holds is the metric of the inputs.
            ours, theirs = (matrix @ matrix.T for matrix in (pieces[z].matrix, expected.matrix))
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_derivatives_are_those_of_finite_differences(scaling: Scaling) -> None:
    step = 1e-6 * COLUMNS * np.random.default_rng(7).normal(size=COLUMNS.shape)
    for scaler in (fitted(COLUMNS, scaling), fitted_per_element(scaling)):
        difference = (scaler(COLUMNS + step, NUMBERS) - scaler(COLUMNS - step, NUMBERS)) / 2
        found = scaler.of_inputs(step[:, None, :], COLUMNS, NUMBERS)[:, 0]
        np.testing.assert_allclose(found, difference, rtol=1e-4, atol=1e-4 * np.abs(difference).mean())


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_quantity_changes_the_same_by_features_and_by_inputs(scaling: Scaling) -> None:
    by_inputs, steps = np.random.default_rng(8).normal(size=(2, *COLUMNS.shape))
    steps = 1e-3 * COLUMNS * steps
    for scaler in (fitted(COLUMNS, scaling), fitted_per_element(scaling)):
        of_inputs = scaler.of_inputs(steps[:, None, :], COLUMNS, NUMBERS)[:, 0]
        change = (scaler.by_features(by_inputs, COLUMNS, NUMBERS) * steps).sum(axis=1)
        np.testing.assert_allclose(change, (by_inputs * of_inputs).sum(axis=1), rtol=1e-9, atol=1e-12)


def test_below_zero_where_the_logarithm_is_cut_nothing_changes() -> None:
    scaler, below = fitted(COLUMNS, "log"), np.full((1, 5), -1.0)
    assert not scaler.by_features(np.ones((1, 5)), below).any()
    assert not scaler.of_inputs(np.ones((1, 3, 5)), below).any()


def dependent(n: int = 400) -> NDArray[np.float64]:
    """Features (n, 6) of four degrees of freedom, as symmetry functions are: one all but a multiple of another."""
    free = np.random.default_rng(5).normal(size=(n, 4))
    near = free[:, 0] + 1e-3 * free[:, 1]
    return 3 + np.stack([free[:, 0], near, free[:, 2], free[:, 2] - free[:, 0], 10 * free[:, 3], free[:, 3]], axis=1)


def test_whitened_inputs_are_uncorrelated_with_variance_one_down_to_the_floor() -> None:
    features = dependent()
    numbers = np.ones(len(features), dtype=np.int64)
    for axis_floor in (1e-8, 1e-3):
        scaler = fit_scaler(lambda: [(features, numbers)], "whiten", axis_floor=axis_floor)
        variances = np.linalg.eigvalsh(np.corrcoef(features.T))[::-1]
        covariance = np.cov(scaler(features, numbers).T, bias=True)
        expected = np.where(variances > 1e-12, variances / np.maximum(variances, axis_floor), 0)
        np.testing.assert_allclose(covariance, np.diag(expected), atol=1e-6)


def test_of_features_that_are_never_negative_the_logarithms_are_whitened() -> None:
    scaler = fitted(COLUMNS, "whiten")
    assert scaler.floor is not None
    np.testing.assert_allclose(scaler.floor, COLUMNS.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(np.cov(scaler(COLUMNS).T, bias=True), np.eye(5), atol=1e-9)
    below = COLUMNS.copy()
    below[7, 2] = -0.1
    assert fitted(below, "whiten").floor is None, "of such features there is none"


def test_the_inputs_do_not_depend_on_the_units_of_the_features() -> None:
    features = dependent()
    inputs = fitted(features, "whiten")(features)
    scaled = features * [1e-9, 1.0, 1e5, 3.0, 1e-3, 0.1]
    np.testing.assert_allclose(fitted(scaled, "whiten")(scaled), inputs, atol=1e-6)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_negligible_feature_has_no_part_in_the_inputs_and_a_small_one_has(scaling: Scaling) -> None:
    """Functions of neighbours that are never there reach 1e-136, those of narrow probes 1e-9; these are needed."""
    features = COLUMNS / COLUMNS.mean(axis=0) * [1e-136, 1e-30, 1e-18, 1e-9, 1.0]
    scaler = fitted(features, scaling)
    steps = scaler.of_inputs(np.eye(5)[None, :, :].repeat(len(features), axis=0), features)
    assert (np.abs(steps) < 1e30).all(), "single precision holds them"
    changed = features.copy()
    changed[:, :2] *= 5
    np.testing.assert_allclose(scaler(changed), scaler(features), atol=1e-12)
    for column in (2, 3):
        changed = features.copy()
        changed[:, column] *= 5
        assert np.abs(scaler(changed) - scaler(features)).mean() > 0.01


def test_few_atoms_raise_the_least_variance_of_an_axis() -> None:
    random = np.random.default_rng(0)
    mixing = random.normal(size=(12, 12)) * np.geomspace(1, 1e-4, 12)[:, None]
    for n, expected in ((60, True), (200_000, False)):
        features = random.normal(size=(n, 12)) @ mixing
        numbers = np.ones(n, dtype=np.int64)
        auto, least = (
            fit_scaler(lambda: [(features, numbers)], "whiten", axis_floor=floor)  # noqa: B023
            for floor in ("auto", FLOORS[0])
        )
        assert (np.abs(auto(features, numbers) - least(features, numbers)).max() > 0.1) == expected


def test_the_shrinkage_is_that_of_scikit_learn() -> None:
    """Its function takes the data themselves."""
    random = np.random.default_rng(1)
    for n, p in ((40, 5), (1000, 12)):
        features = random.normal(size=(n, p)) @ random.normal(size=(p, p))
        features -= features.mean(axis=0)
        _, expected = oas(features, assume_centered=True)
        assert _shrinkage(features.T @ features / n, n) == pytest.approx(expected, rel=1e-9)
