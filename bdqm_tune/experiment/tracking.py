"""MLflow: a run for the study, and one for every trial under it; requests go out off the training loop."""

import json
import os
import queue
import re
import tempfile
import threading
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.time import get_current_time_millis

from bdqm_tune.errors import BadInput, BdqmError, one_line
from bdqm_tune.learning.dataset import Split

METRICS_IN_REQUEST, PARAMETERS_IN_REQUEST = 1000, 100  # the most that MLflow takes
BATCHES_IN_TRIAL = 5
LONGEST_PARAMETER = 6000
GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # as in luminous-shad-146, which MLflow gives a run without a name
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "waiting": "SCHEDULED"}


class TrackingFailed(BdqmError):
    """Something could not be sent to the tracking store."""


def failed(error: Exception) -> TrackingFailed:
    """The error to raise for one of MLflow's."""
    return TrackingFailed(f"the MLflow tracking store failed: {one_line(error)}")


class _Sender(threading.Thread):
    """Sends requests one after the other, so that training never waits for the server."""

    def __init__(self) -> None:
        super().__init__(name="mlflow", daemon=True)
        self._requests: queue.Queue[Callable[[], Any] | None] = queue.Queue()
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                if self._error is None:
                    request()
            except Exception as error:
                self._error = error

    def send(self, request: Callable[[], Any]) -> None:
        """Send it soon. Raises TrackingFailed if an earlier one failed."""
        self.check()
        self._requests.put(request)

    def check(self) -> None:
        if self._error is not None:
            raise failed(self._error) from self._error

    def close(self) -> None:
        """Wait until all is sent, and end. Raises TrackingFailed if something could not be."""
        self._requests.put(None)
        self.join()
        self.check()


