"""Feature scalers: what they do to the columns they were fitted to, at the edges, and to each element."""

import warnings

import numpy as np
import pytest

from bdqm_tune.learning.scalers import Scaling, fit_element_scaler, fit_feature_scaler

SCALINGS: list[Scaling] = ["standardise", "normalise", "log"]
NUMBERS = np.random.default_rng(4).choice([1, 8, 29], 200)
COLUMNS = np.random.default_rng(3).lognormal(size=(200, 5)) * [1e-6, 1e-2, 1.0, 1e3, 1e8]


@pytest.mark.parametrize("scaling", ["standardise", "log"])
def test_scaled_training_columns_have_mean_zero_and_deviation_one(scaling: Scaling) -> None:
    scaled = fit_feature_scaler(COLUMNS, scaling)(COLUMNS)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-10)


def test_standardising_is_linear() -> None:
    scaler = fit_feature_scaler(COLUMNS, "standardise")
    mean, deviation = COLUMNS.mean(axis=0), COLUMNS.std(axis=0)
    np.testing.assert_allclose(scaler(mean + 3 * deviation), np.full(5, 3.0), rtol=1e-9)
    assert scaler.floor is None


def test_the_logarithm_has_a_floor_of_a_thousandth_of_the_mean() -> None:
    scaler = fit_feature_scaler(COLUMNS, "log")
    assert scaler.floor is not None
    np.testing.assert_allclose(scaler.floor, COLUMNS.mean(axis=0) / 1000, rtol=1e-12)
    logarithms = np.log(COLUMNS + scaler.floor)
    expected = (logarithms - logarithms.mean(axis=0)) / logarithms.std(axis=0)
    np.testing.assert_allclose(scaler(COLUMNS), expected, rtol=1e-9, atol=1e-12)


def test_the_logarithm_bears_zeros_and_negative_values() -> None:
    scaler = fit_feature_scaler(COLUMNS, "log")
    assert np.isfinite(scaler(np.zeros((1, 5)))).all()
    np.testing.assert_array_equal(scaler(np.full((1, 5), -1.0)), scaler(np.zeros((1, 5))))


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("value", [0.0, 1e-12, 0.1, 7.3e11])
def test_constant_columns_become_zero_and_stay_small_on_other_data(scaling: Scaling, value: float) -> None:
    constant = np.full((50, 1), value)
    # What rounding adds is no variation.
    constant[::2] *= 1 + 1e-15
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaler = fit_feature_scaler(constant, scaling)
        assert np.abs(scaler(constant)).max() < 1e-3 * max(1.0, value)
        assert np.isfinite(scaler(constant)).all()
    assert scaler.divisor.tolist() == [1.0]


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_single_row_is_scaled_to_zero(scaling: Scaling) -> None:
    row = COLUMNS[:1]
    np.testing.assert_allclose(fit_feature_scaler(row, scaling)(row), 0, atol=1e-12)


@pytest.mark.parametrize("limits", [(0.0, 1.0), (-1.0, 1.0), (2.0, 7.0)])
def test_normalised_training_columns_fill_their_range(limits: tuple[float, float]) -> None:
    scaled = fit_feature_scaler(COLUMNS, "normalise", limits)(COLUMNS)
    np.testing.assert_allclose(scaled.min(axis=0), limits[0], atol=1e-10)
    np.testing.assert_allclose(scaled.max(axis=0), limits[1], rtol=1e-10)
    ranks = np.argsort(COLUMNS, axis=0)
    assert np.array_equal(np.argsort(scaled, axis=0), ranks)


def test_each_element_is_scaled_as_if_it_were_alone() -> None:
    for scaling in SCALINGS:
        scaled = fit_element_scaler(COLUMNS, NUMBERS, scaling)(COLUMNS, NUMBERS)
        for z in (1, 8, 29):
            own = COLUMNS[z == NUMBERS]
            np.testing.assert_array_equal(scaled[z == NUMBERS], fit_feature_scaler(own, scaling)(own))


def test_an_element_that_was_not_there_is_scaled_as_all_atoms_are() -> None:
    gold = np.full(200, 79)
    for scaling in SCALINGS:
        scaler = fit_element_scaler(COLUMNS, NUMBERS, scaling)
        np.testing.assert_array_equal(scaler(COLUMNS, gold), fit_feature_scaler(COLUMNS, scaling)(COLUMNS))


@pytest.mark.parametrize("scaling", SCALINGS)
def test_slopes_are_those_of_finite_differences(scaling: Scaling) -> None:
    step = 1e-6 * COLUMNS
    for scaler in (fit_feature_scaler(COLUMNS, scaling), fit_element_scaler(COLUMNS, NUMBERS, scaling)):
        difference = scaler(COLUMNS + step, NUMBERS) - scaler(COLUMNS - step, NUMBERS)
        np.testing.assert_allclose(scaler.slope(COLUMNS, NUMBERS), difference / (2 * step), rtol=1e-5)


def test_below_zero_where_the_logarithm_is_cut_the_slope_is_zero() -> None:
    scaler = fit_feature_scaler(COLUMNS, "log")
    assert not scaler.slope(np.full((1, 5), -1.0)).any()
