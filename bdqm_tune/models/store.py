"""Where a trained model is: in a folder, in a run, or in MLflow's registry."""

import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar, cast, get_args

import mlflow
from mlflow.entities import LifecycleStage, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.tracking import MlflowClient
from sqlalchemy import make_url

from bdqm_tune.errors import BadInput, BdqmError, shown
from bdqm_tune.learning.ensemble import ENSEMBLE, Ensemble
from bdqm_tune.learning.potential import Potential, Precision, read_potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.tracking.client import ARTIFACTS, http_status, is_passing, reason, tracking_client
from bdqm_tune.tracking.quiet import quiet_libraries
from bdqm_tune.tracking.recoverable_run import active_run

FORMS = "a folder, a run's id, runs:/RUN_ID/model, models:/NAME@ALIAS or models:/NAME/VERSION"
MODEL_FOLDERS = ("model", "ensemble")  # of a run's artifacts
RUN_ID = re.compile(r"[0-9a-f]{32}")
RUN_URI = re.compile(r"runs:/+(?P<run>[^/]+)/(?P<path>.+)")
REGISTRY_URI = re.compile(r"models:/+(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[^/@]+))")

Answer = TypeVar("Answer")


def load_model(model: str, stores: Stores) -> Potential | Ensemble:
    """A potential or an ensemble.

    Args:
        model: a folder, the id of a run, `runs:/RUN_ID/PATH`, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, where the
            version may be `latest`.

    Raises:
        BadInput: there is none; the message says what there is.
        BdqmError: the tracking store that has it does not answer.
    """
    if not is_tracked(model):
        return load_folder(Path(model))
    quiet_libraries()
    client = _client(model, stores)
    with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
        try:
            address = _address(client, model)
            local = mlflow.artifacts.download_artifacts(address, dst_path=folder, tracking_uri=client.tracking_uri)
        except (MlflowException, OSError) as error:
            if is_passing(error):
                where = without_secrets(client.tracking_uri)
                raise BdqmError(f"{model}: cannot be read from {where}: {reason(error)}") from None
            raise BadInput(f"{model}: MLflow has no such model ({reason(error)})") from None
        try:
            return load_folder(Path(local))
        except BadInput as error:
            raise BadInput(str(error).replace(str(local), model)) from None


def is_tracked(model: str) -> bool:
    """Whether a model is in the tracking store, and not in a folder."""
    return not _is_there(Path(model)) and bool(RUN_ID.fullmatch(model) or model.startswith(("runs:", "models:")))


def computed_in(model: Potential | Ensemble, precision: str | None) -> Potential | Ensemble:
    """A model whose network is computed in `float32` or `float64`; None: as it was trained, an ensemble in float64.

    Raises:
        BadInput: another precision, or an ensemble in float32.
    """
    if precision not in (None, *get_args(Precision)):
        raise BadInput(f"precision {shown(precision)}: must be float32 or float64")
    if isinstance(model, Ensemble):
        if precision == "float32":
            raise BadInput("precision float32: an ensemble predicts in float64; leave it out")
        return model
    return model if precision is None else model.in_precision(cast(Precision, precision))


def load_potential(model: str, stores: Stores) -> Potential:
    """The same, where it must be a single potential. Raises BadInput as `load_model`, and for an ensemble."""
    return as_potential(load_model(model, stores), model)


def as_potential(found: Potential | Ensemble, model: str) -> Potential:
    """The model that was found at an address, where it must be a single potential. Raises BadInput for an ensemble."""
    if isinstance(found, Ensemble):
        first = next(iter(found.members))
        raise BadInput(
            f"{model}: is an ensemble; a single potential is needed here: a member of it is one, such as "
            f"{_folder_address(model)}/{first}"
        )
    return found


def _folder_address(model: str) -> str:
    """How the folders in an ensemble are reached."""
    if RUN_ID.fullmatch(model):
        return f"runs:/{model}/{MODEL_FOLDERS[1]}"
    # The registry has the ensemble as a whole.
    return f"runs:/RUN_ID/{MODEL_FOLDERS[1]}" if model.startswith("models:") else model


