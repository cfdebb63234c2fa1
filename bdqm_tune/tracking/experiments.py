"""MLflow's experiments: found by name, made, restored."""

from mlflow.entities import Experiment, LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bdqm_tune.errors import BadInput
from bdqm_tune.tracking.recoverable_run import active_run, say
from bdqm_tune.tracking.search import search

REPLACES = "replaces_run_id"  # tag of a run that took the place of a deleted one


OTHER_STUDY = "choose another name with --study"


def experiment_of(client: MlflowClient, name: str, restore: bool, otherwise: str = OTHER_STUDY) -> str:
    """The id of the experiment of that name, which is made if there is none.

    Args:
        restore: restore it if it was deleted.
        otherwise: what to do instead of restoring it, for the message.

    Raises:
        BadInput: it was deleted, and is not to be restored.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # which another worker made meanwhile
            if experiment is None:
                raise
    return active_experiment(client, experiment, restore, otherwise)


def active_experiment(client: MlflowClient, experiment: Experiment, restore: bool, otherwise: str = OTHER_STUDY) -> str:
    """The id of an experiment, which is restored if it was deleted; raises BadInput if it is not to be restored."""
    if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        if not restore:
            raise BadInput(
                f"the MLflow experiment {experiment.name!r} is deleted; restore it with "
                f"`mlflow experiments restore -x {experiment.experiment_id}`, or {otherwise}"
            )
        restore_experiment(client, experiment)
    return str(experiment.experiment_id)


def restore_experiment(client: MlflowClient, experiment: Experiment) -> None:
    """Restore a deleted experiment with its runs, except those that were replaced."""
    experiment_id = experiment.experiment_id
    try:
        client.restore_experiment(experiment_id)
        say(f"the experiment {experiment.name!r} was deleted in MLflow; it is restored, as its study continues")
    except MlflowException:
        # Another worker may have restored it meanwhile.
        if client.get_experiment(experiment_id).lifecycle_stage != LifecycleStage.ACTIVE:
            raise
    for run in list(search(client, f"tags.{REPLACES} LIKE '%'", [experiment_id])):
        if active_run(client, run.data.tags[REPLACES]) is not None:
            client.delete_run(run.data.tags[REPLACES])
