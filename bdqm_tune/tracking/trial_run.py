"""The MLflow run of one trial."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis
from optuna.exceptions import StorageInternalError

from bdqm_tune.progress import check
from bdqm_tune.tracking.client import TrackingFailed
from bdqm_tune.tracking.recoverable_run import RecoverableRun

if TYPE_CHECKING:
    from bdqm_tune.learning.fit import EpochRecord
    from bdqm_tune.tracking.tracker import Tracker

BATCHES_IN_TRIAL = 5
MOST_METRICS = 1000  # in one request: MLflow's limit
STATUS = {
    "complete": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
    "waiting": "SCHEDULED",
    "interrupted": "KILLED",  # of what is no trial, and is begun anew
}
RUNNING = [RunTag("trial_state", "running")]


@dataclass(frozen=True)
class Opening:
    """What the run of a trial holds from its beginning; plain JSON."""

    number: int  # of the trial
    name: str  # of the run
    parameters: dict[str, str]
    tags: dict[str, str]
    inputs: list[dict[str, str]]  # data sets: name, digest, source, profile, context
    creation: str  # stands in a tag, by which a run is found whose creation was not answered
    started: int  # timestamp (ms)


class TrialRun(RecoverableRun):
    """The MLflow run of one trial, which may not be there yet.

    Args:
        open_: gives the run; `logged` is filled with the last step of each metric that is there by then, and is not
            sent again.
        renew: as `RecoverableRun` has it, given what the run holds from its beginning.
        holds_claim: as `RecoverableRun` has it.
    """

    def __init__(
        self,
        tracker: "Tracker",
        opening: Opening,
        open_: Callable[[MlflowClient], Run],
        renew: Callable[[Run, Opening], Callable[[MlflowClient], Run]],
        logged: dict[str, int],
        holds_claim: Callable[[], bool],
    ) -> None:
        super().__init__(tracker.send, open_, self._renewed, holds_claim)
        self._tracker, self._renew_by, self._logged, self.opening = tracker, renew, logged, opening
        self._kept: list[tuple[dict[str, float], int, int]] = []  # by name; timestamp, ms; step
        inputs = [_dataset_input(described) for described in opening.inputs]
        self.send(lambda client, run: client.log_inputs(run.info.run_id, datasets=inputs))
        self.send(self._describe)

    def start_again(self) -> None:
        self._logged.clear()

    def _renewed(self, deleted: Run) -> Callable[[MlflowClient], Run]:
        self.opening = replace(self.opening, creation=uuid.uuid4().hex)
        return self._renew_by(deleted, self.opening)

    def _describe(self, client: MlflowClient, run: Run) -> None:
        there = run.data.params  # which cannot change: another worker may have had another device
        params = [Param(key, value) for key, value in self.opening.parameters.items() if key not in there]
        client.log_batch(run.info.run_id, params=params, tags=RUNNING)

    def wait(self) -> Run:
        """Wait until all is sent, and give the run. Raises TrackingFailed if it cannot be made."""
        self._tracker.wait(self.send(lambda client, run: None))
        return self.run

    def follow(self, records: "Iterable[EpochRecord]", epochs: int, before: int = 0) -> "Iterator[EpochRecord]":
        """Log the epochs of a training as they come, and send them in a few batches.

        Args:
            records: of all epochs, those before a checkpoint too: what of them is not in the run yet is sent.
            epochs: of the training, at most; the last ones are left to `finish`.
            before: epochs before the checkpoint, which are not worth a batch of their own.
        """
        every = -(-epochs // BATCHES_IN_TRIAL)
        for record in records:
            check()
            self.log_metrics(record.metrics(), record.epoch)
            yield record
            if before < record.epoch < epochs and record.epoch % every == 0:
                self.flush()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep metrics until `flush`."""
        self._kept.append((dict(metrics), get_current_time_millis(), step))

    def flush(self, tags: Mapping[str, str] | None = None) -> None:
        """Send what was kept."""
        kept, self._kept = self._kept, []
        metrics = [Metric(name, value, moment, step) for values, moment, step in kept for name, value in values.items()]
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
        best: Mapping[str, float],
        ended: int | None = None,
    ) -> Future[Any]:
        """Send what is left, the artifacts, and the end of the run, which is answered when all is sent.

        Args:
            state: complete, pruned, failed, waiting or interrupted.
            artifacts: writes the files to keep into the folder it is given.
            best: metrics of the trial's result, for the study's run; empty if it has none.
            ended: when the trial did, ms; None: now. Of equal metrics of one moment MLflow keeps one.
        """
        self.flush({**tags, "trial_state": state})
        self.upload(artifacts)
        if best:
            now, step = ended or get_current_time_millis(), self.opening.number
            metrics = [Metric(name, value, now, step) for name, value in best.items()]
            holds_claim = False

            def request(client: MlflowClient, run: Run) -> None:
                nonlocal holds_claim  # a study's run that was deleted gets it again, when the trial has ended
                holds_claim = holds_claim or self._holds_claim()
                if holds_claim:
                    client.log_batch(run.info.run_id, metrics=metrics)

            self._tracker.study.send(request)
        return self.end(STATUS[state], ended)

    def hand_back(self) -> None:
        """Leave the run to the worker that takes the trial next, which must find it, and all that belongs to it.

        What came after that one has looked which epochs are there would be there twice.
        """
        self._tracker.hurry()
        with suppress(TrackingFailed, StorageInternalError):  # said at the end
            self._tracker.wait(self.finish("waiting", {}, lambda folder: None, {}))


def _dataset_input(described: Mapping[str, str]) -> DatasetInput:
    options = {key: value for key, value in described.items() if key != "context"}
    return DatasetInput(
        MlflowDataset(source_type="local", **options), [InputTag("mlflow.data.context", described["context"])]
    )