def model_folder(model: Potential | Ensemble) -> str:
    """The name of the folder in which a run keeps a model of this kind."""
    return MODEL_FOLDERS[isinstance(model, Ensemble)]


def load_folder(folder: Path) -> Potential | Ensemble:
    """The model in a folder, or in what MLflow made of one; of that nothing is executed.

    Raises:
        BadInput: there is none.
    """
    if not _is_there(folder):
        raise BadInput(f"{folder}: no potential there; a model is {FORMS}")
    if (folder / MLMODEL_FILE_NAME).exists():
        packed = [folder / "data" / name for name in MODEL_FOLDERS if (folder / "data" / name).is_dir()]
        if not packed:
            raise BadInput(f"{folder}: a model of MLflow's own kind, not one that `bdqm-tune register` made")
        folder = packed[0]
    return Ensemble.load(folder) if (folder / ENSEMBLE).exists() else read_potential(folder)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for one, for example
        return False


def _client(model: str, stores: Stores) -> MlflowClient:
    """A client for the tracking store, which is not made for this."""
    place = stores.tracking_uri or mlflow.get_tracking_uri()
    if place.startswith("sqlite:") and not Path(make_url(place).database or "").exists():
        raise BadInput(
            f"{model}: there are no runs yet in {place}; go to the folder that `tune` ran in, or set "
            "MLFLOW_TRACKING_URI as it was there"
        )
    return tracking_client(stores)


def run_behind(model: str, stores: Stores) -> tuple[MlflowClient, Run]:
    """The run that a tracked model was recorded in, and a client for the store that has it.

    Raises:
        BadInput: there is no such run.
        BdqmError: the tracking store does not answer.
    """
    client = _client(model, stores)
    try:
        if found := REGISTRY_URI.fullmatch(model):
            version = registered_version(client, model, found["name"], found["alias"], found["version"])
            run_id = version.run_id or ""
        else:
            run_id = found["run"] if (found := RUN_URI.fullmatch(model)) else model
        run = _found(lambda: client.get_run(run_id))
    except (MlflowException, OSError) as error:
        raise BdqmError(
            f"{model}: cannot be read from {without_secrets(client.tracking_uri)}: {reason(error)}"
        ) from None
    if run is None:
        raise BadInput(f"{model}: its run is not there")
    return client, run


def find_run(run_id: str, stores: Stores) -> tuple[MlflowClient, Run]:
    """A run that has its artifacts, and a client for the store that it is in.

    Raises:
        BadInput: there is no such run, or `gc` removed its artifacts.
        BdqmError: the tracking store does not answer.
    """
    client = _client(run_id, stores)
    try:
        return client, existing_run(client, run_id, run_id)
    except (MlflowException, OSError) as error:
        where = without_secrets(client.tracking_uri)
        raise BdqmError(f"{run_id}: cannot be read from {where}: {reason(error)}") from None


def _address(client: MlflowClient, model: str) -> str:
    """The address of a model's artifacts. Raises BadInput if there is no such model."""
    if RUN_ID.fullmatch(model):
        return f"runs:/{model}/{_folder_in(client, existing_run(client, model, model))}"
    if found := RUN_URI.fullmatch(model):
        existing_run(client, model, found["run"])
        return model
    if found := REGISTRY_URI.fullmatch(model):
        return _registered(client, model, found["name"], found["alias"], found["version"])
    raise BadInput(f"{model}: is no address of a model; it is {FORMS}")


def run_with_model(client: MlflowClient, run_id: str) -> Run | None:
    """A run whose model is still there; None where the run, its files, or its model by `gc`, were removed."""
    run = active_run(client, run_id)
    if run is None or ARTIFACTS in run.data.tags:
        return None
    there = {file.path for file in client.list_artifacts(run_id)}
    return run if there.intersection(MODEL_FOLDERS) else None


