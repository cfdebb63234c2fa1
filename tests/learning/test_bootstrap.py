"""Bootstrap intervals: those of SciPy, and as often right as they say."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from bdqm_tune.learning.bootstrap import (
    LEAST,
    bca,
    intervals,
    mean_with_interval,
    selection_optimism,
    with_intervals,
)
from bdqm_tune.learning.metrics import energy_deviations, force_deviations

ONES = np.ones(10_000, dtype=np.int64)


def errors_like(random: np.random.Generator, n: int) -> Any:
    """Skewed errors, as those of potentials are."""
    return random.lognormal(sigma=1.0, size=n) * random.choice([-1, 1], size=n)


def test_intervals_are_those_of_scipy() -> None:
    random = np.random.default_rng(1)
    true = random.normal(scale=4.0, size=80)
    error = errors_like(random, 80)
    found = intervals(energy_deviations(true + error, true, ONES[:80]), resamples=20_000)
    statistics = {
        "energy_mae": lambda e, t, axis: np.abs(e).mean(axis),
        "energy_rmse": lambda e, t, axis: np.sqrt((e**2).mean(axis)),
        "energy_r2": lambda e, t, axis: 1 - (e**2).sum(axis) / ((t - t.mean(axis, keepdims=True)) ** 2).sum(axis),
    }
    for name, statistic in statistics.items():
        expected = stats.bootstrap(
            (error, true),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=20_000,
            method="BCa",
            random_state=np.random.default_rng(2),
        ).confidence_interval
        width = expected.high - expected.low
        assert found[name] == pytest.approx((expected.low, expected.high), abs=0.05 * width), name
        assert found[f"{name}_per_atom"] == found[name], "structures of one atom"


def test_nineteen_of_twenty_intervals_hold_the_true_error() -> None:
    random = np.random.default_rng(3)
    true_mae = np.exp(0.5)  # mean of a log-normal distribution
    inside, below = 0, 0
    for _ in range(400):
        error = errors_like(random, 100)
        low, high = intervals(energy_deviations(error, np.zeros(100), ONES[:100]), resamples=500)["energy_mae"]
        inside += low <= true_mae <= high
        below += high < true_mae
    # Skewed as it is, the mean of 100 is covered a little less than stated; by chance 2.2 % more or less.
    assert 0.90 <= inside / 400 <= 0.98
    assert below / 400 < 0.08


def test_the_same_structures_give_the_same_interval() -> None:
    error = errors_like(np.random.default_rng(0), 40)
    deviations = energy_deviations(error, np.zeros(40), ONES[:40])
    assert intervals(deviations) == intervals(deviations)
    assert intervals(deviations) != intervals(deviations, seed=1)


def test_forces_are_drawn_with_their_structures() -> None:
    """Errors that are alike in a structure leave as much to chance as one error a structure."""
    random = np.random.default_rng(4)
    alike = [np.full((30, 3), error) for error in errors_like(random, 50)]
    zeros = [np.zeros((30, 3))] * 50
    low, high = intervals(force_deviations(alike, zeros))["forces_mae"]
    of_one = energy_deviations(np.array([one[0, 0] for one in alike]), np.zeros(50), ONES[:50])
    assert (low, high) == pytest.approx(intervals(of_one)["energy_mae"])


def test_there_is_none_of_few_structures_or_of_the_largest_error() -> None:
    error = errors_like(np.random.default_rng(0), LEAST)
    few = with_intervals(energy_deviations(error[1:], np.zeros(LEAST - 1), ONES[: LEAST - 1]))
    assert not [name for name in few if name.endswith(("_low", "_high"))]
    enough = with_intervals(energy_deviations(error, np.zeros(LEAST), ONES[:LEAST]))
    assert "energy_mae_low" in enough
    assert "energy_max_error_low" not in enough
    assert "energy_r2_low" not in enough, "true energies that are all alike have none"
    assert mean_with_interval("gain", error[1:]).keys() == {"gain"}


def test_errors_that_are_all_alike_leave_nothing_to_chance() -> None:
    found = with_intervals(energy_deviations(np.full(20, 1.5), np.zeros(20), ONES[:20]))
    assert (found["energy_mae_low"], found["energy_mae_high"]) == (1.5, 1.5)
    assert bca(np.full(9, 2.0), 1.0, np.array([1.0, 1.0])) == (2.0, 2.0)


def test_the_interval_of_a_mean_is_scipys() -> None:
    values = errors_like(np.random.default_rng(5), 60) + 0.5
    found = mean_with_interval("gain", values)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=9999, method="BCa", random_state=np.random.default_rng(2)
    ).confidence_interval
    width = expected.high - expected.low
    assert found["gain"] == pytest.approx(values.mean())
    assert (found["gain_low"], found["gain_high"]) == pytest.approx((expected.low, expected.high), abs=0.07 * width)


def test_the_optimism_of_the_least_error_is_what_it_is_on_average() -> None:
    """Models that are equally good, or of which some are better, judged by few structures and then by all there are."""
    random = np.random.default_rng(5)
    for spread in (0.0, 0.2):
        seen, estimated = [], []
        for _ in range(150):
            true = 1.0 + spread * random.random(20)  # mean errors of 20 models
            errors = true[:, None] * random.exponential(size=30) ** 0.5 * random.exponential(size=(20, 30))
            scale = 0.8862  # mean of the square root of an exponential number
            chosen = errors.mean(axis=1).argmin()
            seen.append(scale * true[chosen] - errors[chosen].mean())
            estimated.append(selection_optimism(errors, resamples=200))
        assert np.mean(seen) > 0.1
        assert np.mean(estimated) == pytest.approx(np.mean(seen), rel=0.35)


def test_one_model_that_is_much_better_was_not_chosen_by_luck() -> None:
    errors = np.random.default_rng(1).exponential(size=(10, 40))
    errors[3] *= 0.05
    assert selection_optimism(errors) < 0.01 * errors.mean()
    assert selection_optimism(errors) == selection_optimism(errors)
    assert selection_optimism(np.ones((3, 10))) == 0.0
