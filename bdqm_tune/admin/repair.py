"""Repair of what killed workers left in both stores: their trials are requeued, and their runs ended."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.errors import BdqmError
from bdqm_tune.process import is_here
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.diagnostics import FIXED, OK, WARNING, Finding
from bdqm_tune.services.optuna_private import id_of
from bdqm_tune.storage.database import not_made_yet, opened
from bdqm_tune.storage.retrying_storage import RetryingStorage
from bdqm_tune.study.checkpoints import checkpoint_folder, remove_ended
from bdqm_tune.study.study import EXPERIMENT, LOSSES, RUN_ID, STATES
from bdqm_tune.tracking.client import reason, tracking_client
from bdqm_tune.tracking.quiet import quiet_libraries
from bdqm_tune.tracking.search import STATUS_RUNNING, search, tracking_not_made_yet
from bdqm_tune.tracking.tracker import PROCESS
from bdqm_tune.tracking.trial_run import STATUS
from bdqm_tune.workers.failure_detector import DEAD_AFTER, HEARTBEAT_SECONDS, LOSSES_THAT_FAIL, FailureDetector
from bdqm_tune.workers.registry import DEAD, ENDED, RUNNING, Worker, Workers, who
from bdqm_tune.workers.run_cleanup import end_run_of, end_runs_of_killed, is_of_trial, repair_run_of

SHOWN = 3  # commands, of more that are alike
SENDING = timedelta(hours=1)  # for so long a worker that has ended may continue to log to MLflow


@dataclass
class _Study:
    """One study, and what its failure detector found."""

    name: str
    study_id: int
    experiment: str | None
    workers: Workers
    dead: list[tuple[Worker, str]] = field(default_factory=list)
    requeued: list[FrozenTrial] = field(default_factory=list)

    def add_dead(self, worker: Worker, why: str) -> None:
        self.dead.append((worker, why))


def repair_leftovers(
    stores: Stores,
    wait: bool,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Finding]:
    """Repair what killed workers left, in all studies.

    Args:
        wait: watch the heartbeats of workers on other machines as well, which takes two minutes; else only workers
            whose process is known to have ended are found dead.

    Raises:
        BdqmError: a store failed.
    """
    quiet_libraries()
    if not_made_yet(stores):
        with _of_mlflow():
            if not tracking_not_made_yet(stores):
                client = tracking_client(stores)
                yield from _never_registered(client, list(search(client, STATUS_RUNNING)))
        return
    with opened(stores) as storage:
        backend = storage.backend
        studies = [
            _Study(
                study.study_name,
                id_of(study),
                study.user_attrs.get(EXPERIMENT),
                Workers(backend.engine, backend.retry, id_of(study)),
            )
            for study in backend.get_all_studies()
        ]
        _watch(backend, studies, wait, sleep, clock)
        with _of_mlflow():
            tracking = None if tracking_not_made_yet(stores) else tracking_client(stores)
            for study in studies:
                yield from _fixed(backend, study, tracking)
            running = list(search(tracking, STATUS_RUNNING)) if tracking else []
            for study in studies:
                yield from _ended_runs(backend, study, tracking, running)
                yield from _unclear(backend, study)
            known = {worker.description.get("run_id") for study in studies for worker in study.workers.all()}
            if tracking is not None:
                yield from _never_registered(tracking, [run for run in running if run.info.run_id not in known])
            deleted = {run.info.run_id for run in search(tracking, "", deleted=True)} if tracking else set[str]()
            for study in studies if deleted else []:
                yield from _without_runs(backend, study, deleted)
            for study in studies:
                yield from _checkpoints(stores, backend, study)


@contextmanager
def _of_mlflow() -> Iterator[None]:
    try:
        yield
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot repair the runs in MLflow: {reason(error)}") from None


def _checkpoints(stores: Stores, backend: RetryingStorage, study: _Study) -> Iterator[Finding]:
    """Those of trials that have ended, whose worker was killed just then."""
    folder = checkpoint_folder(stores.home, study.name, backend.get_study_user_attrs(study.study_id))
    if removed := remove_ended(folder, lambda: backend.get_all_trials(study.study_id)):
        yield Finding("trials", FIXED, f"{study.name}: removed {removed} checkpoints of trials that have ended")


def _watch(
    backend: RetryingStorage,
    studies: list[_Study],
    wait: bool,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> None:
    detectors = {
        study.study_id: FailureDetector(
            backend,
            study.study_id,
            study.add_dead,
            study.requeued.append,
            clock,
        )
        for study in studies
    }
    for detector in detectors.values():
        detector.check()
    end = clock() + DEAD_AFTER + HEARTBEAT_SECONDS
    watched = [study for study in studies if wait and study.workers.all(RUNNING)]
    while watched and clock() < end:
        sleep(HEARTBEAT_SECONDS)
        for study in watched:
            detectors[study.study_id].check()


def _fixed(backend: RetryingStorage, study: _Study, client: MlflowClient | None) -> Iterator[Finding]:
    """What the failure detector changed; repairs the runs of those workers and trials."""
    for worker, why in study.dead:
        if client is not None:
            end_run_of(client, worker, why)
        yield Finding("workers", FIXED, f"{study.name}: worker {who(worker)} is dead: {why}")
    parents = {worker.description.get("run_id", "") for worker in study.workers.all()} if study.requeued else set()
    for trial in study.requeued:
        if client is not None and study.experiment is not None:
            repair_run_of(client, study.experiment, backend.get_trial(id_of(trial)), parents)
        now = "has failed" if trial.state == TrialState.FAIL else "is requeued"
        times = f"{trial.user_attrs[LOSSES]} of {LOSSES_THAT_FAIL}"
        yield Finding("trials", FIXED, f"{study.name}: trial {trial.number} {now}, as its worker died ({times})")


def _ended_runs(
    backend: RetryingStorage, study: _Study, client: MlflowClient | None, running: Sequence[Run]
) -> Iterator[Finding]:
    """Runs of workers that were declared dead before, whose runs nobody has ended since."""
    if client is None or not running:
        return
    if ended := repair_runs(client, running, backend.get_all_trials(study.study_id), study.workers.all()):
        names = ", ".join(str(run.info.run_name) for run in ended)
        yield Finding("runs", FIXED, f"{study.name}: ended the runs of workers that are no more: {names}")


def _unclear(backend: RetryingStorage, study: _Study) -> Iterator[Finding]:
    """The running workers, and what is not known of them."""
    alive = study.workers.all(RUNNING)
    if stale := [worker for worker in alive if _age(worker) > timedelta(seconds=DEAD_AFTER)]:
        message = f"{study.name}: no heartbeat for over {DEAD_AFTER:.0f} s: {', '.join(map(who, stale))}"
        yield Finding("workers", WARNING, message, "bdqm-tune doctor --wait")
    elif alive:
        yield Finding("workers", OK, f"{study.name}: {len(alive)} running: {', '.join(map(who, alive))}")
    if orphans := [claim.trial_id for claim in backend.running(study.study_id) if not claim.worker]:
        numbers = ", ".join(str(backend.get_trial(trial_id).number) for trial_id in orphans)
        message = f"{study.name}: nobody knows who runs trials {numbers}: an older bdqm-tune, or none any more"
        yield Finding("trials", WARNING, message)


def _never_registered(client: MlflowClient, runs: Sequence[Run]) -> Iterator[Finding]:
    """The runs of workers that were killed before they were registered."""
    for run in end_runs_of_killed(client, runs):
        yield Finding("runs", FIXED, f"{run.info.run_name}: ended the run of a worker that was killed as it began")
    for run in runs:
        process, name = run.data.tags.get(PROCESS, ""), run.info.run_name
        if process and not is_here(process) and _moment(run.info.start_time) < datetime.now(UTC) - SENDING:
            host = run.data.tags.get("host", "?")
            message = f"{name}: run {run.info.run_id} says that it runs, and this database knows of no worker with it"
            yield Finding("runs", WARNING, message, f"on {host}, `bdqm-tune doctor`")


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _without_runs(backend: RetryingStorage, study: _Study, deleted: Collection[str]) -> Iterator[Finding]:
    """Trials that have ended, and whose runs somebody deleted."""
    ended = [trial for trial in backend.get_all_trials(study.study_id) if trial.state.is_finished()]
    if gone := {trial.number: run for trial in ended if (run := trial.user_attrs.get(RUN_ID)) in deleted}:
        message = f"{study.name}: the runs of trials {', '.join(map(str, gone))} were deleted in MLflow"
        commands = "; ".join(f"mlflow runs restore --run-id {run_id}" for run_id in list(gone.values())[:SHOWN])
        yield Finding("runs", WARNING, f"{message}, and can be restored until `mlflow gc`", commands)


def repair_runs(
    client: MlflowClient, running: Sequence[Run], trials: Sequence[FrozenTrial], workers: Sequence[Worker]
) -> list[Run]:
    """End those runs of a study whose worker or trial no longer runs; returns them.

    Args:
        running: runs whose status is RUNNING.
        workers: all of the study, of any state. Where there is none, an older bdqm-tune may be running.
    """
    known = {worker.description["run_id"]: worker for worker in workers if "run_id" in worker.description}
    ended = [run for run in running if run.info.run_id in known and has_done(known[run.info.run_id])]
    for run in ended:
        end_run_of(client, known[run.info.run_id], known[run.info.run_id].note or "its process was gone")
    if not all(map(has_done, workers)):
        return ended
    of_trials = {trial.user_attrs[RUN_ID]: STATES[trial.state] for trial in trials if RUN_ID in trial.user_attrs}
    for run in running:
        below = is_of_trial(run) and run.data.tags.get(MLFLOW_PARENT_RUN_ID) in known
        ours = below or (workers and run.info.run_id in of_trials)
        state = of_trials.get(run.info.run_id, "lost")
        if ours and state != "running":
            client.set_tag(run.info.run_id, "trial_state", state)
            client.set_terminated(run.info.run_id, status=STATUS.get(state, "KILLED"))
            ended.append(run)
    return ended


def has_done(worker: Worker) -> bool:
    """Whether a worker logs nothing to MLflow any more."""
    return worker.is_gone or worker.state == DEAD or (worker.state == ENDED and _age(worker) > SENDING)


def _age(worker: Worker) -> timedelta:
    return datetime.now(UTC) - worker.seen
