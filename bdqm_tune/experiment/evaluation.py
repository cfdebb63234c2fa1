"""The final model: the best trial by validation MAE, evaluated on the test split."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from bdqm_tune.descriptors import stored_features
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.experiment.models import load_potential
from bdqm_tune.experiment.output import quiet_libraries
from bdqm_tune.experiment.provenance import provenance_tags
from bdqm_tune.experiment.records import record_run
from bdqm_tune.experiment.study import RUN_ID, load_study
from bdqm_tune.experiment.testsplit import load_test_split
from bdqm_tune.experiment.tracking_client import reason, tracking_client
from bdqm_tune.learning.metrics import energy_metrics, force_metrics
from bdqm_tune.learning.potential import Potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures import Structures, digest


@dataclass(frozen=True)
class Evaluation:
    """How good a model of a study is on structures that tuning never saw."""

    study: str
    trial: int | None  # None: an ensemble
    metrics: dict[str, float]  # test_energy_mae and _rmse (eV), _mae_per_atom (eV/atom); of forces eV/Å, if trained
    errors: pd.DataFrame  # one row a structure: image, formula, n_atoms, energy, predicted, error (eV)
    run_id: str  # of the evaluation, in MLflow
    log_artifact: Callable[[Path], None]  # adds a file to that run
    trials: tuple[int, ...] = ()  # of an ensemble's members
    coverage: pd.DataFrame | None = None  # of an ensemble's intervals: stated, observed, low, high


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
        run_id = record_run(client, run.info.experiment_id, f"evaluation-trial-{trial.number:03d}", tags, metrics)
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot evaluate through the MLflow tracking store: {reason(error)}") from None
    return Evaluation(name, trial.number, metrics, errors, run_id, lambda path: client.log_artifact(run_id, str(path)))


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
    return compared(structures, predicted)


def compared(structures: Structures, predicted: NDArray[np.float64]) -> pd.DataFrame:
    """The energies of structures, those predicted (n_structures,), eV, and the differences."""
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
