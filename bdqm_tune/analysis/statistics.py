"""The numbers that a comparison of studies rests on: expected bests, intervals by bootstrap, rank tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.special import gammaln

LEVEL = 0.95  # of intervals
SIGNIFICANT = 0.05
RESAMPLES = 2000


def expected_best(values: Sequence[float] | NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The expected lowest of n values drawn from these without replacement, for n = 1, 2, … all (n_values,).

    With the values sorted, the k-th lowest, k = 1, 2, …, is the lowest drawn in C(N-k, n-1) of the C(N, n) draws of n.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    total = len(ordered)
    factorial = gammaln(np.arange(total + 2) + 1)  # logarithms, of 0!, 1!, …
    result = np.empty(total)
    for n in range(1, total + 1):
        above = total - np.arange(1, total - n + 2)  # N - k
        ways = factorial[above] - factorial[n - 1] - factorial[above - n + 1]
        draws = factorial[total] - factorial[n] - factorial[total - n]
        result[n - 1] = np.exp(ways - draws) @ ordered[: total - n + 1]
    return result


def bootstrap_mean(repeats: NDArray[np.float64], seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the 95 % interval of the mean over repeats, by percentiles of resampled repeats.

    Args:
        repeats: (n_repeats, …); of fewer than two, the ends are NaN.
    """
    n = len(repeats)
    if n < 2:
        nothing = np.full(repeats.shape[1:], np.nan)
        return nothing, nothing
    drawn = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    means = np.stack([repeats[rows].mean(axis=0) for rows in drawn])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


@dataclass(frozen=True)
class RankTest:
    """Whether two sets of repeats differ."""

    name: str  # of the test, "" where there are too few repeats for any
    repeats: tuple[int, int]  # of each; of a paired test, how many pairs, twice
    p: float  # two-sided; NaN without a test
    least_p: float  # that so many repeats can give at all


def rank_test(one: pd.Series, other: pd.Series, level: float = SIGNIFICANT) -> RankTest:
    """Compare the results of repeats: pair by pair where both have the same seeds, else as two samples.

    Wilcoxon's signed-rank test of the pairs, if there are enough to reach significance; else the test of Mann and
    Whitney. Both by their exact distributions, where there are no ties.

    Args:
        one, other: results by seed.
        level: below which p is significant; lower, where it is one comparison of several.
    """
    one, other = one.dropna(), other.dropna()
    sizes = (len(one), len(other))
    paired = one.index.is_unique and other.index.is_unique and set(one.index) == set(other.index)
    if paired and (least := 2 / 2 ** sizes[0]) < level:
        differences = one - other.reindex(one.index)
        p = float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
        return RankTest("Wilcoxon signed-rank, paired by seed", sizes, p, least)
    least = 2 / comb(sum(sizes), sizes[0]) if min(sizes) else 1.0
    if least >= level:
        return RankTest("", sizes, float("nan"), least)
    return RankTest("Mann-Whitney U", sizes, float(stats.mannwhitneyu(one, other).pvalue), least)


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for their number by the method of Holm (1979); NaN stays."""
    values = np.asarray(p, dtype=float)
    order = [i for i in np.argsort(values) if np.isfinite(values[i])]
    corrected, highest = values.copy(), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * values[i]))
        corrected[i] = highest
    return corrected.tolist()


def pareto_front(frame: pd.DataFrame, cost: str, error: str) -> pd.DataFrame:
    """The Pareto front of two columns, cheapest first; of equal rows the first."""
    ordered = frame.dropna(subset=[cost, error]).sort_values([cost, error], kind="stable")
    lowest = ordered[error].cummin().shift(fill_value=np.inf)
    return ordered[ordered[error] < lowest]
