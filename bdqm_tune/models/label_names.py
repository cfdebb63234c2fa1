"""Under which names a model's study read its labels."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bdqm_tune.config.config import Data
from bdqm_tune.config.yaml_files import parse_yaml
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.models.store import MODEL_FOLDERS, is_tracked, run_behind
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.run_contents import CONFIG
from bdqm_tune.tracking.client import is_passing, reason

KEYS = ("energy_key", "forces_key", "stress_key")  # options of `Data`


def label_names(model: str, stores: Stores) -> Data:
    """The names of labels in the files that a model was trained on; the usual ones where that is not known.

    Of a model in MLflow they are in the configuration of its run, or of one of its study's; of a folder in the
    `config.yaml` beside it, as `reproduce --export` and a run's artifacts have it.

    Raises:
        BdqmError: the tracking store does not answer.
    """
    for text in _tracked(model, stores) if is_tracked(model) else _beside(Path(model)):
        if (names := _read(text)) is not None:
            return names
    return Data()


def _read(text: str) -> Data | None:
    """The names in the text of a configuration; None: it is none."""
    try:
        content = parse_yaml(text)
    except BadInput:
        return None
    options: Any = content.get("data") if isinstance(content, Mapping) else None
    if not isinstance(options, Mapping):
        return None
    return Data(**{key: options[key] for key in KEYS if isinstance(options.get(key), str) and options[key]})


def _beside(folder: Path) -> Iterator[str]:
    path = folder.absolute().parent / CONFIG
    try:
        if folder.name in MODEL_FOLDERS and path.is_file():
            yield path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return


def _tracked(model: str, stores: Stores) -> Iterator[str]:
    try:
        client, run = run_behind(model, stores)
    except BadInput:  # a registered model that outlived its run
        return
    try:
        yield from (text for one in _runs(client, run) if (text := _configuration(client, one)) is not None)
    except (MlflowException, OSError) as error:
        raise BdqmError(f"{model}: the names of its labels cannot be read: {reason(error)}") from None


def _runs(client: MlflowClient, run: Run) -> Iterator[str]:
    """Runs that may have the configuration: the model's own, those of its members, those of its study."""
    yield run.info.run_id
    yield from filter(None, run.data.tags.get("model_run_ids", "").split(", "))
    if study := run.data.tags.get("study"):
        runs = client.search_runs([run.info.experiment_id], "tags.kind = 'study'")
        yield from (one.info.run_id for one in runs if one.data.tags.get("study") == study)


def _configuration(client: MlflowClient, run_id: str) -> str | None:
    """The text of a run's configuration; None: it has none."""
    with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
        try:
            if not any(file.path == CONFIG for file in client.list_artifacts(run_id)):
                return None
            path = mlflow.artifacts.download_artifacts(
                f"runs:/{run_id}/{CONFIG}", dst_path=folder, tracking_uri=client.tracking_uri
            )
            return Path(path).read_text(encoding="utf-8")
        except (MlflowException, OSError, ValueError) as error:
            if isinstance(error, MlflowException) and is_passing(error):
                raise
            return None
