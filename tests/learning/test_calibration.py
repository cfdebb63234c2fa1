"""Conformal intervals hold what they state, whatever the errors are like; and too few structures are named."""

import numpy as np
import pytest
from scipy import stats

from bdqm_tune.errors import BadInput
from bdqm_tune.learning.calibration import Calibration, rank_of, scores
from bdqm_tune.learning.coverage import coverage_curve, coverage_range, expected_range


def errors_and_spreads(n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Structures of very different sizes; heavy-tailed errors that the spread follows badly."""
    n_atoms = random.integers(3, 200, n)
    spreads = n_atoms * random.lognormal(-3, 0.7, n)
    errors = 0.1 * n_atoms * random.standard_t(3, n) + spreads * random.normal(size=n)
    return errors, spreads, n_atoms


@pytest.mark.parametrize("n", [9, 30, 200])
@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_the_coverage_of_new_structures_is_at_least_the_stated_one_and_hardly_more(n: int, coverage: float) -> None:
    """Over many calibrations its mean is rank / (n + 1), which lies in [coverage, coverage + 1 / (n + 1)]."""
    random, observed = np.random.default_rng(n), []
    for _ in range(3000):
        calibration = Calibration.fit(*errors_and_spreads(n, random), floor=0.01, coverage=coverage)
        errors, spreads, n_atoms = errors_and_spreads(20, random)
        observed.append(np.abs(errors) <= calibration.half_widths(spreads, n_atoms))
    mean, uncertainty = np.mean(observed), np.std(np.mean(observed, axis=1)) / np.sqrt(3000)
    assert mean == pytest.approx(rank_of(n, coverage) / (n + 1), abs=4 * uncertainty)
    assert coverage - 4 * uncertainty <= mean <= coverage + 1 / (n + 1) + 4 * uncertainty


def test_the_quantile_is_the_score_of_its_rank() -> None:
    errors = np.array([3.0, -1.0, 2.0, -4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    calibration = Calibration.fit(errors, np.ones(10), np.ones(10, dtype=int), floor=0.5, coverage=0.7)
    assert rank_of(10, 0.7) == 8  # ceil(7.7)
    assert calibration.quantile() == 8.0
    assert calibration.quantile(0.5) == 6.0
    assert calibration.half_widths(np.array([2.0, 0.1]), np.array([1, 3])).tolist() == [16.0, 12.0]


def test_the_quantile_does_not_know_of_the_size_of_structures() -> None:
    errors, spreads, n_atoms = errors_and_spreads(50, np.random.default_rng(0))
    one, many = (Calibration.fit(k * errors, k * spreads, k * n_atoms, 0.05, 0.9).quantile() for k in (1, 7))
    assert many == pytest.approx(one, rel=1e-12)


def test_a_spread_below_the_floor_counts_as_the_floor() -> None:
    found = scores(np.array([2.0, 2.0]), np.array([0.0, 1.0]), np.array([10, 10]), floor=0.05)
    assert found.tolist() == [4.0, 2.0]


@pytest.mark.parametrize(
    ("coverage", "smallest"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.7, 3), (0.999, 999)]
)
def test_the_least_number_of_structures_is_enough_and_named(coverage: float, smallest: int) -> None:
    assert rank_of(smallest, coverage) <= smallest
    with pytest.raises(
        BadInput, match=rf"{coverage:g} needs at least {smallest} structures .* there are {smallest - 1}"
    ):
        rank_of(smallest - 1, coverage)


def test_the_largest_coverage_is_named() -> None:
    with pytest.raises(BadInput, match=r"a coverage of at most 0\.8$"):
        rank_of(4, 0.9)
    assert rank_of(4, 0.8) == 4


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1, 90, float("nan")])
def test_a_coverage_that_is_none_is_refused(coverage: float) -> None:
    with pytest.raises(BadInput, match="coverage must be between 0 and 1, as 0.9; got"):
        rank_of(30, coverage)


@pytest.mark.parametrize(
    ("values", "floor", "message"),
    [([2.0, 1.0], 1.0, "ascending"), ([1.0, np.nan], 1.0, "finite"), ([1.0, 2.0], 0.0, "floor .* got 0")],
)
def test_a_calibration_that_is_none_is_refused(values: list[float], floor: float, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Calibration(np.array(values), floor, 0.5)


def test_the_range_of_an_observed_coverage_is_the_exact_binomial_one() -> None:
    assert coverage_range(0, 100) == pytest.approx((0.0, 1 - 0.025 ** (1 / 100)))
    low, high = coverage_range(87, 100)
    assert stats.binom.sf(86, 100, low) == pytest.approx(0.025, rel=1e-6)
    assert stats.binom.cdf(87, 100, high) == pytest.approx(0.025, rel=1e-6)


def test_the_range_that_chance_explains_holds_nineteen_of_twenty_calibrations() -> None:
    random, inside = np.random.default_rng(0), []
    low, high = expected_range(30, 300, 0.9)
    for _ in range(2000):
        calibration = Calibration.fit(*errors_and_spreads(30, random), floor=0.01, coverage=0.9)
        errors, spreads, n_atoms = errors_and_spreads(300, random)
        inside.append(low <= (np.abs(errors) <= calibration.half_widths(spreads, n_atoms)).mean() <= high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_the_curve_goes_through_the_stated_coverage() -> None:
    random = np.random.default_rng(1)
    calibration = Calibration.fit(*errors_and_spreads(29, random), floor=0.01, coverage=0.9)
    errors, spreads, n_atoms = errors_and_spreads(500, random)
    curve = coverage_curve(calibration, scores(errors, spreads, n_atoms, 0.01))
    assert curve["stated"].tolist() == pytest.approx([k / 30 for k in range(1, 30)])
    assert curve["observed"].is_monotonic_increasing
    assert (curve["low"] <= curve["stated"]).all()
    assert (curve["stated"] <= curve["high"]).all()
    (at,) = curve[np.isclose(curve["stated"], 0.9)]["observed"]
    assert at == (np.abs(errors) <= calibration.half_widths(spreads, n_atoms)).mean()
    many = Calibration(np.sort(random.exponential(size=5000)), 0.01, 0.9)
    assert len(coverage_curve(many, random.exponential(size=100))) == 50
