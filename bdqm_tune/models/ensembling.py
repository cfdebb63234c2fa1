"""Models of a study as one ensemble, calibrated on its validation split; the test split is left alone."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from bdqm_tune.descriptors import stored_features
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.learning.breakdown import deviations
from bdqm_tune.learning.calibration import Calibration, check_coverage, rank_of
from bdqm_tune.learning.ensemble import Ensemble, EnsemblePrediction
from bdqm_tune.learning.metrics import energy_and_forces
from bdqm_tune.learning.potential import Potential
from bdqm_tune.models.store import load_potential, run_with_model
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures import Geometries
from bdqm_tune.study.data import StudyData, study_data, trial_config
from bdqm_tune.study.objectives import best_first
from bdqm_tune.study.run_contents import OUT_OF_FOLD
from bdqm_tune.study.study import RUN_ID, load_study
from bdqm_tune.tracking.client import reason, tracking_client
from bdqm_tune.tracking.provenance import provenance_tags
from bdqm_tune.tracking.quiet import quiet_libraries
from bdqm_tune.tracking.result_runs import record_run, run_file

BEST, COVERAGE = 5, 0.9
FLOOR = 0.1  # of the median spread an atom of training structures
FLOOR_STRUCTURES = 1000  # of them for that median, at most
LEAST_FLOOR = 1e-6  # eV an atom: where all members say the same


@dataclass(frozen=True)
class StudyEnsemble:
    """An ensemble and where it comes from."""

    study: str
    ensemble: Ensemble
    numbers: tuple[int, ...]  # of the trials whose configurations its members have, the best first
    runs: list[Run]  # of the members
    metrics: dict[str, float]  # of the validation split, and of the calibration


def assemble(
    stores: Stores, name: str, best: int = BEST, coverage: float = COVERAGE, train: str | None = None
) -> StudyEnsemble:
    """Make the ensemble of a study's best trials, calibrated on its validation split.

    Args:
        best: how many trials.
        coverage: stated, of its intervals.
        train: the training file, where it is no longer where it was.

    Raises:
        BadInput: no such study, too few models, or too few structures to calibrate on; or the training file is not
            there or has changed.
        BdqmError: a store cannot be read.
    """
    quiet_libraries()
    check_coverage(coverage)
    if best < 2:
        raise BadInput(f"--best must be at least 2, got {best}: one model has no spread")
    study = load_study(stores, name)
    client = tracking_client(stores)
    try:
        trials = best_trials(study, client, best)
        config = trial_config(client, trials[0][1])
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot read the trials from the MLflow tracking store: {reason(error)}") from None
    data = study_data(config, trials[0][1], train)
    rank_of(len(data.validation), coverage)  # before anything takes time
    members = {
        f"trial-{trial.number:03d}": load_potential(f"runs:/{run.info.run_id}/model", stores) for trial, run in trials
    }
    held_out = None
    if data.indices.folds:
        held_out = out_of_fold(client, [run for _, run in trials], data)
    ensemble, metrics = calibrated(members, data, coverage, stores.home, held_out)
    numbers, runs = zip(*((trial.number, run) for trial, run in trials), strict=True)
    return StudyEnsemble(name, ensemble, numbers, list(runs), metrics)


def best_trials(study: optuna.Study, client: MlflowClient, best: int) -> list[tuple[FrozenTrial, Run]]:
    """The best complete trials whose models are still there, and their runs. Raises BadInput if there are fewer."""
    complete = best_first(study.get_trials(deepcopy=False))
    found: list[tuple[FrozenTrial, Run]] = []
    for trial in complete:
        run = run_with_model(client, trial.user_attrs[RUN_ID])
        if run is not None:
            found.append((trial, run))
        if len(found) == best:
            return found
    removed = len(complete) - len(found)
    what = f"study {study.study_name!r} has {len(complete)} complete trials"
    if removed:
        what += f", and the models of {removed} were removed by `bdqm-tune gc` or in MLflow"
    fewer = f", or choose --best {len(found)}" if len(found) > 1 else ""
    raise BadInput(f"{what}; an ensemble of {best} needs as many models: run tune again under this name{fewer}")


def out_of_fold(client: MlflowClient, runs: Sequence[Run], data: StudyData) -> EnsemblePrediction:
    """What an ensemble predicts of all structures whose members are, for each, the networks trained without its fold.

    Args:
        runs: of the trials of the members.

    Raises:
        BdqmError: the predictions of a trial cannot be read, or are of other structures.
    """
    predicted = []
    for run in runs:
        with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
            try:
                frame = pd.read_csv(run_file(client, run.info.run_id, OUT_OF_FOLD, folder))
            except (MlflowException, OSError) as error:
                what = f"{run.info.run_name}: {OUT_OF_FOLD}, by which an ensemble is calibrated, cannot be read"
                raise BdqmError(f"{what}: {reason(error)}") from None
        if frame["image"].tolist() != data.structures.images[data.validation].tolist():
            raise BdqmError(f"{run.info.run_name}: {OUT_OF_FOLD} has other structures than the trial was validated on")
        predicted.append(frame["predicted"].to_numpy(dtype=np.float64))
    return EnsemblePrediction(np.mean(predicted, axis=0), np.std(predicted, axis=0, ddof=1))


def calibrated(
    members: dict[str, Potential],
    data: StudyData,
    coverage: float,
    home: Path,
    held_out_of_folds: EnsemblePrediction | None = None,
) -> tuple[Ensemble, dict[str, float]]:
    """The ensemble with its calibration, and its metrics on the validation split.

    The floor of the spread comes from the training split: intervals hold what they state only if nothing of them but
    the quantile depends on the structures that they are calibrated on.

    Args:
        held_out_of_folds: with folds, where the members were trained on all structures: see `out_of_fold`. Of such
            intervals nothing is proved, as of the jackknife's: Barber et al., Ann. Stat. 49, 486 (2021).
    """
    ensemble = Ensemble(members)
    some = data.train[:: -(-len(data.train) // FLOOR_STRUCTURES)]
    spread = predict_stored(ensemble, data.structures, home, some).energy_std / data.structures.n_atoms[some]
    floor = max(FLOOR * float(np.median(spread)), LEAST_FLOOR)
    held_out = data.structures.select(data.validation)
    found = held_out_of_folds or predict_stored(ensemble, data.structures, home, data.validation)
    # Of folds the energies are kept alone.
    with_forces = ensemble.trained_on_forces and held_out_of_folds is None
    forces = ensemble.predict(held_out.atoms).forces if with_forces else None
    calibration = Calibration.fit(
        found.energies - held_out.energies, found.energy_std, held_out.n_atoms, floor, coverage
    )
    metrics = {f"val_{name}": value for name, value in deviations(held_out, found.energies, forces).metrics().items()}
    if "val_forces_mae" in metrics:
        metrics["val_energy_forces"] = energy_and_forces(metrics["val_energy_mae_per_atom"], metrics["val_forces_mae"])
    return Ensemble(ensemble.members, calibration), {
        **metrics,
        "val_energy_std": float(found.energy_std.mean()),
        "calibration_structures": len(held_out),
        "calibration_quantile": calibration.quantile(),
    }


def predict_stored(
    ensemble: Ensemble, structures: Geometries, home: Path, indices: NDArray[np.int64] | None = None
) -> EnsemblePrediction:
    """Energies of structures from their cached features, computed where there are none.

    Args:
        home: `BDQM_HOME`.
        indices: of some of them, in ascending order; None: of all. The features of all are cached, as by trials.
    """
    chosen = np.arange(len(structures)) if indices is None else indices
    return ensemble.predict_features(
        [structures.atoms[i] for i in chosen.tolist()],
        lambda descriptor: np.asarray(stored_features(structures, descriptor, home / "features").select(chosen)),
    )


def record_ensemble(stores: Stores, made: StudyEnsemble, parent: str = "") -> str:
    """Record an ensemble in a run of its own in the study's experiment; returns the run's id, which `load_model` takes.

    Args:
        parent: id of the run that it comes under; empty: that of `mlflow run`, where there is one.

    Raises:
        BdqmError: the tracking store fails.
    """
    client = tracking_client(stores)
    first, calibration = made.runs[0], made.ensemble.calibration
    parameters = {"members": len(made.runs), "coverage": calibration and calibration.coverage}
    tags = {
        **provenance_tags(),
        "kind": "ensemble",
        "study": made.study,
        "trials": ", ".join(map(str, made.numbers)),
        "model_run_ids": ", ".join(run.info.run_id for run in made.runs),
        "train_digest": first.data.tags["train_digest"],
        "validation_digest": first.data.tags["validation_digest"],
    }
    try:
        return record_run(
            client,
            first.info.experiment_id,
            f"ensemble-of-{len(made.runs)}",
            tags,
            made.metrics,
            parameters,
            lambda folder: made.ensemble.save(folder / "ensemble"),
            parent,
        )
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot record the ensemble in the MLflow tracking store: {reason(error)}") from None
