"""MLflow runs of workers, kept in step with the study: of dead workers, and of those whose run was deleted."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.process import is_gone
from bdqm_tune.study.study import EXPERIMENT, RUN_ID, STATES
from bdqm_tune.tracking.client import is_passing, reason
from bdqm_tune.tracking.search import search
from bdqm_tune.tracking.tracker import PROCESS, Tracker
from bdqm_tune.tracking.trial_run import STATUS
from bdqm_tune.workers.heartbeat import Heartbeat
from bdqm_tune.workers.registry import Worker

REQUEUED_STATES = {TrialState.WAITING: "waiting", TrialState.FAIL: "failed"}  # of a trial of a dead worker

_log = logging.getLogger(__name__)


def end_run_of(client: MlflowClient, worker: Worker, why: str) -> bool:
    """End the run of a dead worker, unless it has ended; True if this call did."""
    with if_it_may_be("the run of a dead worker"):
        if run_id := worker.description.get("run_id"):
            run = client.get_run(run_id)
            if run.info.status == "RUNNING":
                _end(client, run_id, "KILLED", "reason", f"its worker died: {why}")
                return True
    return False


def end_runs_of_killed(client: MlflowClient, runs: Iterable[Run]) -> list[Run]:
    """End those of the runs whose workers are gone from this machine, and give them.

    A worker that is killed as it begins is not in the table of workers yet, so that no other declares it dead.
    """
    ended = []
    with if_it_may_be("the run of a killed worker"):
        for run in runs:
            if is_gone(run.data.tags.get(PROCESS, "")):
                _end(client, run.info.run_id, "KILLED", "reason", "its worker died: its process was gone")
                ended.append(run)
    return ended


def end_run_of_finished(client: MlflowClient, trial: FrozenTrial) -> None:
    """End the run of a trial that has finished, if it is still running: somebody ended the trial by hand."""
    with if_it_may_be(f"the run of trial {trial.number}"):
        run_id = trial.user_attrs.get(RUN_ID) if trial.state.is_finished() else None
        if run_id is not None and client.get_run(run_id).info.status == "RUNNING":
            _end(client, run_id, STATUS[STATES[trial.state]], "trial_state", STATES[trial.state])


def end_unnamed_runs_of(
    client: MlflowClient, experiment_id: str, worker: Worker, trials: Callable[[], Sequence[FrozenTrial]]
) -> None:
    """End the runs that a dead worker made and could not record in the study: no trial refers to them.

    Args:
        trials: returns those of the study; called only where the worker has running runs.
    """
    with if_it_may_be("the runs of a dead worker"):
        parent = worker.description.get("run_id", "none")
        filter_string = f"tags.{MLFLOW_PARENT_RUN_ID} = '{parent}' AND attributes.status = 'RUNNING'"
        if running := list(search(client, filter_string, [experiment_id])):
            named = {trial.user_attrs.get(RUN_ID) for trial in trials()}
            for run in running:
                if is_of_trial(run) and run.info.run_id not in named:
                    _end(client, run.info.run_id, "KILLED", "trial_state", "lost")


def is_of_trial(run: Run) -> bool:
    """Whether a run is of a trial; others below a worker's are of other studies, under one MLFLOW_RUN_ID."""
    return "trial_number" in run.data.tags


def repair_run_of(client: MlflowClient, experiment_id: str, trial: FrozenTrial, parents: Collection[str]) -> int:
    """Set the status of a trial's runs, whose worker is dead, to that of the trial; returns how many were changed.

    Args:
        parents: runs of all workers of the study. Another study of its name, in another database, may have
            runs in the same experiment.
    """
    changed = 0
    with if_it_may_be(f"the run of trial {trial.number}"):
        for run in _begun(client, experiment_id, trial.number):
            ours = run.info.run_id == trial.user_attrs.get(RUN_ID)
            if not ours and run.data.tags.get(MLFLOW_PARENT_RUN_ID) not in parents:
                continue
            if not ours:  # made by a worker that died before it could record it
                state, status = "lost", "KILLED"
            elif trial.state in REQUEUED_STATES:
                state = REQUEUED_STATES[trial.state]
                status = STATUS[state]
            else:  # another worker has claimed the trial by now, and resumes the run
                continue
            _end(client, run.info.run_id, status, "trial_state", state)
            changed += 1
    return changed


def follow_run(tracker: Tracker, study: Study, heartbeat: Heartbeat) -> None:
    """Record a worker's run in the study and the registry, now and whenever the run is replaced."""

    def renewed(run: Run) -> None:
        if study.user_attrs.get(EXPERIMENT) != run.info.experiment_id:
            study.set_user_attr(EXPERIMENT, run.info.experiment_id)
        heartbeat.describe("run_id", run.info.run_id)

    tracker.on_renewed = renewed
    renewed(tracker.run)


def _end(client: MlflowClient, run_id: str, status: str, tag: str, value: str) -> None:
    """Set the final status of a run, and before it the tag that explains it."""
    client.set_tag(run_id, tag, value)
    client.set_terminated(run_id, status=status)


@contextmanager
def if_it_may_be(what: str) -> Iterator[None]:
    """Log and ignore it if MLflow refuses a change, as of a run that was deleted or is another user's."""
    try:
        yield
    except MlflowException as error:
        if is_passing(error):
            raise
        _log.warning("%s could not be repaired: %s", what, reason(error))


def _begun(client: MlflowClient, experiment_id: str, number: int) -> list[Run]:
    """The running runs of trials of this number: by status or, where somebody changed that, by tag."""
    runs = client.search_runs([experiment_id], f"tags.trial_number = '{number}'")
    return [run for run in runs if run.info.status == "RUNNING" or run.data.tags.get("trial_state") == "running"]
