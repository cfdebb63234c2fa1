"""Intervals and tests of few numbers, against numbers worked out elsewhere."""

import numpy as np
import pytest
from scipy import stats

from bdqm_tune.confirmation.ranking import _difference, order
from bdqm_tune.confirmation.seeds import compare, mean_of, power, seeds_needed


def test_the_interval_is_students() -> None:
    # A textbook's table: t(0.975) with 4 degrees of freedom is 2.776.
    found = mean_of(np.array([1.0, 2, 3, 4, 5]))
    half = 2.776 * np.sqrt(2.5) / np.sqrt(5)
    assert (found.mean, found.std) == pytest.approx((3.0, np.sqrt(2.5)))
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), abs=1e-3)
    with pytest.raises(ValueError, match="at least 2 values, got 1"):
        mean_of(np.array([1.0]))


def test_the_interval_covers_what_it_states() -> None:
    drawn = np.random.default_rng(0).normal(7.0, 2.0, size=(4000, 5))
    covered = np.mean([one.low <= 7.0 <= one.high for one in map(mean_of, drawn)])
    assert covered == pytest.approx(0.95, abs=0.012)  # 3.5 standard deviations of a share of 4000


def test_seeds_are_compared_in_pairs() -> None:
    random = np.random.default_rng(1)
    of_seed = random.normal(scale=10.0, size=5)  # which a test that is not paired would drown in
    first, second = of_seed, of_seed + 1.0 + random.normal(scale=0.1, size=5)
    found = compare(first, second)
    assert found.distinguishable
    assert found.difference.low < 1.0 < found.difference.high
    assert found.p == pytest.approx(stats.ttest_1samp(second - first, 0.0).pvalue)
    assert stats.ttest_ind(first, second).pvalue > 0.5
    assert compare(second, first).difference.mean == pytest.approx(-found.difference.mean)


def test_one_that_is_no_better_is_told_apart_one_time_in_twenty() -> None:
    pairs = np.random.default_rng(2).normal(size=(4000, 2, 5))
    told = np.mean([compare(first, second).distinguishable for first, second in pairs])
    assert told == pytest.approx(0.05, abs=0.012)


def test_what_does_not_depend_on_the_seed_is_told_apart_by_any_difference() -> None:
    same = np.array([1.0, 2.0, 3.0, 4.0])
    assert not compare(same, same).distinguishable
    assert compare(same, same + 0.5).distinguishable


def test_fewer_than_four_seeds_tell_nothing_apart() -> None:
    for n in (2, 3):
        found = compare(np.arange(n, dtype=float), np.arange(n) + 9.0 + 1e-3 * np.arange(n))
        assert not found.distinguishable
        assert np.isnan(found.p)
        assert found.difference.mean > 9
    assert compare(np.arange(4.0), np.arange(4) + 9.0 + 1e-3 * np.arange(4)).distinguishable


def test_the_power_of_the_test_is_that_of_the_tables() -> None:
    # Of G*Power, two-sided paired t-test, 5 %, power 80 %; Cohen's table 2.4.1 has them for independent samples.
    for effect, n in ((0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10), (1.5, 6)):
        assert seeds_needed(effect, 1.0) == n == seeds_needed(-3 * effect, 3.0), effect
    assert (seeds_needed(0.0, 1.0), seeds_needed(0.01, 1.0)) == (None, None)
    assert seeds_needed(5.0, 0.0) == seeds_needed(50.0, 1.0) == 4


def test_the_power_is_how_often_the_test_finds_the_difference() -> None:
    pairs = np.random.default_rng(3).normal(loc=1.2, size=(4000, 6))
    found = np.mean([compare(np.zeros(6), differences).distinguishable for differences in pairs])
    assert found == pytest.approx(power(1.2, 6), abs=0.025)


def test_the_least_mean_is_first_and_one_with_a_gap_last() -> None:
    nan = np.nan
    values = [np.array(one) for one in ([3.0, 3.0], [nan, nan], [1.0, nan], [2.0, 1.0], [2.0, 1.0])]
    assert order(values) == [3, 4, 0, 2, 1]


def test_differences_of_energies_per_atom_are_quoted_in_mev() -> None:
    compared = compare(np.array([0.0125, 0.0135]), np.array([0.0145, 0.0165]))
    assert _difference(compared, "eV/atom").startswith("+2.5 meV/atom (-")
    assert _difference(compared, "eV/Å").startswith("+0.0025 eV/Å (-")
