"""Whether the intervals of an ensemble hold what they state."""

import pandas as pd

from bdqm_tune.learning.calibration import Calibration, scores
from bdqm_tune.learning.coverage import coverage_curve, coverage_range, expected_range
from bdqm_tune.learning.ensemble import EnsemblePrediction


def with_ends(errors: pd.DataFrame, found: EnsemblePrediction, calibration: Calibration) -> pd.DataFrame:
    """The errors with the columns std, low and high (eV): the spread and the ends of the interval."""
    half = calibration.half_widths(found.energy_std, errors["n_atoms"].to_numpy())
    return errors.assign(std=found.energy_std, low=found.energies - half, high=found.energies + half)


def curve_of(errors: pd.DataFrame, calibration: Calibration) -> pd.DataFrame:
    """Stated against observed coverage of the errors, as `coverage_curve`."""
    error, std, n_atoms = (errors[name].to_numpy() for name in ("error", "std", "n_atoms"))
    return coverage_curve(calibration, scores(error, std, n_atoms, calibration.floor))


def coverage_metrics(errors: pd.DataFrame, calibration: Calibration) -> dict[str, float]:
    """What the intervals state, what is observed, and how wide they are.

    Args:
        errors: n_atoms, energy, predicted, std, low and high (eV) of every structure.
    """
    inside = errors["energy"].between(errors["low"], errors["high"])
    low, high = coverage_range(int(inside.sum()), len(errors))
    least, most = expected_range(len(calibration.scores), len(errors), calibration.coverage)
    widths = errors["high"] - errors["low"]
    spreads, deviations = errors["std"], errors["error"].abs()
    return {
        "coverage": calibration.coverage,
        "test_coverage": float(inside.mean()),
        "test_coverage_low": low,
        "test_coverage_high": high,
        "expected_coverage_low": least,
        "expected_coverage_high": most,
        "test_interval_width": float(widths.mean()),
        "test_interval_width_per_atom": float((widths / errors["n_atoms"]).mean()),
        "test_energy_std": float(errors["std"].mean()),
        # Spreads that are all alike have no order.
        **(
            {"test_spread_error_correlation": float(spreads.corr(deviations, method="spearman"))}
            if min(spreads.nunique(), deviations.nunique()) > 1
            else {}
        ),
    }
