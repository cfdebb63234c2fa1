"""The bootstrap over structures: intervals of metrics, and the optimism of an error that was chosen as the least."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bdqm_tune.learning.metrics import KINDS, Deviations, of_sums

CONFIDENCE, RESAMPLES, SEED = 0.95, 2000, 0
LEAST = 10  # structures; a resample of fewer says too little of the population
AT_ONCE = 2**22  # numbers that are drawn at once


def intervals(deviations: Deviations, resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals of 95 % of each metric; none of the largest errors, or of fewer than `LEAST` structures.

    Structures are resampled with replacement, each with all its atoms, because the force errors in a structure are not
    independent. The intervals are bias-corrected and accelerated (BCa): Efron, J. Am. Stat. Assoc. 82, 171 (1987).
    A largest error has none, as no resample exceeds it.

    Returns:
        Name of the metric → low and high end, in its unit.
    """
    if len(deviations) < LEAST:
        return {}
    n = len(deviations)
    drawn = of_sums(_resampled(deviations.sums, resamples, seed))  # (resamples, n_quantities, n_kinds)
    total = deviations.sums.sum(axis=0)
    whole, without_one = of_sums(total), of_sums(total - deviations.sums)
    ends = {}
    for i, (before, after) in enumerate(deviations.names):
        for j, kind in enumerate(KINDS):
            values = drawn[:, i, j], whole[i, j], without_one[:n, i, j]
            if all(np.isfinite(value).all() for value in values):
                ends[f"{before}_{kind}{after}"] = bca(*values)
    return ends


def bca(
    drawn: NDArray[np.float64], whole: float, without_one: NDArray[np.float64], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Ends of the BCa interval of an estimate.

    Args:
        drawn: (n_resamples,) the estimate from each resample.
        whole: the estimate from all structures.
        without_one: (n_structures,) the estimate from all structures but one (jackknife).
        confidence: in (0, 1).
    """
    share = (np.mean(drawn < whole) + np.mean(drawn <= whole)) / 2
    if not 0 < share < 1:  # no resample lies beyond the estimate, as where one structure makes it
        low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(low), float(high)
    bias = stats.norm.ppf(share)
    influence = without_one.mean() - without_one
    spread = (influence**2).sum() ** 1.5
    acceleration = (influence**3).sum() / (6 * spread) if spread > 0 else 0.0
    shifted = bias + stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(drawn, stats.norm.cdf(bias + shifted / (1 - acceleration * shifted)))
    return float(low), float(high)


def mean_with_interval(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    """The mean of values (n_structures,), with its interval if there are `LEAST` structures or more."""
    metrics = {name: float(values.mean())}
    if len(values) >= LEAST:
        drawn = _resampled(values, RESAMPLES, SEED) / len(values)
        without_one = (values.sum() - values) / (len(values) - 1)
        metrics[f"{name}_low"], metrics[f"{name}_high"] = bca(drawn, metrics[name], without_one)
    return metrics


def with_intervals(deviations: Deviations) -> dict[str, float]:
    """The metrics, each with its interval beside it as `NAME_low` and `NAME_high`."""
    metrics, ends = {}, intervals(deviations)
    for name, value in deviations.metrics().items():
        metrics[name] = value
        if name in ends:
            metrics[f"{name}_low"], metrics[f"{name}_high"] = ends[name]
    return metrics


def selection_optimism(errors: NDArray[np.float64], resamples: int = RESAMPLES, seed: int = SEED) -> float:
    """How much lower the least of several mean errors is, in expectation, than that of its model on new structures.

    In each bootstrap sample the model with the least error is chosen, and judged by what the sample leaves out, a third
    of the structures: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 17; for a choice
    among models, Tsamardinos et al., Mach. Learn. 107, 1895 (2018), algorithm 5. It is a little too large rather than
    too small, as a sample has fewer different structures than there are. What the choice of an epoch within a training
    adds is not in it.

    Args:
        errors: (n_models, n_parts), of all models on the same structures or groups of structures of equal size.

    Returns:
        In the unit of the errors, at least 0.
    """
    n_models, n = errors.shape
    random, judged = np.random.default_rng(seed), list[NDArray[np.float64]]()
    at_once = max(1, AT_ONCE // max(n_models, n))
    for first in range(0, resamples, at_once):
        times = random.multinomial(n, np.full(n, 1 / n), size=min(at_once, resamples - first))
        chosen, left_out = (times @ errors.T).argmin(axis=1), times == 0
        some = left_out.any(axis=1)
        judged.append((errors[chosen] * left_out).sum(axis=1)[some] / left_out.sum(axis=1)[some])
    return max(0.0, float(np.concatenate(judged).mean() - errors.mean(axis=1).min()))


def _resampled(sums: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Bootstrap sums (resamples, ...) over n_structures structures drawn with replacement, of sums (n_structures, ...).

    How often each structure is drawn has a multinomial distribution.
    """
    n, random = len(sums), np.random.default_rng(seed)
    at_once = max(1, AT_ONCE // n)
    pieces = []
    for first in range(0, resamples, at_once):
        times = random.multinomial(n, np.full(n, 1 / n), size=min(at_once, resamples - first))
        pieces.append(np.tensordot(times.astype(float), sums, axes=1))
    return np.concatenate(pieces)
