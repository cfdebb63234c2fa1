"""The final model: the best trial by validation MAE, evaluated on the test split."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pandas as pd
from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

from bdqm_tune.descriptors import stored_features
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.experiment.output import quiet_libraries
from bdqm_tune.experiment.provenance import provenance_tags
from bdqm_tune.experiment.study import load_study
from bdqm_tune.experiment.testsplit import load_test_split
from bdqm_tune.experiment.tracking import adopt_run
from bdqm_tune.experiment.tracking_client import ARTIFACTS, reason, tracking_client
from bdqm_tune.experiment.trial import RUN_ID
from bdqm_tune.learning.metrics import energy_metrics, force_metrics
from bdqm_tune.learning.potential import Potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures import Structures, digest


@dataclass(frozen=True)
class Evaluation:
    """How good the best trial's model is on structures that tuning never saw."""

    study: str
    trial: int
    metrics: dict[str, float]  # test_energy_mae and _rmse (eV), _mae_per_atom (eV/atom); of forces eV/Å, if trained
    errors: pd.DataFrame  # one row a structure: image, formula, n_atoms, energy, predicted, error (eV)
    run_id: str  # of the evaluation, in MLflow
    log_artifact: Callable[[Path], None]  # adds a file to that run


def evaluate_best(stores: Stores, name: str) -> Evaluation:
    """Evaluate a study's best trial on its test split and record it in a run of its own.

    Raises:
        BadInput: no such study, none of its trials is complete, or it has no test split.
        BdqmError: a store or a file cannot be read.
    """
    quiet_libraries()
    study = load_study(stores, name)
    trial = best_trial(study)
    client = tracking_client(stores)
    structures = load_test_split(study, stores.home)
    try:
        run = client.get_run(trial.user_attrs[RUN_ID])
        potential = load_potential(f"runs:/{run.info.run_id}/model", stores)
        errors = errors_frame(potential, structures, stores.home)
        found = energy_metrics(errors["predicted"].to_numpy(), structures.energies, structures.n_atoms)
        if structures.forces is not None and "val_forces_mae" in run.data.metrics:
            found |= force_metrics(potential.predict(structures.atoms).forces or [], structures.forces)
        metrics = {f"test_{key}": value for key, value in found.items()}
        tags = {
            **provenance_tags(),
            "kind": "evaluation",
            "study": name,
            "trial_number": str(trial.number),
            "model_run_id": run.info.run_id,
            "test_digest": digest(structures),
        }
        run_id = _record(client, run.info.experiment_id, f"evaluation-trial-{trial.number:03d}", tags, metrics)
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot evaluate through the MLflow tracking store: {reason(error)}") from None
    return Evaluation(name, trial.number, metrics, errors, run_id, lambda path: client.log_artifact(run_id, str(path)))


def _record(
    client: MlflowClient, experiment_id: str, name: str, tags: dict[str, str], metrics: dict[str, float]
) -> str:
    """Log to a run in the experiment and return its id: that of `mlflow run` if it lies there, else a new one."""
    run = adopt_run(client, name)
    in_place = run is not None and run.info.experiment_id == experiment_id
    if run is None or not in_place:
        run = client.create_run(experiment_id, run_name=name)
    now = get_current_time_millis()
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(key, value, now, 0) for key, value in metrics.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    if not in_place:
        client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def best_trial(study: optuna.Study) -> optuna.trial.FrozenTrial:
    """The complete trial with the least validation MAE. Raises BadInput if there is none."""
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if not complete:
        raise BadInput(f"study {study.study_name!r} has no complete trial yet; run tune again under this name")
    return min(complete, key=lambda trial: (trial.value, trial.number))


def errors_frame(potential: Potential, structures: Structures, home: Path) -> pd.DataFrame:
    """True and predicted energy of every structure."""
    features = stored_features(structures, potential.descriptor, home / "features")
    predicted = np.concatenate(
        [potential.predict_features(piece.features, structures.atoms[piece.structures]) for piece in features.pieces()]
    )
    return pd.DataFrame(
        {
            "image": structures.images,
            "formula": [atoms.get_chemical_formula() for atoms in structures.atoms],
            "n_atoms": structures.n_atoms,
            "energy": structures.energies,
            "predicted": predicted,
            "error": predicted - structures.energies,
        }
    )


def load_potential(model: str, stores: Stores) -> Potential:
    """A potential from a folder, or from what MLflow keeps: `runs:/RUN_ID/model`.

    Raises:
        BadInput: there is no potential.
    """
    if not model.startswith("runs:/"):
        return Potential.load(model)
    client = tracking_client(stores)
    with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
        try:
            run = client.get_run(model.split("/")[1])
            if ARTIFACTS in run.data.tags:
                raise BadInput(
                    f"{model}: the model was removed by `bdqm-tune gc`, which keeps the best trials of every study"
                )
            local = mlflow.artifacts.download_artifacts(model, dst_path=folder, tracking_uri=client.tracking_uri)
        except (MlflowException, OSError) as error:
            raise BadInput(f"{model}: MLflow has no such model ({reason(error)})") from None
        return Potential.load(local)
