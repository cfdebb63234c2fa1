"""The metrics of an evaluation as a table: each with its interval, its unit, and what the baselines come to."""

import pandas as pd

from bdqm_tune.learning.baselines import MEAN, REFERENCE
from bdqm_tune.units import metric_unit

COLUMNS = ("metric", "value", "low", "high", "unit", "mean energy", "references")
ENDS = ("low", "high")


def metrics_table(metrics: dict[str, float]) -> pd.DataFrame:
    """One row a metric, in the order they come in.

    Args:
        metrics: by the names that are logged; NAME_low and NAME_high are the ends of the 95 % interval of NAME.

    Returns:
        `COLUMNS`; what a metric does not have, be it an interval or a baseline, is NaN.
    """
    rows = []
    for name, value in metrics.items():
        is_end = name.rpartition("_")[2] in ENDS and name.rpartition("_")[0] in metrics
        if is_end or name.startswith((MEAN, REFERENCE)):
            continue
        of_baseline = name.removeprefix("test") if name.startswith("test") else None
        ends = (metrics.get(f"{name}_{end}") for end in ENDS)
        baselines = (metrics.get(f"{baseline}{of_baseline}") for baseline in (MEAN, REFERENCE))
        rows.append((name, value, *ends, metric_unit(name), *baselines))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({name: float for name in COLUMNS if name not in ("metric", "unit")})
