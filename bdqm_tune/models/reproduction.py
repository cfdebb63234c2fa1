"""A training of the tracking store done once more, and compared: its curves, its result, its model."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bdqm_tune.backends import OutOfProcess, make_backend
from bdqm_tune.config.config import Config
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.learning.description import WEIGHTS
from bdqm_tune.learning.fit import Diverged, EpochRecord
from bdqm_tune.models.store import find_run
from bdqm_tune.progress import check
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.secrets import refuse_secrets
from bdqm_tune.study import run_contents as training_record
from bdqm_tune.study.data import study_dataset, trial_config
from bdqm_tune.tracking.client import reason
from bdqm_tune.tracking.provenance import provenance_tags
from bdqm_tune.tracking.quiet import quiet_libraries

EQUAL, WITHIN, DIFFERENT = "equal", "within tolerance", "different"
TOLERANCE = 1e-3  # relative
TIMES = ("epoch", "epoch_seconds")  # columns of the curves that say nothing about the result
HARDWARE = ("device", "cpu", "cores", "host")  # tags
TRAINED = ("complete", "pruned")  # states of a run that has something to compare


@dataclass(frozen=True)
class Reproduction:
    """How a training that was repeated compares with what it was."""

    run_id: str
    name: str  # of the run
    verdict: str  # equal: bit for bit; within tolerance; or different
    tolerance: float  # relative
    epochs: int  # that were compared
    differences: pd.DataFrame  # one row a metric: metric, epochs, first_epoch that differs, absolute, relative
    same_weights: bool
    notes: list[str]  # what else is not the same: versions, hardware, source, numbers of epochs

    def record(self) -> dict[str, Any]:
        """All of it as plain values."""
        plain = self.differences.astype(object).where(self.differences.notna(), None)
        return asdict(self) | {"differences": plain.to_dict("records")}


def reproduce(
    stores: Stores,
    run_id: str,
    train: str | None = None,
    device: str = "",
    tolerance: float = TOLERANCE,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> Reproduction:
    """Train the configuration of a run again, with its data and its seed, and compare.

    A pruned trial is trained for as many epochs.

    Args:
        run_id: of a trial, or of a training of `confirm`.
        train: the training file, where it is no longer where it was.
        device: to train on; empty: the configuration's.
        tolerance: of every epoch's metrics, relative.

    Raises:
        BadInput: no such run, or one that trained nothing; the training file is not there or has changed.
        BdqmError: the tracking store cannot be read.
    """
    quiet_libraries()
    if not 0 < tolerance < 1:
        raise BadInput(f"--tolerance must be between 0 and 1, got {tolerance}")
    client, run = trained_run(run_id, stores)
    try:
        config = trial_config(client, run, to_train=True)
        with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
            then = Path(
                mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=folder, tracking_uri=client.tracking_uri)
            )
            # As text first: pandas of old reads floats to the last but one bit.
            curves = pd.read_csv(then / training_record.HISTORY, dtype=str).astype(float)
            weights = (then / training_record.MODEL / WEIGHTS).read_bytes()
    except (MlflowException, OSError) as error:
        raise BdqmError(f"{run_id}: cannot be read from the MLflow tracking store: {reason(error)}") from None
    config = config.updated({"": {"device": device} if device else {}})
    refuse_secrets({"train": train})
    again, weights_now, used = _train(stores, config, run, train, curves, on_epoch)
    found = differences(curves, again)
    notes = _unlike(run.data.tags, provenance_tags() | {"device": used})
    if len(again) != len(curves):
        notes.append(f"{len(curves)} epochs then, {len(again)} now")
    same = weights == weights_now
    return Reproduction(
        run_id,
        str(run.info.run_name),
        verdict(found, same and len(again) == len(curves), len(again) == len(curves), tolerance),
        tolerance,
        min(len(again), len(curves)),
        found,
        same,
        notes,
    )


def trained_run(run_id: str, stores: Stores) -> tuple[MlflowClient, Run]:
    """The run of a training, as `find_run`. Raises BadInput also if it is another kind of run."""
    client, run = find_run(run_id, stores)
    state = run.data.tags.get("trial_state")
    if state is None:
        kind = run.data.tags.get("kind", "of something else")
        raise BadInput(f"{run_id}: the run {run.info.run_name} is {kind}; one of a trial or of `confirm` is needed")
    if state not in TRAINED or "best_epoch" not in run.data.metrics:
        raise BadInput(f"{run_id}: the run {run.info.run_name} is {state}; there is no result to compare with")
    return client, run


def differences(then: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """How far two curves, one row an epoch, are apart in each metric that both have, over the epochs of both.

    The relative difference is that of an epoch by the metric's mean size then.
    """
    epochs = min(len(then), len(now))
    rows = []
    for metric in [column for column in then.columns if column in now.columns and column not in TIMES]:
        first, second = (frame[metric].to_numpy(dtype=np.float64)[:epochs] for frame in (then, now))
        apart = np.abs(second - first)
        places = np.flatnonzero(first != second)
        size = float(np.abs(first).mean()) or 1.0
        rows.append(
            {
                "metric": metric,
                "epochs": epochs,
                "first_epoch": int(then["epoch"].iloc[places[0]]) if len(places) else None,
                "absolute": float(apart.max()),
                "relative": float(apart.max()) / size,
            }
        )
    return pd.DataFrame(rows).astype({"first_epoch": "Int64"})


def verdict(found: pd.DataFrame, same_model: bool, same_epochs: bool, tolerance: float) -> str:
    """What differences of curves, and of models, come to."""
    if same_model and same_epochs and (found["absolute"] == 0).all():
        return EQUAL
    return WITHIN if same_epochs and (found["relative"] <= tolerance).all() else DIFFERENT


def _train(
    stores: Stores,
    config: Config,
    run: Run,
    train: str | None,
    then: pd.DataFrame,
    on_epoch: Callable[[EpochRecord], None],
) -> tuple[pd.DataFrame, bytes, str]:
    """The curves (one row an epoch), the weights as a file, and the device."""
    dataset = study_dataset(config, run, stores.home, train)
    backend = make_backend(config, dataset)
    training = backend.start(training_record.tried_by(config).hyperparameters, config.study.seed, dataset)
    cut_off = len(then) if run.data.tags["trial_state"] == "pruned" else None
    try:
        for record in training:
            check()
            on_epoch(record)
            if record.epoch == cut_off:
                break
    except Diverged:  # as it may have done then; its curves end there
        pass
    finally:
        if isinstance(training, OutOfProcess):
            training.close()
    with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
        training.potential().save(Path(folder))
        return training_record.history(training.records), (Path(folder) / WEIGHTS).read_bytes(), backend.device


def _unlike(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What may explain a difference: versions, hardware and source that are not what they were."""
    versions = sorted(name for name in then.keys() | now.keys() if name.startswith("version."))
    notes = [
        f"{name.removeprefix('version.')} {then.get(name, 'unknown')} then, {now.get(name, 'unknown')} now"
        for name in [*versions, *HARDWARE, "git_commit"]
        if then.get(name) != now.get(name)
    ]
    for tags, when in ((then, "then"), (now, "now")):
        if tags.get("git_dirty") == "true":
            notes.append(f"the checkout had changes that were not committed {when}")
    return notes
