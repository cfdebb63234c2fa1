"""How often intervals hold the true energy, and how far that may be from what they state by chance alone."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bdqm_tune.learning.calibration import Calibration, rank_of

CONFIDENCE = 0.95


def coverage_range(covered: int, n: int) -> tuple[float, float]:
    """The coverages with which `covered` of n structures agree: exact binomial confidence interval of 95 %.

    Clopper and Pearson, Biometrika 26, 404 (1934).
    """
    found = stats.binomtest(covered, n).proportion_ci(CONFIDENCE, method="exact")
    return float(found.low), float(found.high)


def expected_range(n_calibration: int, n: int, coverage: float) -> tuple[float, float]:
    """Where the observed coverage of n structures lies with 95 % probability after calibration on n_calibration.

    The number of covered ones has the beta-binomial distribution with rank and n_calibration + 1 - rank: Angelopoulos
    and Bates, arXiv:2107.07511, section 3.2 and appendix C.
    """
    rank = rank_of(n_calibration, coverage)
    covered = stats.betabinom(n, rank, n_calibration + 1 - rank)
    low, high = covered.ppf([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) / n
    return float(low), float(high)


def coverage_curve(calibration: Calibration, found: NDArray[np.float64]) -> pd.DataFrame:
    """Stated against observed coverage, at the levels that the calibration can tell apart, 50 at most.

    Args:
        found: scores (n,) of the structures on which coverage is observed, without unit.

    Returns:
        stated, observed, and the ends low and high of the range expected by chance.
    """
    n = len(calibration.scores)
    ranks = np.unique(np.linspace(1, n, min(n, 50)).round().astype(int))
    rows = []
    for rank in ranks.tolist():
        stated = rank / (n + 1)
        observed = float((found <= calibration.scores[rank - 1]).mean())
        rows.append((stated, observed, *expected_range(n, len(found), stated)))
    return pd.DataFrame(rows, columns=["stated", "observed", "low", "high"])
