"""The metrics of an evaluation as a table: each with its interval, its unit, and what the baselines come to."""

from collections.abc import Mapping

import pandas as pd

from bdqm_tune.learning.baselines import MEAN, REFERENCE
from bdqm_tune.units import metric_unit, shown

COLUMNS = ("metric", "value", "low", "high", "unit", "mean energy", "references")
ENDS = ("low", "high")


def metrics_table(metrics: Mapping[str, float], objective: str = "val_energy_mae") -> pd.DataFrame:
    """One row a metric: the errors of the objective first, of energies those per atom first; else as they come in.

    Args:
        objective: by which the study trained.
        metrics: by the names that are logged; NAME_low and NAME_high are the ends of the 95 % interval of NAME.

    Returns:
        `COLUMNS`; what a metric does not have, be it an interval or a baseline, is NaN.
    """
    rows = []
    for name, value in metrics.items():
        is_end = name.rpartition("_")[2] in ENDS and name.rpartition("_")[0] in metrics
        if is_end or name.startswith((MEAN, REFERENCE)):
            continue
        of_baseline = name.removeprefix("test").removeprefix("set") if name.startswith(("test_", "set_")) else None
        ends = (metrics.get(f"{name}_{end}") for end in ENDS)
        baselines = (metrics.get(f"{baseline}{of_baseline}") for baseline in (MEAN, REFERENCE))
        rows.append((name, value, *ends, metric_unit(name), *baselines))
    rows.sort(key=lambda row: _rank(str(row[0]), objective))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({name: float for name in COLUMNS if name not in ("metric", "unit")})


def as_quoted(table: pd.DataFrame) -> pd.DataFrame:
    """The same table in the units that the field quotes: energies per atom in meV/atom."""
    factors = [shown(1.0, unit)[0] for unit in table["unit"]]
    numbers = [name for name in COLUMNS if name not in ("metric", "unit")]
    scaled = table[numbers].mul(factors, axis="index")
    return table.assign(**scaled, unit=[shown(1.0, unit)[1] for unit in table["unit"]])


def _rank(name: str, objective: str) -> int:
    """The place of a metric among others: lower comes first."""
    bare = name.removeprefix("test_").removeprefix("set_")  # of the test split, or of another file
    if name.endswith("_gain") or not bare.startswith(("energy_", "forces_")) or bare in (name, "energy_std"):
        return 3
    if bare.startswith("forces_"):
        return 0 if objective == "val_forces_mae" else 3
    return 1 if name.endswith("_per_atom") else 2
