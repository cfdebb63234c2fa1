"""Whether two configurations differ, from trainings with the same seeds, and how many seeds it takes to say so."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95  # of the intervals
SIGNIFICANT = 0.05  # p below which two differ
LEAST_SEEDS = 4  # pairs; of fewer the test says nothing: two or three that agree by chance look certain
POWER, MOST_SEEDS = 0.8, 1000
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
    p: float  # NaN of fewer than `LEAST_SEEDS`
    n_seeds: int

    @property
    def distinguishable(self) -> bool:
        """Whether they differ significantly; never of fewer than `LEAST_SEEDS`."""
        return self.p < SIGNIFICANT

    @property
    def seeds_needed(self) -> int | None:
        """The seeds that a difference as large as the one seen needs, as `seeds_needed`."""
        return seeds_needed(self.difference.mean, self.difference.std)


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
    difference, n = mean_of(second - first), len(first)
    if n < LEAST_SEEDS:
        return Comparison(difference, float("nan"), n)
    if difference.std == 0:  # what does not depend on the seed
        return Comparison(difference, 1.0 if difference.mean == 0 else 0.0, n)
    return Comparison(difference, 2 * float(stats.t.sf(abs(difference.mean) / difference.std * n**0.5, n - 1)), n)


def power(effect: float, n: int) -> float:
    """The probability that the paired t-test of n seeds finds a difference of `effect` standard deviations.

    Of the differences of pairs, with one pair a seed. Student's t is then distributed non-centrally, with n - 1 degrees
    of freedom and the parameter effect · √n: J. Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd ed.
    (1988), chapter 2.
    """
    critical, shift = float(stats.t.ppf(1 - SIGNIFICANT / 2, n - 1)), effect * n**0.5
    return float(stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift))


def seeds_needed(difference: float, std: float) -> int | None:
    """The fewest seeds with which the test finds a difference in `POWER` of all cases; None: over `MOST_SEEDS`.

    Args:
        difference: of the means, in any unit.
        std: of the differences of pairs, in the same.
    """
    if difference == 0:
        return None
    if std == 0:
        return LEAST_SEEDS
    effect = abs(difference) / std
    if effect > 4:  # any number is enough, and scipy's distribution function loses its digits
        return LEAST_SEEDS
    high = LEAST_SEEDS
    while power(effect, high) < POWER:
        if high >= MOST_SEEDS:
            return None
        high = min(2 * high, MOST_SEEDS)
    low = max(LEAST_SEEDS, high // 2)
    while low < high:  # the power rises with the number
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle) >= POWER else (middle + 1, high)
    return low
