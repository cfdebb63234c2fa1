"""The best model of each of several studies: its errors, and what it costs to train it and to predict with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from bdqm_tune.study.study import SIGNATURE

if TYPE_CHECKING:
    from bdqm_tune.learning.cost import Cost
    from bdqm_tune.study.results import StudyResults

ERRORS = ("val_energy_mae_per_atom", "val_forces_mae", "val_stress_mae")
COLUMNS = (
    *("study", "backend", "trial", "run_id", *ERRORS, "n_parameters", "training_seconds"),
    *("energy_seconds_per_atom", "forces_seconds_per_atom"),
)


def backend_of(results: StudyResults) -> str:
    """What trained a study; `native` where it is older than the other backends."""
    return str(results.study.user_attrs.get(SIGNATURE, {}).get("backend", "native"))


def best_models(results: Sequence[StudyResults], budget: int, costs: Mapping[str, Cost] | None = None) -> pd.DataFrame:
    """One row a study, of its best complete trial: `COLUMNS`; errors in eV/atom, eV/Å, eV/Å³, NaN where not known.

    Args:
        budget: trials of each study that count, the first ones.
        costs: of predictions, by the run of the trial; those with forces are of energy and forces together.
    """
    rows = []
    for one in results:
        tried = one.trials[one.trials["state"].isin(("complete", "pruned", "failed"))].sort_values("number")[:budget]
        best = tried[tried["state"] == "complete"].sort_values([one.objective, "number"]).iloc[0]
        cost = (costs or {}).get(str(best.get("run_id")))
        rows.append(
            {
                "study": one.name,
                "backend": backend_of(one),
                "trial": int(best["number"]),
                "run_id": best.get("run_id"),
                **{name: best.get(name) for name in (*ERRORS, "n_parameters")},
                "training_seconds": best["trial_seconds"],
                "energy_seconds_per_atom": None if cost is None else cost.descriptor + cost.network,
                "forces_seconds_per_atom": None if cost is None else cost.with_forces,
            }
        )
    numbers = [*ERRORS, "n_parameters", "training_seconds", "energy_seconds_per_atom", "forces_seconds_per_atom"]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(numbers, float))
