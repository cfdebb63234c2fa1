"""The numbers of a comparison, against counting every case."""

import itertools
from math import comb

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bdqm_tune.analysis.statistics import bootstrap_mean, expected_best, holm, pareto_front, rank_test


def test_expected_best_is_the_mean_over_all_draws() -> None:
    values = [3.0, 0.5, 2.0, 2.0, 7.0, 1.0]
    for n, found in enumerate(expected_best(values), 1):
        assert found == pytest.approx(np.mean([min(draw) for draw in itertools.combinations(values, n)]))


def test_expected_best_of_many_falls_from_the_mean_to_the_lowest() -> None:
    values = np.random.default_rng(0).lognormal(size=3000)
    found = expected_best(values)
    assert found[0] == pytest.approx(values.mean())
    assert found[-1] == pytest.approx(values.min())
    assert np.all(np.diff(found) < 1e-9)


def test_bootstrap_is_scipys() -> None:
    values = np.random.default_rng(1).normal(5, 2, size=12)
    low, high = bootstrap_mean(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, random_state=0)
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.1)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.1)


def test_bootstrap_of_columns_is_that_of_each_and_of_one_repeat_there_is_none() -> None:
    values = np.random.default_rng(2).normal(size=(5, 3))
    low, high = bootstrap_mean(values)
    assert low.tolist() == [bootstrap_mean(values[:, i])[0] for i in range(3)]
    assert np.all(low < values.mean(axis=0))
    assert np.all(high > values.mean(axis=0))
    assert np.isnan(bootstrap_mean(values[:1])).all()


def by_seed(values: list[float], first: int = 0) -> pd.Series:
    return pd.Series(values, index=range(first, first + len(values)))


def test_pairs_of_seeds_are_compared_as_pairs() -> None:
    one, other = by_seed([1.0, 2, 3, 4, 5, 6]), by_seed([1.5, 2.4, 3.3, 4.2, 5.1, 6.05])
    test = rank_test(one, other.sample(frac=1, random_state=0))
    assert test.name.startswith("Wilcoxon")
    assert test.p == pytest.approx(2 / 2**6)  # all six differences have one sign
    assert test.least_p == pytest.approx(test.p)
    assert rank_test(one, one).p == 1


def test_other_seeds_are_compared_as_samples() -> None:
    """By counting all ways to divide eight results in two: only two are as far apart as these."""
    test = rank_test(by_seed([1.0, 2, 3, 4]), by_seed([5.0, 6, 7, 8], first=10))
    assert test.name == "Mann-Whitney U"
    assert test.p == pytest.approx(2 / comb(8, 4))
    assert test.least_p == pytest.approx(test.p)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 30), (3, 3), (0, 5)])
def test_of_too_few_repeats_there_is_no_test(n: int, m: int) -> None:
    test = rank_test(by_seed([1.0] * n), by_seed([9.0] * m))
    assert (test.name, test.repeats) == ("", (n, m))
    assert np.isnan(test.p)


def test_pairs_too_few_for_a_level_are_samples() -> None:
    """Six pairs give p = 0.031 at the least, which is not enough for one comparison of three; two sixes give 0.002."""
    one, other = by_seed([1.0, 2, 3, 4, 5, 6]), by_seed([7.0, 8, 9, 10, 11, 12])
    assert rank_test(one, other).name.startswith("Wilcoxon")
    test = rank_test(one, other, level=0.05 / 3)
    assert (test.name, test.p) == ("Mann-Whitney U", pytest.approx(2 / comb(12, 6)))


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, float("nan")])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(holm([float("nan")])).all()
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_pareto_front_is_what_no_other_beats() -> None:
    random = np.random.default_rng(3)
    frame = pd.DataFrame({"cost": random.integers(0, 30, 80), "error": random.integers(0, 30, 80)}).astype(float)
    frame.loc[5, "error"] = np.nan
    front = pareto_front(frame, "cost", "error")
    points = set(frame.dropna().itertuples(index=False, name=None))
    unbeaten = {(c, e) for c, e in points if not any((a <= c and b <= e) and (a, b) != (c, e) for a, b in points)}
    assert set(front[["cost", "error"]].itertuples(index=False, name=None)) == unbeaten
    assert len(front) == len(unbeaten)
    assert front["cost"].is_monotonic_increasing
