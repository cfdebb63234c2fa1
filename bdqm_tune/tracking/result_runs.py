"""A run of its own for what was done with the models of a study."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.time import get_current_time_millis

from bdqm_tune.tracking.given import adopted_run, given_run, parent_tag


def record_run(
    client: MlflowClient,
    experiment_id: str,
    name: str,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    parameters: Mapping[str, Any] | None = None,
    write: Callable[[Path], Any] = lambda folder: None,
    parent: str = "",
) -> str:
    """Log to a run in the experiment and return its id: that of `mlflow run` if it can be adopted, else a new one.

    Args:
        write: writes the artifacts into a folder.
        parent: id of a run of ours that it comes under, in any case in a new run; empty: of none.

    Raises:
        MlflowException, OSError: the tracking store failed.
    """
    given = given_run(client)
    adopted = None if parent else adopted_run(client, given, experiment_id, name)
    below = {MLFLOW_PARENT_RUN_ID: parent} if parent else parent_tag(given)
    run = adopted or client.create_run(experiment_id, run_name=name, tags=below)
    now = get_current_time_millis()
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(key, value, now, 0) for key, value in metrics.items()],
        params=[Param(key, str(value)) for key, value in (parameters or {}).items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
        write(Path(folder))
        if any(Path(folder).iterdir()):
            get_artifact_repository(run.info.artifact_uri, client.tracking_uri).log_artifacts(folder)
    if adopted is None:
        client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def run_file(client: MlflowClient, run_id: str, name: str, folder: str) -> Path:
    """A file of a run, fetched into a folder. Raises MlflowException or OSError if the tracking store failed."""
    uri = f"runs:/{run_id}/{name}"
    return Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder, tracking_uri=client.tracking_uri))
