"""The training file of a study read again, split as it was for its trials."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import optuna
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray

from bdqm_tune.config.backends import refuse_foreign_code
from bdqm_tune.config.config import Config, load_config
from bdqm_tune.config.earlier_training import with_earlier_training
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.learning.training_data import Indices, read_training, split_training
from bdqm_tune.structures import Structures, Unlabelled, find_copies, shown_source
from bdqm_tune.structures.sealed import is_sealed, read_sealed
from bdqm_tune.study.descriptor_record import with_earlier
from bdqm_tune.study.run_contents import LEFT_OUT
from bdqm_tune.study.study import TEST


@dataclass(frozen=True)
class StudyData:
    """Structures, and which of them trials were trained and validated on; with folds, all of them both."""

    structures: Structures
    indices: Indices

    @property
    def train(self) -> NDArray[np.int64]:
        return self.indices.train

    @property
    def validation(self) -> NDArray[np.int64]:
        return self.indices.validation

    @property
    def used(self) -> NDArray[np.int64]:
        """Those of either split, each once, ascending."""
        return np.union1d(self.train, self.validation)


def trial_config(client: MlflowClient, run: Run, to_train: bool = False) -> Config:
    """The configuration of a trial, from the artifacts of its run. Raises MlflowException or OSError.

    What did not exist yet when it was written has the value that it had then.

    Args:
        to_train: it is to be trained again, so that what its backend runs is from the store.

    Raises:
        BadInput: `to_train`, its backend's options would have code run, and the user does not allow it.
    """
    with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
        path = mlflow.artifacts.download_artifacts(
            f"runs:/{run.info.run_id}/config.yaml", dst_path=folder, tracking_uri=client.tracking_uri
        )
        config = load_config(path, {})
    if to_train and (code := config.declared.runs_code(config.backend_options)):
        refuse_foreign_code(code, f"the configuration of run {run.info.run_id}")
    # The file has all options of its descriptor.
    config = with_earlier(config, config.descriptor.model_dump(include={"name", *config.descriptor.model_fields_set}))
    return with_earlier_training(config, config.training.model_dump(include=config.training.model_fields_set))


def study_data(config: Config, run: Run, train: str | None = None) -> StudyData:
    """Read the training file of a trial; the test file is left alone.

    Args:
        run: the trial's, whose tags have the digests of its splits.
        train: where the file is now; None: where it was.

    Raises:
        BadInput: it does not exist, or contains other structures than the trial was trained on.
    """
    data = config.data if train is None else config.data.model_copy(update={"train": train})
    source = shown_source(data.train)
    try:
        given = read_training(config.model_copy(update={"data": data}))
        structures = given.structures
    except BadInput as error:
        needed = "the trials' training file is needed, --train FILE says where it is now"
        if data.validation_file is not None:
            needed += f"; their validation file, {shown_source(data.validation_file)}, is needed where it was"
        raise BadInput(f"{error}; {needed}") from None
    then = [run.data.tags[f"{name}_digest"] for name in ("train", "validation")]
    left_out = np.array(json.loads(run.data.tags.get(LEFT_OUT, "[]")), dtype=np.int64)
    # Copies could be on both sides once, and most files have none: looking for them comes last, for it takes longer.
    for find in (lambda _: None, find_copies):
        indices = split_training(given, config, find(structures)).without(left_out)
        now = list(indices.digests(structures))
        if now == then:
            return StudyData(structures, indices)
    name, before, after = next(
        (name, *pair) for name, *pair in zip(("train", "validation"), then, now, strict=True) if pair[0] != pair[1]
    )
    raise BadInput(
        f"{source}: has other structures than the trials were trained on: the {name} split has the digest "
        f"{after[:12]} now, {before[:12]} then; --train FILE says where the file is that they were trained on"
    )


def study_dataset(config: Config, run: Run, home: Path, train: str | None = None) -> Dataset:
    """The same, featurised and with fitted targets, as a trial had it; the test file is left alone.

    Args:
        config: of the trial, with nothing to search.
        home: `BDQM_HOME`.

    Raises:
        BadInput: as `study_data`.
    """
    found = study_data(config, run, train)  # before features are computed of other structures
    options = config.updated({"data": {"train": train or config.data.train, "test": None}})
    return prepare(options, home, found.indices)


def note_test_split(study: optuna.Study, test: Unlabelled, home: Path) -> None:
    """Record the digest of the test split in the study.

    Raises:
        BdqmError: it was prepared for another `home`.
    """
    if not is_sealed(home, test.digest):
        raise BdqmError(
            f"{test.source}: prepared with another BDQM_HOME than {home}, where it is not; prepare the data again"
        )
    if TEST not in study.user_attrs:
        study.set_user_attr(TEST, {"digest": test.digest, "source": test.source})


def load_test_split(study: optuna.Study, home: Path) -> Unlabelled:
    """The test structures of a study, without their labels.

    Raises:
        BadInput: the study was made without a test split.
        BdqmError: its files are not in `home`.
    """
    test = study.user_attrs.get(TEST)
    if test is None:
        raise BadInput(
            f"study {study.study_name!r} has no test split; run tune again under this name with the same options and "
            "--test FILE"
        )
    if not is_sealed(home, test["digest"]):
        raise BdqmError(f"the test split of {study.study_name!r} is not in {home}; set BDQM_HOME as it was for tune")
    return read_sealed(home, test["digest"], f"{test['source']} (test split)")
