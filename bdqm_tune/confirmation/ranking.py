"""Configurations ranked by what several seeds gave, and what so few numbers can tell apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95  # of the intervals
SIGNIFICANT = 0.05  # p of two that are told apart
INTERVAL = "95 % confidence interval of the mean by Student's t"
TEST = "two-sided paired t-test over the seeds"


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and the ends of its confidence interval."""

    mean: float
    low: float
    high: float
    std: float  # of one value, n - 1 in the divisor


@dataclass(frozen=True)
class Comparison:
    """Two configurations with the same seeds: the second less the first."""

    difference: Mean
    p: float

    @property
    def distinguishable(self) -> bool:
        """Whether they are told apart."""
        return self.p < SIGNIFICANT


def mean_of(values: NDArray[np.float64]) -> Mean:
    """The mean of values (n_seeds,) with its interval, mean ± t · std / √n. Raises ValueError for fewer than two."""
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval needs at least 2 values, got {n}")
    mean, std = float(values.mean()), float(values.std(ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * std / n**0.5
    return Mean(mean, mean - half, mean + half, std)


def compare(first: NDArray[np.float64], second: NDArray[np.float64]) -> Comparison:
    """Whether two configurations differ, from what each gave (n_seeds,) with the same seeds.

    Student's paired test: the rank tests cannot reach p < 0.05 with five pairs.
    """
    difference = mean_of(second - first)
    if difference.std == 0:  # what does not depend on the seed
        return Comparison(difference, 1.0 if difference.mean == 0 else 0.0)
    n = len(first)
    return Comparison(difference, 2 * float(stats.t.sf(abs(difference.mean) / difference.std * n**0.5, n - 1)))


def order(values: Sequence[NDArray[np.float64]]) -> list[int]:
    """Places of configurations by their mean, the best first; one with a seed that gave nothing (NaN) comes last."""

    def key(i: int) -> tuple[int, float, int]:
        missing = int(np.isnan(values[i]).sum())
        return missing, float(values[i][~np.isnan(values[i])].mean()) if missing < len(values[i]) else np.inf, i

    return sorted(range(len(values)), key=key)
