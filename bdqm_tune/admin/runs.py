"""The MLflow runs that belong to a study: where they are, as data frames of what was done, and its run of reports."""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import optuna
import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from optuna.trial import FrozenTrial

from bdqm_tune.confirmation.retraining import KIND as RETRAINING
from bdqm_tune.errors import BdqmError
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.study import EXPERIMENT, RUN_ID
from bdqm_tune.tracking.client import http_status, reason, tracking_client
from bdqm_tune.tracking.provenance import provenance_tags
from bdqm_tune.tracking.result_runs import record_run
from bdqm_tune.tracking.search import runs_named, search
from bdqm_tune.workers.registry import Worker

WORK = ("study", "confirmation", "ensemble", "evaluation")  # tag `kind` of the runs of processes
PLACE = ("host", "cpu", "cores", "scheduler_job_id", "git_commit", "git_dirty")  # tags, beside the versions
VERSION = "version."
KIND = "report"  # tag of the run


def runs_of_study(
    client: MlflowClient, name: str, trials: Sequence[FrozenTrial], workers: Sequence[Worker]
) -> list[Run]:
    """The runs of a study's trials and workers, and of what was done with its models; those last that lead to others.

    Another study of the same name, in another database, may have runs in the same store: those are its own.

    Raises:
        MlflowException: the store failed.
    """
    tagged = {run.info.run_id: run for run in runs_named(client, name)}
    of_trials = {trial.user_attrs[RUN_ID] for trial in trials if RUN_ID in trial.user_attrs}
    of_workers = {worker.description["run_id"] for worker in workers if "run_id" in worker.description}
    parents = {_parent(tagged[run_id]) for run_id in of_trials & tagged.keys()} & tagged.keys()
    known = of_trials | of_workers | parents
    found = [tagged[run_id] for run_id in tagged if run_id in of_trials]
    untagged = sorted((of_trials | of_workers) - tagged.keys())
    found += [run for run_id in untagged for run in _without_tags(client, run_id)]
    found += [run for run_id, run in tagged.items() if run_id in (of_workers | parents) - of_trials]
    while more := [run for run_id, run in tagged.items() if run_id not in known and _leads_to(run) & known]:
        known |= {run.info.run_id for run in more}
        found += more
    return found[::-1]


def _leads_to(run: Run) -> set[str]:
    """The runs that a run is a part of, or used the models of."""
    tags = run.data.tags
    named = {_parent(run), tags.get("model_run_id", ""), *tags.get("model_run_ids", "").split(", ")}
    return named - {""}


def _parent(run: Run) -> str:
    return str(run.data.tags.get(MLFLOW_PARENT_RUN_ID, ""))


def _without_tags(client: MlflowClient, run_id: str) -> list[Run]:
    """A run that has not the study's tag: of a worker that was ended before, or taken out by hand; empty if none is."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if http_status(error) == 404:
            return []
        raise
    return [run] if run.info.lifecycle_stage == "active" and "study" not in run.data.tags else []


def processes(client: MlflowClient, experiment: str, study: str) -> pd.DataFrame:
    """One row a run of a process that worked for the study, the first first.

    Args:
        experiment: "" where no worker has begun yet.

    Returns:
        kind, run_id, run, started (ISO 8601, UTC), `PLACE`, and the versions as `version.PACKAGE`; "" where not known.
    """
    runs = [run for kind in WORK for run in _runs(client, experiment, study, kind)]
    rows = [
        {
            "kind": run.data.tags["kind"],
            "run_id": run.info.run_id,
            "run": run.info.run_name,
            "started": _moment(run.info.start_time),
            **{key: run.data.tags.get(key, "") for key in PLACE},
            **{key: value for key, value in sorted(run.data.tags.items()) if key.startswith(VERSION)},
        }
        for run in sorted(runs, key=lambda run: run.info.start_time)
    ]
    return pd.DataFrame(rows, columns=None if rows else ["kind", "run_id", "run", "started", *PLACE]).fillna("")


def retrainings(client: MlflowClient, experiment: str, study: str) -> pd.DataFrame:
    """One row a training of `confirm` that has ended.

    Returns:
        device, trial_seconds, started, ended (UTC), and worker, which is one for all.
    """
    rows = [
        {
            "device": run.data.tags.get("device"),
            "trial_seconds": run.data.metrics["trial_seconds"],
            "started": _moment(run.info.start_time),
            "ended": _moment(run.info.end_time),
        }
        for run in _runs(client, experiment, study, RETRAINING)
        if "trial_seconds" in run.data.metrics and run.info.end_time
    ]
    frame = pd.DataFrame(rows, columns=["device", "trial_seconds", "started", "ended"])
    return frame.assign(**{key: pd.to_datetime(frame[key]) for key in ("started", "ended")}, worker="confirm")


def _runs(client: MlflowClient, experiment: str, study: str, kind: str) -> Iterator[Run]:
    for run in search(client, f"tags.kind = '{kind}'", [experiment] if experiment else []):
        if run.data.tags.get("study") == study:
            yield run


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def record_report(
    stores: Stores, study: optuna.Study, workers: Sequence[str], folder: Path, files: Sequence[Path]
) -> str:
    """Put files into the run of the study's report, over those of an earlier one; give the run's id.

    Under `mlflow run` it is that run; "" where no worker of the study has begun yet, and so there is no experiment.

    Args:
        workers: ids of the runs of the study's workers.
        folder: in which the files are, which keep their places in it; it may hold others, which are left alone.

    Raises:
        BdqmError: the tracking store failed.
    """
    if not workers:
        return ""
    client, experiment, name = tracking_client(stores), study.user_attrs[EXPERIMENT], study.study_name
    try:
        run_id = "" if "MLFLOW_RUN_ID" in os.environ else _earlier(client, experiment, name)
        if not run_id:
            # By the run of a worker it is known to belong to this study, and not to another one of this name.
            tags = {**provenance_tags(), "kind": KIND, "study": name, "model_run_ids": workers[0]}
            run_id = record_run(client, experiment, f"report-{name}", tags, {})
        for file in files:
            place = file.parent.relative_to(folder).as_posix()
            client.log_artifact(run_id, str(file), None if place == "." else place)
        return run_id
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot put the report into the MLflow tracking store: {reason(error)}") from None


def _earlier(client: MlflowClient, experiment: str, name: str) -> str:
    """The run of an earlier report; "" if there is none."""
    found = search(client, f"tags.kind = '{KIND}'", [experiment])
    return next((run.info.run_id for run in found if run.data.tags.get("study") == name), "")
