"""Observed coverage of prediction intervals, and its range by chance around the stated coverage."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bdqm_tune.learning.calibration import Calibration, rank_of

CONFIDENCE = 0.95


def coverage_range(covered: int, n: int) -> tuple[float, float]:
    """Exact binomial confidence interval of 95 % of the coverage, `covered` of n structures being covered.

    Clopper and Pearson, Biometrika 26, 404 (1934).
    """
    interval = stats.binomtest(covered, n).proportion_ci(CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


def expected_range(n_calibration: int, n: int, coverage: float) -> tuple[float, float]:
    """Where the observed coverage of n structures lies with 95 % probability after calibration on n_calibration.

    The number of covered structures has the beta-binomial distribution with rank and n_calibration + 1 - rank:
    Angelopoulos and Bates, arXiv:2107.07511, section 3.2 and appendix C.
    """
    rank = rank_of(n_calibration, coverage)
    covered = stats.betabinom(n, rank, n_calibration + 1 - rank)
    low, high = covered.ppf([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) / n
    return float(low), float(high)


def coverage_curve(calibration: Calibration, scores: NDArray[np.float64]) -> pd.DataFrame:
    """Stated against observed coverage, at the levels that the calibration can tell apart, 50 at most.

    Args:
        scores: (n,) of the structures on which coverage is observed, dimensionless.

    Returns:
        columns stated, observed, and the ends low and high of the range expected by chance.
    """
    n = len(calibration.scores)
    ranks = np.unique(np.linspace(1, n, min(n, 50)).round().astype(int))
    rows = []
    for rank in ranks.tolist():
        stated = rank / (n + 1)
        observed = float((scores <= calibration.scores[rank - 1]).mean())
        rows.append((stated, observed, *expected_range(n, len(scores), stated)))
    return pd.DataFrame(rows, columns=["stated", "observed", "low", "high"])
