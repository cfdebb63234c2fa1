"""Deletion of a study in both stores: in MLflow first, so that a deletion that was cut off can be repeated."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlflow
import optuna
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial

from bdqm_tune.admin.runs import runs_of_study
from bdqm_tune.errors import BdqmError
from bdqm_tune.progress import track
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.optuna_private import id_of
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.storage.cache import Cache
from bdqm_tune.storage.database import not_made_yet, opened, study_lock
from bdqm_tune.structures.sealed import remove_sealed
from bdqm_tune.study.checkpoints import checkpoint_folder
from bdqm_tune.study.study import RUN_ID, TEST, no_such_study, studies_beside, study_id_of
from bdqm_tune.tracking.client import reason, tracking_client
from bdqm_tune.tracking.quiet import quiet_libraries
from bdqm_tune.tracking.search import search, tracking_not_made_yet, versions_of
from bdqm_tune.workers.registry import RUNNING, Worker, Workers, who


@dataclass(frozen=True)
class Belongings:
    """What is deleted with a study."""

    study: str
    trials: int
    runs: tuple[str, ...]  # ids, in the order of deletion
    runs_elsewhere: int  # of trials, that are not in this tracking store
    experiment: str | None  # id of MLflow's experiment, if it has no other runs
    models: tuple[str, ...]  # versions of registered models, which lie in these runs
    tracking_uri: str  # without a password


def belongings(stores: Stores, name: str) -> Belongings:
    """What would be deleted with a study; nothing is changed.

    Raises:
        BadInput: there is no such study.
        BdqmError: workers run, or a store failed.
    """
    quiet_libraries()
    if not_made_yet(stores):
        raise no_such_study(stores, name, [])
    with opened(stores) as storage:
        trials, workers = idle(stores, storage, name)
    uri = without_secrets(stores.tracking_uri or mlflow.get_tracking_uri())
    of_trials = {trial.user_attrs[RUN_ID] for trial in trials if RUN_ID in trial.user_attrs}
    if tracking_not_made_yet(stores):
        return Belongings(name, len(trials), (), len(of_trials), None, (), uri)
    try:
        client = tracking_client(stores)
        runs = tuple(run.info.run_id for run in runs_of_study(client, name, trials, workers))
        experiment = _emptied(client, name, runs)
        return Belongings(
            study=name,
            trials=len(trials),
            runs=runs,
            runs_elsewhere=len(of_trials - set(runs)),
            experiment=experiment.experiment_id if experiment else None,
            models=tuple(versions_of(client, set(runs))),
            tracking_uri=uri,
        )
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot read the runs of {name!r} in MLflow: {reason(error)}") from None


def delete_study(stores: Stores, found: Belongings) -> None:
    """Delete a study, its workers and its runs; the latter as MLflow does, so that they can be restored.

    Raises:
        BadInput: there is no such study any more.
        BdqmError: workers run, or a store failed; what was deleted before stays deleted, and it may be repeated.
    """
    with study_lock(stores, found.study) as check, opened(stores) as storage:  # so that no worker starts on it
        idle(stores, storage, found.study)
        check()
        _delete_runs(stores, found)
        check()
        study_id = storage.get_study_id_from_name(found.study)
        _remove_from_home(stores, storage, storage.get_study_user_attrs(study_id), study_id)
        Workers(storage.backend.engine, storage.backend.retry, study_id).forget()
        storage.delete_study(study_id)


def idle(stores: Stores, storage: Cache, name: str) -> tuple[list[FrozenTrial], list[Worker]]:
    """The trials and workers of a study that has no running workers.

    Raises:
        BadInput: there is no such study.
        BdqmError: workers run, as far as is known.
    """
    study_id = study_id_of(storage, name)
    if study_id is None:
        raise no_such_study(stores, name, sorted(optuna.get_all_study_names(storage)))
    workers = Workers(storage.backend.engine, storage.backend.retry, study_id).all()
    if running := [who(worker) for worker in workers if worker.state == RUNNING and not worker.is_gone]:
        raise BdqmError(
            f"workers run on study {name!r}: {', '.join(running)}; end them first; "
            "if they are no more, `bdqm-tune doctor --wait` sees that within two minutes"
        )
    return storage.backend.get_all_trials(study_id), workers


def _emptied(client: MlflowClient, name: str, runs: tuple[str, ...]) -> Experiment | None:
    """The experiment that is named like the study, if it has no other runs, and is not where MLflow puts all others."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage == "deleted" or name == Experiment.DEFAULT_EXPERIMENT_NAME:
        return None
    others = (run for run in search(client, "", [experiment.experiment_id]) if run.info.run_id not in runs)
    return None if any(others) else experiment


def _delete_runs(stores: Stores, found: Belongings) -> None:
    if not found.runs and found.experiment is None:
        return
    client = tracking_client(stores)
    try:
        for run_id in track(found.runs, "Runs", len(found.runs)):
            client.delete_run(run_id)
        if found.experiment is not None:
            # Under its name, MLflow would keep the next study of that name from making one.
            client.rename_experiment(found.experiment, f"{found.study} (deleted, {found.experiment})")
            client.delete_experiment(found.experiment)
    except (MlflowException, OSError) as error:
        raise BdqmError(
            f"cannot delete the runs of {found.study!r} in MLflow: {reason(error)}; "
            "the study is still there, and `bdqm-tune delete-study` may be repeated"
        ) from None


def _others_have(stores: Stores, storage: Cache, study_id: int, digest: str) -> bool:
    """Whether other studies have this test split, here or where `copy-study` brings one; also where nobody knows."""
    others = [other for other in storage.get_all_studies() if id_of(other) != study_id]
    try:
        others += studies_beside(stores)
    except BdqmError:
        return True
    return digest in [other.user_attrs.get(TEST, {}).get("digest") for other in others]


def _remove_from_home(stores: Stores, storage: Cache, attributes: Mapping[str, Any], study_id: int) -> None:
    """Remove what the study alone has in `BDQM_HOME`; features are every study's."""
    test = attributes.get(TEST)
    if test is not None and not _others_have(stores, storage, study_id, test["digest"]):
        remove_sealed(stores.home, test["digest"])
    name = storage.get_study_name_from_id(study_id)
    shutil.rmtree(checkpoint_folder(stores.home, name, attributes), ignore_errors=True)