class Tracker:
    """The study's run, and the way to the runs of its trials."""

    def __init__(self, client: MlflowClient, experiment_id: str, run_id: str, adopted: bool) -> None:
        self.client, self.experiment_id, self.run_id = client, experiment_id, run_id
        self._adopted = adopted  # the run is `mlflow run`'s, which ends it
        self._sender = _Sender()
        self._context = resolve_tags()

    def log_study(self, parameters: Mapping[str, Any], tags: Mapping[str, str], config: str) -> None:
        """Record the study's configuration in its run."""
        items = [Param(key, str(value)[:LONGEST_PARAMETER]) for key, value in parameters.items()]
        for start in range(0, len(items), PARAMETERS_IN_REQUEST):
            self._send("log_batch", self.run_id, params=items[start : start + PARAMETERS_IN_REQUEST])
        self._send("log_batch", self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        self._send("log_text", self.run_id, config, "config.yaml")

    def start_trial(
        self,
        number: int,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
        splits: Mapping[str, Split],
        run_id: str | None = None,
    ) -> "TrialRun":
        """Open the run of a trial, or that of `run_id` again for a trial that was handed back."""
        if run_id is None:
            all_tags = self._context | dict(tags) | {"trial_state": "running", MLFLOW_PARENT_RUN_ID: self.run_id}
            try:
                run = self.client.create_run(self.experiment_id, tags=all_tags, run_name=f"trial-{number:03d}")
            except (MlflowException, OSError) as error:
                raise failed(error) from error
            run_id = str(run.info.run_id)
            self._send("log_batch", run_id, params=[Param(key, str(value)) for key, value in parameters.items()])
            self._send("log_inputs", run_id, datasets=[_dataset_input(name, s) for name, s in splits.items()])
        else:
            self._send("update_run", run_id, status="RUNNING")
            self._send("log_batch", run_id, tags=[RunTag("trial_state", "running")])
        return TrialRun(self, run_id, number)

    def finish(self, status: str) -> None:
        """Wait until everything is sent, and end the study's run unless `mlflow run` does."""
        if not self._adopted:
            self._send("set_terminated", self.run_id, status=status)
        self._sender.close()

    def _send(self, method: str, *arguments: Any, **options: Any) -> None:
        self._sender.send(lambda: getattr(self.client, method)(*arguments, **options))


class TrialRun:
    """The MLflow run of one trial."""

    def __init__(self, tracker: Tracker, run_id: str, number: int) -> None:
        self._tracker, self.run_id, self._number = tracker, run_id, number
        self._metrics: list[Metric] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep metrics until `flush`."""
        now = get_current_time_millis()
        self._metrics += [Metric(name, value, now, step) for name, value in metrics.items()]

    def flush(self, tags: Mapping[str, str] | None = None) -> None:
        """Send what was kept."""
        metrics, self._metrics = self._metrics, []
        run_tags = [RunTag(key, value) for key, value in (tags or {}).items()]
        for start in range(0, max(len(metrics), 1), METRICS_IN_REQUEST):
            chunk = metrics[start : start + METRICS_IN_REQUEST]
            self._tracker._send("log_batch", self.run_id, metrics=chunk, tags=run_tags if start == 0 else [])

    def finish(
        self, state: str, tags: Mapping[str, str], artifacts: Callable[[Path], None], best: float | None
    ) -> None:
        """Send what is left, the artifacts, and the end of the run.

        Args:
            state: complete, pruned, failed or waiting.
            artifacts: writes the files to keep into the folder it is given.
            best: the trial's result, for the study's run; None if it has none.
        """
        self.flush({**tags, "trial_state": state})
        folder = tempfile.TemporaryDirectory(prefix="bdqm-")
        artifacts(Path(folder.name))

        def upload() -> None:
            with folder:
                if any(Path(folder.name).iterdir()):
                    self._tracker.client.log_artifacts(self.run_id, folder.name)

        self._tracker._sender.send(upload)
        if best is not None:
            self._tracker._send(
                "log_metric", self._tracker.run_id, "best_val_energy_mae", best, step=self._number, synchronous=True
            )
        self._tracker._send("set_terminated", self.run_id, status=STATUS[state])


def open_tracker(tracking_uri: str | None, study: str, environ: MutableMapping[str, str] = os.environ) -> Tracker:
    """Adopt the run that `mlflow run` made for this process, or make one in an experiment named like the study.

    Raises:
        BdqmError: the tracking store cannot be reached.
        BadInput: the experiment was deleted.
    """
    client = MlflowClient(tracking_uri)
    try:
        adopted = adopt_run(client, study, environ)
        if adopted is not None:
            return Tracker(client, adopted.info.experiment_id, adopted.info.run_id, adopted=True)
        experiment = client.get_experiment_by_name(study)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            raise BadInput(
                f"the MLflow experiment {study!r} is deleted; restore it with "
                f"'mlflow experiments restore -x {experiment.experiment_id}', or choose another name with --study"
            )
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(study)
        run = client.create_run(experiment_id, run_name=study, tags=resolve_tags())
        return Tracker(client, experiment_id, run.info.run_id, adopted=False)
    except (MlflowException, OSError) as error:
        where = tracking_uri or mlflow.get_tracking_uri()
        raise BdqmError(f"cannot use the MLflow tracking store {where}: {one_line(error)}") from None


def adopt_run(client: MlflowClient, name: str, environ: MutableMapping[str, str] = os.environ) -> Run | None:
    """The run that `mlflow run` made for this process, named `name` unless the user named it; None if there is none."""
    # Left in the environment, MLflow would let it override the parent of every run that is made here.
    run_id = environ.pop("MLFLOW_RUN_ID", None)
    if run_id is None:
        return None
    run = client.get_run(run_id)
    if GENERATED_NAME.fullmatch(run.info.run_name or ""):
        client.update_run(run_id, name=name)
    return run


def _dataset_input(name: str, split: Split) -> DatasetInput:
    described = split.describe()
    source = described.pop("source")
    return DatasetInput(
        # MLflow takes 36 characters of a digest.
        MlflowDataset(
            name=Path(source).name,
            digest=split.digest[:32],
            source_type="local",
            source=json.dumps({"uri": source}),
            profile=json.dumps(described),
        ),
        [InputTag("mlflow.data.context", name)],
    )
