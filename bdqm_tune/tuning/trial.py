"""One trial: train, compare at the pruner's rungs, log, report the result."""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import optuna
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis
from optuna.exceptions import StorageInternalError

from bdqm_tune.backends import Backend, OutOfProcess, TrainingRun
from bdqm_tune.backoff import pauses
from bdqm_tune.config.config import Config
from bdqm_tune.errors import DiskFull, is_disk_full, one_line
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.fit import Diverged
from bdqm_tune.progress import check, interruptible
from bdqm_tune.services.optuna_private import id_of
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.storage.retrying_storage import CLAIM_LOST, ClaimLost
from bdqm_tune.study import run_contents as training_record
from bdqm_tune.study.checkpoints import TrialCheckpoint
from bdqm_tune.study.search_space import Suggestion, suggest
from bdqm_tune.study.study import (
    RUN_ID,
    certainly_holds_claim,
    holds_claim,
    keep_run_id,
    next_trial,
    others_run,
    refuse_successor,
    requeue,
    requeued_on_error,
)
from bdqm_tune.study.trial_result import TrialResult, tell
from bdqm_tune.tracking.client import TrackingFailed
from bdqm_tune.tracking.tracker import Tracker
from bdqm_tune.tracking.trial_run import TrialRun
from bdqm_tune.tuning.prediction_time import PredictionTime
from bdqm_tune.tuning.pruning import Comparisons
from bdqm_tune.workers.best_metrics import BestMetrics
from bdqm_tune.workers.run_cleanup import end_run_of_finished

FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between two polls for a trial that may be requeued
REPORT_TIMEOUT = 5.0  # seconds that the next trial waits until this one's result is in the study

_log = logging.getLogger(__name__)


class _Pruned(Exception):
    """The pruner has answered while an epoch was waited for; the message is the reason."""


@dataclass(frozen=True)
class Outcome:
    """The result of a trial, and what is to be logged."""

    result: TrialResult
    tags: dict[str, str]
    reports: dict[int, float]  # by epoch: values that the study may not have
    write: Callable[[Path], None]  # writes the artifacts into a folder
    ended: int  # timestamp, ms


