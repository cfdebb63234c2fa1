"""What was done for a study, and where: its runs of MLflow as data frames."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from bdqm_tune.confirmation.retraining import KIND as RETRAINING
from bdqm_tune.tracking.search import search

WORK = ("study", "confirmation", "ensemble", "evaluation")  # tag `kind` of the runs of processes
PLACE = ("host", "cpu", "cores", "scheduler_job_id", "git_commit", "git_dirty")  # tags, beside the versions
VERSION = "version."


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
