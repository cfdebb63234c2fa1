"""MLflow runs of workers, kept in step with the study: of those that are lost, and of those whose run was deleted."""

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
from bdqm_tune.study.study import EXPERIMENT, RUN_ID
from bdqm_tune.tracking.client import is_passing, reason
from bdqm_tune.tracking.search import search
from bdqm_tune.tracking.tracker import PROCESS, Tracker
from bdqm_tune.tracking.trial_run import STATUS
from bdqm_tune.workers.heartbeat import Heartbeat
from bdqm_tune.workers.registry import Worker

LOST_STATES = {TrialState.WAITING: "waiting", TrialState.FAIL: "failed"}  # of a trial whose worker is lost

_log = logging.getLogger(__name__)


def end_run_of(client: MlflowClient, worker: Worker, why: str) -> bool:
    """End the run of a worker that is lost, unless it has ended; whether it was this call that did."""
    with _if_it_may_be("the run of a lost worker"):
        if run_id := worker.description.get("run_id"):
            run = client.get_run(run_id)
            if run.info.status == "RUNNING":
                client.set_tag(run_id, "reason", f"its worker was lost: {why}")
                client.set_terminated(run_id, status="KILLED")
                return True
    return False


def end_runs_of_killed(client: MlflowClient, runs: Iterable[Run]) -> list[Run]:
    """End those of the runs whose workers are gone from this machine, and give them.

    A worker that is killed as it begins is not in the table of workers yet, so that no other declares it dead.
    """
    ended = []
    with _if_it_may_be("the run of a killed worker"):
        for run in runs:
            if is_gone(run.data.tags.get(PROCESS, "")):
                client.set_tag(run.info.run_id, "reason", "its worker was lost: its process was gone")
                client.set_terminated(run.info.run_id, status="KILLED")
                ended.append(run)
    return ended


def end_unnamed_runs_of(
    client: MlflowClient, experiment_id: str, worker: Worker, trials: Callable[[], Sequence[FrozenTrial]]
) -> None:
    """End the runs of trials that a lost worker made and could not name in the study: no trial has them.

    Args:
        trials: gives those of the study; called only where the worker has runs that are said to run.
    """
    with _if_it_may_be("the runs of a lost worker"):
        parent = worker.description.get("run_id", "none")
        said = f"tags.{MLFLOW_PARENT_RUN_ID} = '{parent}' AND attributes.status = 'RUNNING'"
        if running := list(search(client, said, [experiment_id])):
            named = {trial.user_attrs.get(RUN_ID) for trial in trials()}
            for run in running:
                if run.info.run_id not in named:
                    client.set_tag(run.info.run_id, "trial_state", "lost")
                    client.set_terminated(run.info.run_id, status="KILLED")


def set_right_run_of(client: MlflowClient, experiment_id: str, trial: FrozenTrial, parents: Collection[str]) -> int:
    """Let the runs of a trial whose worker is lost say what the trial is now; how many were changed.

    Args:
        parents: runs of all who have worked on the study. Another study of its name, in another database, may have
            runs in the same experiment.
    """
    changed = 0
    with _if_it_may_be(f"the run of trial {trial.number}"):
        for run in _begun(client, experiment_id, trial.number):
            ours = run.info.run_id == trial.user_attrs.get(RUN_ID)
            if not ours and run.data.tags.get(MLFLOW_PARENT_RUN_ID) not in parents:
                continue
            if not ours:  # made by a worker that was lost before it could say so
                state, status = "lost", "KILLED"
            elif trial.state in LOST_STATES:
                state = LOST_STATES[trial.state]
                status = STATUS[state]
            else:  # another worker has the trial by now, and goes on in the run
                continue
            client.set_tag(run.info.run_id, "trial_state", state)
            client.set_terminated(run.info.run_id, status=status)
            changed += 1
    return changed


def follow_run(tracker: Tracker, study: Study, lease: Heartbeat) -> None:
    """Let the study and the table of workers know where a worker's run is, now and when another one takes its place."""

    def renewed(run: Run) -> None:
        if study.user_attrs.get(EXPERIMENT) != run.info.experiment_id:
            study.set_user_attr(EXPERIMENT, run.info.experiment_id)
        lease.describe("run_id", run.info.run_id)

    tracker.on_renewed = renewed
    renewed(tracker.run)


@contextmanager
def _if_it_may_be(what: str) -> Iterator[None]:
    """Leave what MLflow refuses to change, as a run that was deleted or is another user's: no reason to end."""
    try:
        yield
    except MlflowException as error:
        if is_passing(error):
            raise
        _log.warning("%s could not be set right: %s", what, reason(error))


def _begun(client: MlflowClient, experiment_id: str, number: int) -> list[Run]:
    """The runs of trials of this number that run, by their status or, where somebody changed that, by their tag."""
    runs = client.search_runs([experiment_id], f"tags.trial_number = '{number}'")
    return [run for run in runs if run.info.status == "RUNNING" or run.data.tags.get("trial_state") == "running"]