def existing_run(client: MlflowClient, model: str, run_id: str) -> Run:
    """The run that has a model.

    Raises:
        BadInput: it was deleted, or `gc` removed its artifacts.
        MlflowException: the tracking store failed.
    """
    run = _found(lambda: client.get_run(run_id))
    if run is None:
        experiments = [experiment.name for experiment in client.search_experiments(max_results=20)]
        where = without_secrets(client.tracking_uri)
        raise BadInput(f"{model}: no run {run_id} in {where}; it has the experiments {_list(experiments)}")
    if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
        raise BadInput(
            f"{model}: its run was deleted in MLflow; until `mlflow gc`, `mlflow runs restore --run-id {run_id}` "
            f"brings it back, or `mlflow experiments restore -x {run.info.experiment_id}` all of its experiment"
        )
    if ARTIFACTS in run.data.tags:
        raise BadInput(f"{model}: the model was removed by `bdqm-tune gc`, which keeps the best trials of every study")
    return run


def _folder_in(client: MlflowClient, run: Run) -> str:
    """The folder of a run's artifacts that holds its model."""
    folders = [file.path for file in client.list_artifacts(run.info.run_id) if file.is_dir]
    for name in MODEL_FOLDERS:
        if name in folders:
            return name
    tags, what = run.data.tags, f"{run.info.run_id}: the run {run.info.run_name} has no model"
    if tags.get("kind") == "study":
        raise BadInput(f"{what}; it is that of the study, whose trials have theirs in runs of their own")
    if "champion_run_id" in tags:
        raise BadInput(f"{what}; it is that of a confirmation, whose champion is {tags['champion_run_id']}")
    if "model_run_id" in tags:
        raise BadInput(f"{what}; it is the evaluation of {tags['model_run_id']}")
    raise BadInput(f"{what}; its trial is {tags.get('trial_state', 'none of a study')}")


def _registered(client: MlflowClient, model: str, name: str, alias: str | None, version: str | None) -> str:
    """The address of what a version of a registered model was made from."""
    version_there = registered_version(client, model, name, alias, version)
    # What `register` made is a copy, which is there when `gc` has removed the run's.
    if (run_id := version_there.run_id) and not str(version_there.source).startswith("models:"):
        existing_run(client, model, run_id)
    return str(client.get_model_version_download_uri(name, str(version_there.version)))


def registered_version(
    client: MlflowClient, model: str, name: str, alias: str | None, version: str | None
) -> ModelVersion:
    """A version of a registered model, by an alias or a number. Raises BadInput if there is none."""
    registered = _found(lambda: client.get_registered_model(name))
    if registered is None:
        names = [entry.name for entry in client.search_registered_models(max_results=20)]
        raise BadInput(f"{model}: no registered model {name!r}; there are: {_list(names)}")
    versions = {str(entry.version): entry for entry in client.search_model_versions(f"name = {quoted(name)}")}
    if alias is not None and alias not in registered.aliases:
        known = [f"{key} (version {value})" for key, value in registered.aliases.items()]
        raise BadInput(
            f"{model}: {name!r} has no alias {alias!r}; it has: {_list(known)}; its versions are: {_list(versions)}"
        )
    number = str(registered.aliases[alias]) if alias is not None else str(version)
    if number == "latest" and versions:
        number = max(versions, key=int)
    if number not in versions:
        raise BadInput(f"{model}: {name!r} has no version {number!r}; its versions are: {_list(versions)}")
    return versions[number]


def quoted(text: str) -> str:
    """A text as MLflow's filters take it, which know no quotes within quotes of the same kind."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def _found(request: Callable[[], Answer]) -> Answer | None:
    """The answer to a request, or None where MLflow says that there is no such thing."""
    try:
        return request()
    except MlflowException as error:
        if http_status(error) in (400, 404) and not is_passing(error):
            return None
        raise


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
