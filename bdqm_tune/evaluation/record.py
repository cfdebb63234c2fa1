"""An evaluation as a record: tables and a JSON file, in a folder and in its run."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from bdqm_tune.errors import BdqmError
from bdqm_tune.evaluation.lockbox import Opening, openings, put_on_record, reasons
from bdqm_tune.evaluation.measurement import Measured
from bdqm_tune.files import write_whole
from bdqm_tune.study.objectives import objectives_of
from bdqm_tune.study.study import SIGNATURE
from bdqm_tune.tracking.given import adopted_run, given_run
from bdqm_tune.tracking.provenance import provenance_tags
from bdqm_tune.tracking.result_runs import record_run, run_file
from bdqm_tune.units import metric_unit

RECORD = "test_metrics.json"
TABLES = ("errors", "forces", "by_element", "by_class", "overlap", "coverage")


@dataclass(frozen=True)
class Evaluation:
    """How good a model of a study is on structures that tuning never saw."""

    study: str
    trial: int | None  # None: an ensemble
    metrics: dict[str, float]  # test_energy_mae (eV), with its interval test_energy_mae_low and _high, and others
    tables: dict[str, pd.DataFrame]  # those of `TABLES` that there are
    run_id: str  # of the evaluation, in MLflow
    log_artifact: Callable[[Path], None]  # adds a file to that run
    opening: Opening  # of the test split
    trials: tuple[int, ...] = ()  # of an ensemble's members
    settings: dict[str, Any] = field(default_factory=dict)  # of bootstrap and timing
    repeated: bool = False  # it was made before, and this is its record
    objective: str = "val_energy_mae"  # the error by which the study trained: what readers want first

    @property
    def errors(self) -> pd.DataFrame:
        """One row a structure: image, formula, n_atoms, energy, predicted, error (eV), error_per_atom (eV/atom).

        Of forces: forces_mae, forces_max_error (eV/Å); of the stress: stress_mae (eV/Å³); of ensembles: std, low, high
        (eV).
        """
        return self.tables["errors"]

    @property
    def coverage(self) -> pd.DataFrame | None:
        """Of an ensemble's intervals: stated, observed, low, high."""
        return self.tables.get("coverage")


def write_record(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write the tables as CSV, and all numbers with their units as JSON."""
    files = [folder / f"{name}.csv" for name in evaluation.tables]
    for file, table in zip(files, evaluation.tables.values(), strict=True):
        write_whole(file, table.to_csv(index=False))
    opening = evaluation.opening
    record = {
        "study": evaluation.study,
        **({"trials": evaluation.trials} if evaluation.trial is None else {"trial": evaluation.trial}),
        "run_id": evaluation.run_id,
        "model_run_id": opening.model_run_id,
        "test_digest": opening.test_digest,
        "opening": {"number": opening.number, "time": opening.time, "reason": opening.reason},
        "settings": evaluation.settings,
        "objective": evaluation.objective,
        "metrics": {name: {"value": value, "unit": metric_unit(name)} for name, value in evaluation.metrics.items()},
    }
    write_whole(folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return [*files, folder / RECORD]


def record_evaluation(
    client: MlflowClient, study: optuna.Study, model: Run, trials: tuple[int, ...], opening: Opening, found: Measured
) -> Evaluation:
    """Put an evaluation on record, in a run of its own and in the study.

    Args:
        model: the run that has the model.
        trials: one, or those of an ensemble.

    Raises:
        MlflowException, OSError: the tracking store failed; in the study the evaluation then has not come to its end.
    """
    numbers = ", ".join(map(str, trials))
    earlier = [one for one in openings(study) if one.number <= opening.number]
    tags = {
        **provenance_tags(),
        "kind": "evaluation",
        "study": study.study_name,
        **({"trial_number": numbers} if len(trials) == 1 else {"trials": numbers}),
        "model_run_id": model.info.run_id,
        "test_digest": opening.test_digest,
        "test_opening": str(opening.number),
        "test_opening_time": opening.time,
        "test_reopen_reasons": json.dumps(reasons(earlier), ensure_ascii=False),
    }
    name = f"evaluation-{model.info.run_name}"
    run_id = record_run(client, model.info.experiment_id, name, tags, found.metrics, found.settings)
    done = replace(opening, run_id=run_id, metrics=found.metrics)
    evaluation = Evaluation(
        study.study_name,
        trials[0] if len(trials) == 1 else None,
        found.metrics,
        found.tables,
        run_id,
        lambda path: client.log_artifact(run_id, str(path)),
        done,
        () if len(trials) == 1 else trials,
        found.settings,
        objective=objective_of(study),
    )
    with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
        write_record(evaluation, Path(folder))
        client.log_artifacts(run_id, folder)
    put_on_record(study, done)
    return evaluation


def recorded_evaluation(client: MlflowClient, study: optuna.Study, opening: Opening) -> Evaluation:
    """An evaluation that was recorded before, which is requested again.

    Raises:
        BdqmError: its files are not there any more.
        MlflowException, OSError: the tracking store failed.
    """
    if given := given_run(client):  # of `mlflow run`, which has made one for this
        adopted_run(client, given, given.info.experiment_id, f"repeats-{opening.run_id[:8]}")  # for its name
        client.set_tag(given.info.run_id, "repeats_evaluation", opening.run_id)
    return read_evaluation(client, study, opening)


def read_evaluation(client: MlflowClient, study: optuna.Study, opening: Opening) -> Evaluation:
    """An evaluation as its run has it; nothing is changed.

    Raises:
        BdqmError: its files are not there any more.
        MlflowException, OSError: the tracking store failed.
    """
    run_id = opening.run_id
    there = {file.path for file in client.list_artifacts(run_id)}
    if RECORD not in there:
        raise BdqmError(f"the files of the evaluation are not in its run {run_id} any more")
    with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
        fetched = partial(run_file, client, run_id, folder=folder)
        record = json.loads(fetched(RECORD).read_text(encoding="utf-8"))
        tables = {name: _read(fetched(f"{name}.csv")) for name in TABLES if f"{name}.csv" in there}
    return Evaluation(
        study.study_name,
        record.get("trial"),
        opening.metrics,
        tables,
        run_id,
        lambda path: client.log_artifact(run_id, str(path)),
        opening,
        tuple(record.get("trials", ())),
        record["settings"],
        repeated=True,
        objective=objective_of(study),
    )


def objective_of(study: optuna.Study) -> str:
    """The error by which a study trains."""
    return objectives_of(study.user_attrs[SIGNATURE])[0]


def _read(file: Path) -> pd.DataFrame:
    # NaN is an empty cell; names such as that of sodium nitride are no NaN.
    return pd.read_csv(file, keep_default_na=False, na_values=[""])
