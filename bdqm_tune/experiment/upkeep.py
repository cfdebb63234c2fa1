"""MLflow runs of workers that are lost, set right."""

from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.experiment.study import RUN_ID
from bdqm_tune.experiment.trial_run import STATUS
from bdqm_tune.experiment.workers import Worker

LOST_STATES = {TrialState.WAITING: "waiting", TrialState.FAIL: "failed"}  # of a trial whose worker is lost


def end_run_of(client: MlflowClient, worker: Worker) -> None:
    """End the run of a worker that is lost, unless it has ended."""
    if run_id := worker.description.get("run_id"):
        run = client.get_run(run_id)
        if run.info.status == "RUNNING":
            client.set_tag(run_id, "reason", f"its worker was lost: {worker.note}")
            client.set_terminated(run_id, status="KILLED")


def set_right_run_of(client: MlflowClient, experiment_id: str, study: str, trial: FrozenTrial) -> None:
    """Let the run of a trial whose worker is lost say what the trial is now."""
    for run in _running(client, experiment_id, study, trial.number):
        if run.info.run_id == trial.user_attrs.get(RUN_ID):
            state = LOST_STATES[trial.state]
            status = STATUS[state]
        else:  # made by a worker that was lost before it could say so
            state, status = "lost", "KILLED"
        client.set_tag(run.info.run_id, "trial_state", state)
        client.set_terminated(run.info.run_id, status=status)


def _running(client: MlflowClient, experiment_id: str, study: str, number: int) -> list[Run]:
    """The runs of a trial that are said to be running."""
    asked = f"tags.trial_number = '{number}' and attributes.status = 'RUNNING'"
    return [run for run in client.search_runs([experiment_id], asked) if run.data.tags.get("study") == study]
