"""What MLflow's environment variables say of a new run: which one to log to, and in which experiment.

`mlflow run` sets MLFLOW_RUN_ID and MLFLOW_EXPERIMENT_ID for the command that it starts; so may a user's pipeline.
"""

import os
import re
from collections.abc import Mapping, MutableMapping
from itertools import chain

from mlflow.entities import Experiment, LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from bdqm_tune.errors import BadInput
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.tracking.client import http_status, is_passing
from bdqm_tune.tracking.experiments import active_experiment, experiment_of
from bdqm_tune.tracking.recoverable_run import say
from bdqm_tune.tracking.search import runs_named

RUN_ID, EXPERIMENT_NAME, EXPERIMENT_ID = "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"
GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # as in luminous-shad-146, which MLflow gives a run without a name
CREATION = "creation_id"  # tag by which a run is found if the answer to its creation was lost
BEFORE_ITS_END = ("RUNNING", "SCHEDULED")  # of a run's status


def given_run(client: MlflowClient, environ: MutableMapping[str, str] = os.environ) -> Run | None:
    """The run that MLFLOW_RUN_ID names, which is taken out of the environment; None if it is not set.

    Raises:
        BadInput: there is no such run in this tracking store, or it or its experiment was deleted.
    """
    run_id = environ.get(RUN_ID)
    if not run_id:
        return None
    store = without_secrets(client.tracking_uri)
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if http_status(error) not in (400, 404) or is_passing(error):
            raise
        raise BadInput(
            f"{RUN_ID} names the run {run_id!r}, which is not in the tracking store {store}: let MLFLOW_TRACKING_URI "
            f"name the store that has it, or `unset {RUN_ID}`"
        ) from None
    if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
        raise BadInput(
            f"{RUN_ID} names the run {run_id}, which was deleted: `mlflow runs restore --run-id {run_id}` brings it "
            f"back; or `unset {RUN_ID}`"
        )
    experiment = _find(client, run.info.experiment_id)
    if experiment is not None and experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        raise BadInput(
            f"{RUN_ID} names the run {run_id} of the experiment {experiment.name!r}, which was deleted: `mlflow "
            f"experiments restore -x {experiment.experiment_id}` brings it back; or `unset {RUN_ID}`"
        )
    # Left in the environment, MLflow would let it override the parent of every run that is made here.
    del environ[RUN_ID]
    return run


def adopted_run(
    client: MlflowClient, given: Run | None, experiment_id: str, name: str, creation_id: str = ""
) -> Run | None:
    """The given run, if it is in that experiment, has not ended, and nothing else of ours is logged to it.

    So the first command under one MLFLOW_RUN_ID adopts the run; for others it is the parent of runs of their own, as
    parameters cannot change, and a run is of one kind.

    Args:
        name: that the run gets, unless the user named it.
        creation_id: by which this process knows that it has adopted the run before, and the answer was lost.
    """
    if given is None or given.info.experiment_id != experiment_id:
        return None
    run = client.get_run(given.info.run_id)
    if creation_id and run.data.tags.get(CREATION) == creation_id:
        return run
    if "kind" in run.data.tags or run.info.status not in BEFORE_ITS_END:
        return None
    if GENERATED_NAME.fullmatch(run.info.run_name or ""):
        client.update_run(run.info.run_id, name=name)
    return run


def parent_tag(given: Run | None) -> dict[str, str]:
    """The tag of a run below the given one; empty if none is given."""
    return {} if given is None else {MLFLOW_PARENT_RUN_ID: given.info.run_id}


def chosen_experiment(
    client: MlflowClient, study: str, recorded: str, given: Run | None, environ: Mapping[str, str], restore: bool
) -> str:
    """The id of the experiment for the runs of a study, which is made if it is named and there is none.

    Args:
        recorded: id of the one that the study has; "": none.
        restore: restore it if it was deleted.

    Raises:
        BadInput: it was deleted, and is not to be restored; or a variable of MLflow names none.
    """
    if recorded and (known := _experiment_of_study(client, study, recorded)) is not None:
        if elsewhere := _elsewhere(known, given, environ):
            say(f"study {study!r} stays in its MLflow experiment {known.name!r}, though {elsewhere}")
        return active_experiment(client, known, restore)
    if given is not None:
        return str(given.info.experiment_id)
    return _named_experiment(client, environ, restore) or experiment_of(client, study, restore)


def _named_experiment(client: MlflowClient, environ: Mapping[str, str], restore: bool) -> str:
    """The id of the experiment that MLflow's variables name, as MLflow itself understands them; "" if none is set."""
    name, experiment_id = environ.get(EXPERIMENT_NAME), environ.get(EXPERIMENT_ID)
    if name:
        named = client.get_experiment_by_name(name)
        if named is not None and experiment_id and named.experiment_id != experiment_id:
            raise BadInput(
                f"{EXPERIMENT_NAME}={name!r} is the experiment {named.experiment_id}, and {EXPERIMENT_ID} is "
                f"{experiment_id!r}: unset one of the two"
            )
        return experiment_of(client, name, restore, f"unset {EXPERIMENT_NAME}")
    if not experiment_id:
        return ""
    experiment = _find(client, experiment_id)
    if experiment is None:
        store = without_secrets(client.tracking_uri)
        raise BadInput(
            f"{EXPERIMENT_ID} is {experiment_id!r}, and there is no such experiment in the tracking store {store}: "
            f"`mlflow experiments search` lists those there are; or `unset {EXPERIMENT_ID}`"
        )
    return active_experiment(client, experiment, restore, f"unset {EXPERIMENT_ID}")


def _experiment_of_study(client: MlflowClient, study: str, experiment_id: str) -> Experiment | None:
    """The experiment of an id, if it has runs of the study.

    None: this is another tracking store, whose experiments have the same ids, or it was removed for good.
    """
    experiment = _find(client, experiment_id)
    if experiment is None:
        return None
    runs = chain.from_iterable(runs_named(client, study, [experiment_id], deleted) for deleted in (False, True))
    return experiment if next(runs, None) is not None else None


def _find(client: MlflowClient, experiment_id: str) -> Experiment | None:
    try:
        return client.get_experiment(experiment_id)
    except MlflowException as error:
        if http_status(error) in (400, 404) and not is_passing(error):
            return None
        raise


def _elsewhere(known: Experiment, given: Run | None, environ: Mapping[str, str]) -> str:
    """Which variable names another experiment than the study's; "" if none does."""
    if given is not None:
        return "" if given.info.experiment_id == known.experiment_id else f"the run of {RUN_ID} is in another one"
    if name := environ.get(EXPERIMENT_NAME):
        return "" if name == known.name else f"{EXPERIMENT_NAME} is {name!r}"
    other = environ.get(EXPERIMENT_ID) or known.experiment_id
    return "" if other == known.experiment_id else f"{EXPERIMENT_ID} is {other!r}"
