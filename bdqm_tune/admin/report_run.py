"""A report of a study in MLflow: in the study's one run of reports."""

import os
from collections.abc import Sequence
from pathlib import Path

import optuna
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bdqm_tune.errors import BdqmError
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.study import EXPERIMENT
from bdqm_tune.tracking.client import reason, tracking_client
from bdqm_tune.tracking.provenance import provenance_tags
from bdqm_tune.tracking.records import record_run
from bdqm_tune.tracking.search import search

KIND = "report"  # tag of the run


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
