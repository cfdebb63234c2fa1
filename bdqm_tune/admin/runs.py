"""The MLflow runs that belong to a study, in whatever experiment they are."""

from collections.abc import Sequence

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from optuna.trial import FrozenTrial

from bdqm_tune.study.study import RUN_ID
from bdqm_tune.tracking.client import http_status
from bdqm_tune.tracking.search import search
from bdqm_tune.workers.registry import Worker


def runs_of_study(
    client: MlflowClient, name: str, trials: Sequence[FrozenTrial], workers: Sequence[Worker]
) -> list[Run]:
    """The runs of a study's trials and workers, and of what was done with its models; those last that lead to others.

    Another study of the same name, in another database, may have runs in the same store: those are its own.

    Raises:
        MlflowException: the store failed.
    """
    # Within quotes MLflow's filters know no others of that kind.
    asked = f"tags.study = '{name}'" if "'" not in name else "tags.study LIKE '%'"
    tagged = {run.info.run_id: run for run in search(client, asked) if run.data.tags.get("study") == name}
    of_trials = {trial.user_attrs[RUN_ID] for trial in trials if RUN_ID in trial.user_attrs}
    of_workers = {worker.description["run_id"] for worker in workers if "run_id" in worker.description}
    parents = {_parent(tagged[run_id]) for run_id in of_trials & tagged.keys()} & tagged.keys()
    known = of_trials | of_workers | parents
    found = [tagged[run_id] for run_id in tagged if run_id in of_trials]
    untagged = sorted((of_trials | of_workers) - tagged.keys())
    found += [run for run_id in untagged for run in _without_tags(client, run_id)]
    found += [run for run_id, run in tagged.items() if run_id in (of_workers | parents) - of_trials]
    while more := [run for run_id, run in tagged.items() if run_id not in known and _leads_to(run) & known]:
        known |= {run.info.run_id for run in more}
        found += more
    return found[::-1]


def _leads_to(run: Run) -> set[str]:
    """The runs that a run is a part of, or used the models of."""
    tags = run.data.tags
    named = {_parent(run), tags.get("model_run_id", ""), *tags.get("model_run_ids", "").split(", ")}
    return named - {""}


def _parent(run: Run) -> str:
    return str(run.data.tags.get(MLFLOW_PARENT_RUN_ID, ""))


def _without_tags(client: MlflowClient, run_id: str) -> list[Run]:
    """A run that has not the study's tag: of a worker that was ended before, or taken out by hand; empty if none is."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if http_status(error) == 404:
            return []
        raise
    return [run] if run.info.lifecycle_stage == "active" and "study" not in run.data.tags else []
