"""A study's model in MLflow's registry: served and loaded by MLflow, with where it comes from."""

import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import mlflow
from mlflow.entities import LoggedModelStatus, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking import MlflowClient
from optuna import Study

from bdqm_tune.config.backends import find_backend
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.potential import DESCRIPTION, Potential
from bdqm_tune.models.serving import record_of, signature
from bdqm_tune.models.store import existing_run, load_model, model_folder
from bdqm_tune.services.connection import Stores
from bdqm_tune.storage.database import study_lock
from bdqm_tune.study.data import study_data, trial_config
from bdqm_tune.study.selection import ChosenModel, champion_of, chosen_model
from bdqm_tune.study.study import TEST, load_study
from bdqm_tune.tracking.client import http_status, reason, tracking_client
from bdqm_tune.tracking.quiet import quiet_libraries

ALIAS = "champion"
NOT_IN_NAMES = "/:.%\"'"  # of models, as MLflow says of them
LOADER = "bdqm_tune.models.serving"
MODEL_RUN = "model_run_id"  # tag of a version


@dataclass(frozen=True)
class Registered:
    """A version of a registered model."""

    study: str
    name: str
    version: str
    alias: str
    trial: int
    run_id: str  # that the model was trained in
    why: str  # why this model
    known: bool  # it was there already


def register(
    stores: Stores,
    study: str,
    name: str = "",
    alias: str = ALIAS,
    train: str | None = None,
    trial: int | None = None,
) -> Registered:
    """Register the confirmed champion of a study, or else its best trial's model, and let the alias point to it.

    A model that is registered already gets the alias again, and no other version.

    Args:
        name: of the registered model; empty: the study's.
        train: the training file, where it is no longer where it was; the input example is taken from it.
        trial: number of the one to register in their place.

    Raises:
        BadInput: no such study, no complete trial, none picked of a Pareto front, or a name that MLflow does not take.
        BdqmError: a store failed, or does not let this user.
    """
    quiet_libraries()
    found, name = load_study(stores, study), name or study
    if set(name) & set(NOT_IN_NAMES):
        raise BadInput(
            f"{name!r} cannot be registered: MLflow takes none of {' '.join(NOT_IN_NAMES)} in it; "
            "--name and --alias give others"
        )
    chosen = chosen_model(found, trial)
    client = tracking_client(stores)
    try:
        # Of several at once the first registers it, and the others find it.
        with study_lock(stores, study, "register") as check:
            existing_run(client, f"trial {chosen.trial}, {chosen.why}", chosen.run_id)
            made = _version_of(client, name, chosen.run_id)
            known = made is not None
            if made is None:
                made = _create(stores, client, found, chosen, name, train, check)
            client.set_registered_model_alias(name, alias, made.version)
    except (MlflowException, OSError) as error:
        if http_status(error) == 400:
            raise BadInput(f"{name!r} cannot be registered: {reason(error)}; --name and --alias give others") from None
        raise BdqmError(f"cannot register {name!r} in MLflow: {reason(error)}") from None
    return Registered(study, name, str(made.version), alias, chosen.trial, chosen.run_id, chosen.why, known)


def _version_of(client: MlflowClient, name: str, run_id: str) -> ModelVersion | None:
    """The version of a registered model that holds the model of a run."""
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    mine = [one for one in versions if one.name == name and MODEL_RUN in one.tags]
    return max(mine, key=lambda one: int(one.version), default=None)


def _create(
    stores: Stores,
    client: MlflowClient,
    study: Study,
    chosen: ChosenModel,
    name: str,
    train: str | None,
    check: Callable[[], None],
) -> ModelVersion:
    model, run = load_model(chosen.run_id, stores), client.get_run(chosen.trained_in)
    data = study_data(trial_config(client, run), run, train)
    held_out = data.structures.select(data.validation)
    example = held_out.atoms[int(held_out.n_atoms.argmin())]
    check()
    if not client.search_registered_models(f"name = '{name}'"):
        _name_model(client, name)
    tags = _tags(study, chosen, run)
    logged = client.create_logged_model(run.info.experiment_id, name, chosen.run_id, tags, model_type="bdqm-tune")
    status = LoggedModelStatus.FAILED
    try:
        with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
            _write(Path(folder), model, [record_of(example)], Model(run_id=chosen.run_id, model_id=logged.model_id))
            client.log_model_artifacts(logged.model_id, str(Path(folder) / "packed"))
        status = LoggedModelStatus.READY
    finally:
        client.finalize_logged_model(logged.model_id, status)
    check()
    return client.create_model_version(
        name,
        f"models:/{logged.model_id}",
        chosen.run_id,
        tags,
        description=f"Trial {chosen.trial} of study {study.study_name}: {chosen.why}.",
        model_id=logged.model_id,
    )


def _name_model(client: MlflowClient, name: str) -> None:
    """Make a registered model, unless another study's is registered under the same name at this moment."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise


def _write(folder: Path, model: Potential | Ensemble, example: list[dict[str, object]], packed: Model) -> None:
    """Write the model in MLflow's form: no pickle, no code, but the name of what reads it."""
    inner = folder / model_folder(model)
    model.save(inner)
    for name in ("mlflow.pyfunc", "mlflow.models.model"):  # what they say of their doings
        logging.getLogger(name).setLevel(logging.WARNING)
    mlflow.pyfunc.save_model(
        folder / "packed",
        loader_module=LOADER,
        data_path=str(inner),
        mlflow_model=packed,
        signature=signature(model),
        input_example=example,
        # Given, they are not guessed at, which takes seconds.
        pip_requirements=[f"{package}=={version(package)}" for package in ("bdqm-tune", "mlflow", *_packages(inner))],
    )


def _packages(folder: Path) -> list[str]:
    """What reading a model, or the members of an ensemble, needs beside this package."""
    described = [json.loads(file.read_bytes()) for file in sorted(folder.rglob(DESCRIPTION))]
    backends = {str(each.get("backend", "native")) for each in described}
    return sorted({package for name in backends for package in find_backend(name).packages})


def _tags(study: Study, chosen: ChosenModel, run: Run) -> dict[str, str]:
    """Where a model comes from."""
    run_tags = run.data.tags
    tags: dict[str, str] = {
        MODEL_RUN: chosen.run_id,
        "study": study.study_name,
        "trial": str(chosen.trial),
        **({} if chosen.is_ensemble else {"seed": run.data.params["seed"]}),
        "train_digest": run_tags["train_digest"],
        "validation_digest": run_tags["validation_digest"],
        **{name: run_tags[name] for name in ("git_commit", "git_dirty") if name in run_tags},
    }
    if test := study.user_attrs.get(TEST):
        tags["test_digest"] = test["digest"]
    champion = champion_of(study)
    if champion is not None and champion.run_id == chosen.run_id:
        tags |= {
            "confirmation_run_id": champion.confirmation_run_id,
            "confirm_run_ids": ", ".join(champion.run_ids),
        }
    return tags
