"""The MLflow run of one trial."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis
from optuna.exceptions import StorageInternalError

from bdqm_tune.learning.fit import EpochRecord
from bdqm_tune.progress import check
from bdqm_tune.tracking.client import TrackingFailed
from bdqm_tune.tracking.recoverable_run import RecoverableRun

BATCHES_IN_TRIAL = 5
MOST_METRICS = 1000  # in one request: MLflow's limit
STATUS = {
    "complete": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
    "waiting": "SCHEDULED",
    "interrupted": "KILLED",  # of a training that is no trial, and starts again
}
RUNNING = [RunTag("trial_state", "running")]


@dataclass(frozen=True)
class Opening:
    """What the run of a trial contains from its beginning; plain JSON."""

    number: int  # of the trial
    name: str  # of the run
    parameters: dict[str, str]
    tags: dict[str, str]
    inputs: list[dict[str, str]]  # data sets: name, digest, source, profile, context
    creation: str  # stored in a tag, by which the run is found if the answer to its creation was lost
    started: int  # timestamp (ms)


class Requests(Protocol):
    """What a run sends its requests by: a `Tracker`."""

    def send(self, request: Callable[[MlflowClient], Any]) -> Future[Any]: ...

    def wait(self, request: Future[Any]) -> Any: ...

    def hurry(self) -> None: ...


class TrialRun(RecoverableRun):
    """The MLflow run of one trial, which may not exist yet.

    Args:
        open_: returns the run, and fills `logged`.
        renew: as in `RecoverableRun`, with what the run contains from its beginning.
        logged: last logged step of each metric; steps up to it are not logged again.
        holds_claim: as in `RecoverableRun`.
    """

    def __init__(
        self,
        tracker: Requests,
        opening: Opening,
        open_: Callable[[MlflowClient], Run],
        renew: Callable[[Run, Opening], Callable[[MlflowClient], Run]],
        logged: dict[str, int],
        holds_claim: Callable[[], bool],
    ) -> None:
        super().__init__(tracker.send, open_, self._renewed, holds_claim)
        self._tracker, self._renew_by, self._logged, self.opening = tracker, renew, logged, opening
        self._buffer: list[tuple[dict[str, float], int, int]] = []  # by name; timestamp, ms; step
        inputs = [_dataset_input(described) for described in opening.inputs]
        self.send(lambda client, run: client.log_inputs(run.info.run_id, datasets=inputs))
        self.send(self._describe)

    def start_again(self) -> None:
        self._logged.clear()

    def _renewed(self, deleted: Run) -> Callable[[MlflowClient], Run]:
        self.opening = replace(self.opening, creation=uuid.uuid4().hex)
        return self._renew_by(deleted, self.opening)

    def _describe(self, client: MlflowClient, run: Run) -> None:
        logged = run.data.params  # which cannot change: another worker may have had another device
        params = [Param(key, value) for key, value in self.opening.parameters.items() if key not in logged]
        client.log_batch(run.info.run_id, params=params, tags=RUNNING)

    def wait(self) -> Run:
        """Wait until all is sent, and return the run. Raises TrackingFailed if it cannot be created."""
        self._tracker.wait(self.send(lambda client, run: None))
        return self.run

    def follow(self, records: Iterable[EpochRecord], epochs: int, before: int = 0) -> Iterator[EpochRecord]:
        """Log the epochs of a training as they come, in a few batches.

        Args:
            records: of all epochs, those before a checkpoint too: metrics not yet in the run are logged.
            epochs: of the training, at most; the last batch is left to `finish`.
            before: epochs before the checkpoint, which get no batch of their own.
        """
        every = -(-epochs // BATCHES_IN_TRIAL)
        for record in records:
            check()
            self.log_metrics(record.metrics(), record.epoch)
            yield record
            if before < record.epoch < epochs and record.epoch % every == 0:
                self.flush()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Buffer metrics until `flush`."""
        self._buffer.append((dict(metrics), get_current_time_millis(), step))

    def flush(self, tags: Mapping[str, str] | None = None) -> None:
        """Log the buffered metrics, and tags."""
        buffer, self._buffer = self._buffer, []
        metrics = [
            Metric(name, value, moment, step) for values, moment, step in buffer for name, value in values.items()
        ]
        run_tags = [RunTag(key, value) for key, value in (tags or {}).items()]
        for start in range(0, max(len(metrics), 1), MOST_METRICS):
            self.send(partial(self._log, metrics[start : start + MOST_METRICS], run_tags))

    def _log(self, metrics: list[Metric], tags: list[RunTag], client: MlflowClient, run: Run) -> None:
        new = [metric for metric in metrics if metric.step > self._logged.get(metric.key, -1)]
        client.log_batch(run.info.run_id, metrics=new, tags=tags)

    def finish(
        self,
        state: str,
        tags: Mapping[str, str],
        artifacts: Callable[[Path], Any],
        ended: int | None = None,
    ) -> Future[Any]:
        """Log the buffered metrics, the artifacts and the final status; the future is done when all is sent.

        Args:
            state: complete, pruned, failed, waiting or interrupted.
            artifacts: writes the artifacts into a folder.
            ended: time of the trial's end, ms; None: now.
        """
        self.flush({**tags, "trial_state": state})
        self.upload(artifacts)
        return self.end(STATUS[state], ended)

    def requeue(self) -> None:
        """Log all that is buffered and leave the run to the next worker of the trial.

        Waits until all is sent: metrics that arrive after that worker has read the logged steps would be logged twice.
        """
        self._tracker.hurry()
        with suppress(TrackingFailed, StorageInternalError):  # reported at the end
            self._tracker.wait(self.finish("waiting", {}, lambda folder: None))


def _dataset_input(described: Mapping[str, str]) -> DatasetInput:
    options = {key: value for key, value in described.items() if key != "context"}
    return DatasetInput(
        MlflowDataset(source_type="local", **options), [InputTag("mlflow.data.context", described["context"])]
    )
