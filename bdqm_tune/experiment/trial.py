"""One trial: train, compare at the pruner's rungs, record, tell."""

import random
import threading
import time
import traceback
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState

from bdqm_tune.backends import Backend, TrainingRun
from bdqm_tune.config import Config
from bdqm_tune.experiment import training_record
from bdqm_tune.experiment.cached_storage import together
from bdqm_tune.experiment.checkpoints import TrialCheckpoint
from bdqm_tune.experiment.patient_storage import TrialLost
from bdqm_tune.experiment.prediction_time import PredictionTime
from bdqm_tune.experiment.search_space import Suggestion, suggest
from bdqm_tune.experiment.study import RESULT, RUN_ID, handed_back, is_ours, next_trial, others_run
from bdqm_tune.experiment.tracking import Tracker
from bdqm_tune.experiment.tracking_client import TrackingFailed
from bdqm_tune.experiment.trial_run import BATCHES_IN_TRIAL, TrialRun
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.fit import Diverged
from bdqm_tune.progress import check, interruptible
from bdqm_tune.services.secrets import without_secrets

FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between two looks for a trial that may come back
TOLD_WITHIN = 5.0  # seconds that the next trial is put off until the study knows of this one
OPTUNA_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended."""

    number: int
    state: str  # complete, pruned or failed
    val_energy_mae: float | None  # eV, of the best epoch
    best_epoch: int | None
    epochs: int
    n_parameters: int | None
    trial_seconds: float
    reason: str = ""  # why it was pruned or failed
    error: str = ""  # the traceback of a failure
    val_forces_mae: float | None = None  # eV/Å, of the best epoch, where forces are trained
    value: float | None = None  # the error by which training goes, of the best epoch
    time_per_atom: float | None = None  # s, of a prediction; measured where a study has several objectives

    def values(self, objectives: Sequence[str]) -> list[float]:
        """What a complete trial is judged by."""
        return [float(getattr(self, name)) for name in objectives]


class TrialRunner:
    """Runs trials of one study on one backend, in as many threads as like."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        backend: Backend,
        tracker: Tracker,
        rungs: Collection[int],
        checkpoints: Path,
    ) -> None:
        """
        Args:
            rungs: epochs at which the pruner compares.
            checkpoints: folder for those of the study's trials.
        """
        self._config, self._dataset, self._backend, self._tracker = config, dataset, backend, tracker
        self._rungs, self._checkpoints = frozenset(rungs), checkpoints
        self._time = PredictionTime(dataset.validation.structures.atoms)
        self._asking = threading.Lock()  # samplers are not made for several threads
        self._waiting = threading.Lock()  # one looks for trials that come back, for all
        self._stopped = threading.Event()
        self._late: Future[None] | None = None  # the study is still to be told of a trial

    def stop(self) -> None:
        """Hand back, after their epoch, the trials that other threads are running, and begin no more."""
        self._stopped.set()

    def run_next(self, study: optuna.Study) -> TrialResult | None:
        """Take a waiting trial and run it to its end, or None if there is none left, nor one that could come back.

        It is recorded in both stores; an exception in it fails it and does not get out.
        """
        with interruptible(self._stopped.is_set):
            while (trial := self._next_trial(study)) is not None:
                with suppress(TrialLost):
                    return self._run(trial)
            return None

    def _next_trial(self, study: optuna.Study) -> optuna.Trial | None:
        if (trial := self._take(study)) is not None:
            return trial
        with self._waiting:
            wait = FIRST_WAIT
            while (trial := self._take(study)) is None and others_run(study):
                self._pause(wait * random.uniform(0.5, 1))
                wait = min(2 * wait, LONGEST_WAIT)
        return trial

    def _take(self, study: optuna.Study) -> optuna.Trial | None:
        with self._asking:
            check()
            return next_trial(study)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            check()
            self._stopped.wait(min(left, 0.5))

    def _run(self, trial: optuna.Trial) -> TrialResult:
        with handed_back(trial):
            with self._asking, together(trial):
                tried = suggest(trial, self._config, len(self._dataset.train.structures))
            run = self._open_run(trial, tried)
            checkpoint = TrialCheckpoint(self._checkpoints, trial.number)
            try:
                try:
                    result = self._attempt(trial, tried, run, checkpoint)
                except (KeyboardInterrupt, SystemExit):
                    checkpoint.write()
                    run.hand_back()
                    raise
                # Last of what is sent: a trial that has ended is whole in its run, whenever its worker is killed.
                self._await(self._tracker.send(lambda client: self._tell(trial, result, checkpoint)), checkpoint)
            except (TrackingFailed, StorageInternalError):
                checkpoint.write()
                raise
        return result

    def _await(self, told: Future[None], checkpoint: TrialCheckpoint) -> None:
        """Wait until the study knows of a trial, from which the next may learn; but not for a store that is away."""
        if self._late is not None and not self._late.done():
            checkpoint.write()
            return
        try:
            told.result(TOLD_WITHIN)
        except TimeoutError:
            self._late = told
            checkpoint.write()

    def _attempt(
        self, trial: optuna.Trial, tried: Suggestion, run: TrialRun, checkpoint: TrialCheckpoint
    ) -> TrialResult:
        """Train, from a checkpoint if there is one, and send what came of it to the tracking store."""
        start, before = time.perf_counter(), 0.0
        training: TrainingRun | None = None
        time_per_atom: float | None = None
        state, reason, error = "complete", "", ""
        try:
            dataset = self._dataset
            if self._config.descriptor_spaces:
                dataset = dataset.described_by(tried.descriptor)
            training = self._backend.start(tried.hyperparameters, self._config.study.seed, dataset)
            checkpoint.restore(training)
            before = sum(record.epoch_seconds for record in training.records)
            reason = self._train(trial, training, run, checkpoint)
            state = "pruned" if reason else "complete"
            if len(self._config.objectives) > 1:
                time_per_atom = self._time.per_atom(trial.study, training.potential())
        except Diverged as diverged:
            state, reason = "pruned", str(diverged)
        except (TrackingFailed, StorageInternalError, TrialLost):
            raise
        except Exception as exception:
            state, reason, error = "failed", f"{type(exception).__name__}: {exception}", traceback.format_exc()
        best = training.best if training else None
        result = TrialResult(
            number=trial.number,
            state=state,
            val_energy_mae=best.val_energy_mae if best else None,
            best_epoch=best.epoch if best else None,
            epochs=len(training.records) if training else 0,
            n_parameters=training.n_parameters if training else None,
            trial_seconds=before + time.perf_counter() - start,
            reason=without_secrets(reason, self._tracker.stores),
            error=without_secrets(error, self._tracker.stores),
            val_forces_mae=best.val_forces_mae if best else None,
            value=best.value(self._config.target.objective) if best else None,
            time_per_atom=time_per_atom,
        )
        self._record(run, result, training, tried)
        return result

    def _train(self, trial: optuna.Trial, training: TrainingRun, run: TrialRun, checkpoint: TrialCheckpoint) -> str:
        """Train to the end, or until the pruner says no; returns why it was pruned, empty if it was not.

        The epochs before a checkpoint come first once more: what of them was not recorded yet is recorded now.
        """
        every = -(-self._config.training.epochs // BATCHES_IN_TRIAL)
        again = len(training.records)
        was_here = RUN_ID in trial.user_attrs  # only then there may be reports; to ask takes a query
        reported = trial.storage.get_trial(trial._trial_id).intermediate_values if was_here else {}
        for record in chain(list(training.records), training):
            check()
            if not is_ours(trial):
                raise TrialLost(f"trial {trial.number} was given to another worker")
            run.log_metrics(record.metrics(), record.epoch)
            if record.epoch > again:
                checkpoint.write_now_and_then()
                if record.epoch % every == 0 and record.epoch < self._config.training.epochs:
                    run.flush()
            if record.epoch in self._rungs and record.epoch >= max(reported, default=0):
                if record.epoch not in reported:
                    trial.report(self._best_value(training, record.epoch), record.epoch)
                if trial.should_prune():
                    return f"{self._config.study.pruner} pruner at epoch {record.epoch}"
        return ""

    def _best_value(self, training: TrainingRun, epoch: int) -> float:
        """The least objective of the epochs up to this one."""
        return min(record.value(self._config.target.objective) for record in training.records[:epoch])

    def _open_run(self, trial: optuna.Trial, tried: Suggestion) -> TrialRun:
        config, data = self._config, self._dataset
        tags = {
            **training_record.tags(config.study.name, data, self._backend.device),
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
            opened=lambda run_id: trial.storage.set_trial_user_attr(trial._trial_id, RUN_ID, run_id),
        )

    def _record(
        self,
        run: TrialRun,
        result: TrialResult,
        training: TrainingRun | None,
        tried: Suggestion,
    ) -> None:
        measured = training_record.summary_metrics(training, result.trial_seconds, result.time_per_atom)
        run.log_metrics(measured, result.epochs)

        def write(folder: Path) -> None:
            config = training_record.one_configuration(self._config, tried)
            training_record.write_artifacts(folder, training, config, result.error)

        tags = {"reason": result.reason[:500]} if result.reason else {}
        best = training.best if training is not None and result.state == "complete" else None
        run.finish(result.state, tags, write, training_record.best_metrics(best))

    def _tell(self, trial: optuna.Trial, result: TrialResult, checkpoint: TrialCheckpoint) -> None:
        """Let the study know, unless another worker has the trial by now."""
        kept = {key: value for key, value in asdict(result).items() if key not in ("number", "state", "error")}
        values = result.values(self._config.objectives) if result.state == "complete" else None
        if not is_ours(trial):
            return
        try:
            trial.set_user_attr(RESULT, kept)
            trial.study.tell(trial, values, state=OPTUNA_STATES[result.state])
        except (TrialLost, UpdateFinishedTrialError):
            return
        except ValueError:  # of Optuna: one that waits cannot be told
            if trial.storage.get_trial(trial._trial_id).state == TrialState.RUNNING:
                raise
            return
        checkpoint.remove()