class TrialRunner:
    """Runs trials of one study on one backend, from any number of threads."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        backend: Backend,
        tracker: Tracker,
        rungs: Collection[int],
        checkpoints: Path,
        identity: str | None = None,
    ) -> None:
        """
        Args:
            rungs: epochs at which the pruner compares.
            checkpoints: folder for those of the study's trials.
            identity: of the study, by which another one in its place is noticed; None: not checked.
        """
        self._config, self._dataset, self._backend, self._tracker = config, dataset, backend, tracker
        self._rungs, self._checkpoints, self._identity = frozenset(rungs), checkpoints, identity
        self._time = PredictionTime(dataset.validation.structures.atoms)
        self._sampler_lock = threading.Lock()  # samplers are not thread-safe
        self._poll_lock = threading.Lock()  # one thread polls for requeued trials, for all
        self._stopped = threading.Event()
        self._best: BestMetrics | None = None
        self._late: list[tuple[optuna.Trial, Future[bool]]] = []  # results not reported in time

    def stop(self) -> None:
        """Requeue, after their epoch, the trials that other threads are running, and begin no more."""
        self._stopped.set()

    def run_next(self, study: optuna.Study) -> TrialResult | None:
        """Claim a waiting trial and run it to its end; None if there is none left, nor one that could be requeued.

        It is recorded in both stores. An exception in its training fails the trial and is not raised.
        """
        with interruptible(self._stopped.is_set):
            while (trial := self._next_trial(study)) is not None:
                with suppress(ClaimLost):
                    return self._run(trial)
            return None

    def _next_trial(self, study: optuna.Study) -> optuna.Trial | None:
        if (trial := self._take(study)) is not None:
            return trial
        with self._poll_lock:
            waits = pauses(FIRST_WAIT, LONGEST_WAIT)
            while (trial := self._take(study)) is None and others_run(study):
                self._pause(next(waits))
        return trial

    def _take(self, study: optuna.Study) -> optuna.Trial | None:
        with self._sampler_lock:
            check()
            if self._identity is not None:
                refuse_successor(study, self._identity)
            return next_trial(study)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (remaining := until - time.monotonic()) > 0:
            check()
            self._stopped.wait(min(remaining, 0.5))

    def _run(self, trial: optuna.Trial) -> TrialResult:
        checkpoint = TrialCheckpoint(self._checkpoints, trial.number)
        with requeued_on_error(trial):
            try:
                tried = self._suggest(trial)
            except (ValueError, TypeError) as error:  # somebody enqueued parameters that nothing can train
                return self._refuse(trial, error, checkpoint)
            run = self._open_run(trial, tried)
            try:
                try:
                    outcome = self._attempt(trial, tried, run, checkpoint)
                except (KeyboardInterrupt, SystemExit, DiskFull):
                    checkpoint.write()
                    run.requeue()
                    raise
                self._send(trial, run, outcome, checkpoint)
            except (TrackingFailed, StorageInternalError):
                checkpoint.write()
                raise
            except ClaimLost:
                self._tracker.send(lambda client: end_run_of_finished(client, trial.storage.get_trial(id_of(trial))))
                raise
        return outcome.result

    def _suggest(self, trial: optuna.Trial) -> Suggestion:
        with self._sampler_lock:
            return suggest(trial, self._config, len(self._dataset.train.structures))

    def _refuse(self, trial: optuna.Trial, error: Exception, checkpoint: TrialCheckpoint) -> TrialResult:
        """Fail a trial that has no hyperparameters to train with. It has no run in MLflow."""
        reason = without_secrets(f"{type(error).__name__}: {one_line(error)}", self._tracker.stores)
        result = TrialResult(trial.number, "failed", None, None, 0, None, 0.0, reason)
        if not tell(trial, result, self._config.objectives, checkpoint, {}):
            raise ClaimLost(CLAIM_LOST)
        return result

    def _send(self, trial: optuna.Trial, run: TrialRun, outcome: Outcome, checkpoint: TrialCheckpoint) -> None:
        """Log the result of a trial, and wait until it is in the study, from which the sampler learns.

        It does not wait for a store that is away. If that stays away, the next worker reports the result from the
        checkpoint, which has all epochs.
        """

        def report(_client: MlflowClient) -> bool:
            return tell(trial, outcome.result, self._config.objectives, checkpoint, outcome.reports)

        run.finish(outcome.result.state, outcome.tags, outcome.write, outcome.ended)
        # Sent after it: the run of a finished trial is complete, whenever its worker is killed.
        reported = self._tracker.send(report)
        if outcome.result.state == "complete":
            self._best = self._best or BestMetrics(self._tracker, trial.study, self._config.objectives)
            self._best.log(trial.number)
        is_late = bool(self._late) and not self._late[-1][1].done()
        try:
            if not reported.result(0.0 if is_late else REPORT_TIMEOUT):
                raise ClaimLost(CLAIM_LOST)
        except TimeoutError:
            checkpoint.write()
            self._late.append((trial, reported))

    def requeue_late(self) -> int:
        """Requeue the trials whose results could not be reported; returns their number."""
        unreported = [trial for trial, sent in self._late if not sent.done() or sent.exception() is not None]
        for trial in unreported:
            requeue(trial)
        return len(unreported)

    def _attempt(self, trial: optuna.Trial, tried: Suggestion, run: TrialRun, checkpoint: TrialCheckpoint) -> Outcome:
        """Train, from a checkpoint if there is one."""
        start, before = time.perf_counter(), 0.0
        training: TrainingRun | None = None
        time_per_atom: float | None = None
        errors: list[float] | None = None
        state, reason, error = "complete", "", ""
        comparisons = Comparisons(trial)
        try:
            dataset = self._dataset
            if self._config.descriptor_spaces or tried.descriptor != self._config.descriptor:
                dataset = dataset.described_by(tried.descriptor)
            training = self._backend.start(tried.hyperparameters, tried.seed, dataset)
            checkpoint.restore(training)
            before = sum(record.epoch_seconds for record in training.records)
            reason = self._train(trial, training, run, checkpoint, comparisons)
            state = "pruned" if reason else "complete"
            if (held_out := training.held_out()) is not None:
                errors = [float(f"{error:.6g}") for error in held_out.by_group(self._config.objective)]
            if len(self._config.objectives) > 1:
                time_per_atom = self._time.per_atom(trial.study, training.potential())
        except Diverged as diverged:
            state, reason = "pruned", str(diverged)
        except (TrackingFailed, StorageInternalError, ClaimLost):
            raise
        except Exception as exception:
            if is_disk_full(exception):  # not the trial's fault: it is requeued
                raise DiskFull(f"trial {trial.number}: {one_line(exception)}") from exception
            state, reason, error = "failed", f"{type(exception).__name__}: {exception}", traceback.format_exc()
        finally:
            if isinstance(training, OutOfProcess):
                training.close()
            comparisons.close()
        best = training.best if training else None
        result = TrialResult(
            number=trial.number,
            state=state,
            val_energy_mae=best.val_energy_mae if best else None,
            val_energy_mae_per_atom=best.val_energy_mae_per_atom if best else None,
            best_epoch=best.epoch if best else None,
            epochs=len(training.records) if training else 0,
            n_parameters=training.n_parameters if training else None,
            trial_seconds=before + time.perf_counter() - start,
            reason=without_secrets(reason, self._tracker.stores),
            error=without_secrets(error, self._tracker.stores),
            val_forces_mae=best.val_forces_mae if best else None,
            val_energy_forces=best.val_energy_forces if best else None,
            val_stress_mae=best.val_stress_mae if best else None,
            value=best.value(self._config.objective) if best else None,
            validation_errors=errors,
            time_per_atom=time_per_atom,
        )
        run.log_metrics(training_record.summary_metrics(training, result.trial_seconds, time_per_atom), result.epochs)

        def write(folder: Path) -> None:
            config = training_record.one_configuration(self._config, tried)
            training_record.write_artifacts(folder, training, config, self._dataset, result.error)

        return Outcome(
            result,
            {"reason": result.reason[:500]} if result.reason else {},
            comparisons.unanswered(),
            write,
            get_current_time_millis(),
        )

    def _train(
        self,
        trial: optuna.Trial,
        training: TrainingRun,
        run: TrialRun,
        checkpoint: TrialCheckpoint,
        comparisons: Comparisons,
    ) -> str:
        """Train to the end, or until the pruner stops the trial; returns why it was pruned, empty if it was not.

        Replays the epochs of a restored checkpoint first, so that metrics not yet logged are logged.
        """
        epochs, restored = self._config.training.epochs, len(training.records)
        is_resumed = RUN_ID in trial.user_attrs  # only then there may be reports; reading them takes a query
        reported = trial.storage.get_trial(id_of(trial)).intermediate_values if is_resumed else {}

        def look() -> None:
            if not holds_claim(trial):
                raise ClaimLost(CLAIM_LOST)
            if (epoch := comparisons.pruned_at()) is not None:
                raise _Pruned(f"{self._config.study.pruner} pruner at epoch {epoch}")

        if isinstance(training, OutOfProcess):  # whose epochs may take hours
            training.watch(look)
        try:
            for record in run.follow(chain(list(training.records), training), epochs, restored):
                if not holds_claim(trial):
                    raise ClaimLost(CLAIM_LOST)
                if record.epoch > restored:
                    checkpoint.write_now_and_then()
                if record.epoch in self._rungs and record.epoch >= max(reported, default=0):
                    value = self._best_value(training, record.epoch) if record.epoch not in reported else None
                    comparisons.submit(record.epoch, value)
                look()
        except _Pruned as pruned:
            return str(pruned)
        return ""

    def _best_value(self, training: TrainingRun, epoch: int) -> float:
        """The least objective of the epochs up to this one."""
        return min(record.value(self._config.objective) for record in training.records[:epoch])

    def _open_run(self, trial: optuna.Trial, tried: Suggestion) -> TrialRun:
        config, data = self._config, self._dataset
        tags = {
            **training_record.tags(config.study.name, data, self._backend),
            "trial_number": str(trial.number),
            "objectives": ", ".join(config.objectives),
            "sampler": config.study.sampler,
            "pruner": config.study.pruner,
        }
        splits = {"training": data.train, "validation": data.validation}
        return self._tracker.start_trial(
            trial.number,
            training_record.parameters(config, tried, self._backend.device),
            tags,
            splits,
            run_id=trial.user_attrs.get(RUN_ID),
            opened=lambda run_id: keep_run_id(trial, run_id),
            holds_claim=lambda: certainly_holds_claim(trial),
        )
