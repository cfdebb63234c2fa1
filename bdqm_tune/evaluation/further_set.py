"""A model of a study, evaluated on any labelled file beside the sealed test split, which stays as it is."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.evaluation.evaluation import Choose
from bdqm_tune.evaluation.measurement import measure, measure_unlabelled, predict, predict_stress
from bdqm_tune.evaluation.record import objective_of
from bdqm_tune.files import write_whole
from bdqm_tune.learning.training_data import read_labelled
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures import digest, refuse_shared
from bdqm_tune.study.data import load_test_split, study_data, trial_config
from bdqm_tune.study.study import TEST, load_study
from bdqm_tune.tracking.client import reason, tracking_client
from bdqm_tune.tracking.provenance import provenance_tags
from bdqm_tune.tracking.quiet import quiet_libraries
from bdqm_tune.tracking.result_runs import record_run
from bdqm_tune.units import metric_unit

RECORD = "set_metrics.json"
KIND = "evaluation of a further set"


@dataclass(frozen=True)
class FurtherSet:
    """How good a model of a study is on the structures of a file."""

    study: str
    model: str  # `trial 18`, or `the ensemble of trials 18, 0, 15`
    file: str
    metrics: dict[str, float]  # as those of an evaluation, `set_` in the place of `test_`
    tables: dict[str, pd.DataFrame]  # by the names of their files
    run_id: str  # in MLflow
    objective: str = "val_energy_mae"  # by which the study trained
    settings: dict[str, Any] = field(default_factory=dict)


def evaluate_file(
    stores: Stores, name: str, file: str, choose: Choose, train: str = "", allow_unknown_elements: bool = False
) -> FurtherSet:
    """Evaluate a model of a study on a labelled file and record it in a run of its own.

    Nothing is opened, and it may be done for any number of models and files: the file may have nothing in common with
    the sealed test split.

    Args:
        file: structures with energies, perhaps forces; read as the study's own: labels of the same names, and without
            frames of isolated atoms where the reference energies are theirs.
        choose: gives the model.
        train: the training file, where it is no longer where it was; empty: it is.
        allow_unknown_elements: also of elements that the model was not trained on, with a warning.

    Raises:
        BadInput: no such study, model or file, or the file has structures of the study's test split.
        BdqmError: a store or a file cannot be read.
    """
    quiet_libraries()
    study, client = load_study(stores, name), tracking_client(stores)
    try:
        candidate = choose(study, client, stores)
        config = trial_config(client, candidate.trained)
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot evaluate through the MLflow tracking store: {reason(error)}") from None
    given = read_labelled(file, config).with_some_forces()
    if config.training.stress:
        given = given.with_stress()
    if TEST in study.user_attrs:
        try:
            refuse_shared({"test": load_test_split(study, stores.home), file: given})
        except BadInput as error:
            raise BadInput(
                f"{file}: has structures of the sealed test split, which only `evaluate` without --file opens ({error})"
            ) from None
    try:
        data = study_data(config, candidate.trained, train or None)
        predicted = predict(candidate.model, given, stores.home, allow_unknown_elements)
        trained = config.training.stress
        stress = predict_stress(candidate.model, given, allow_unknown_elements) if trained else None
        found = measure(candidate.model, predicted, given, data.structures.select(data.train), stress)
        found |= measure_unlabelled(candidate.model, given, data, stores.home)
        metrics = {
            f"set{key.removeprefix('test')}" if key.startswith("test_") else key: value
            for key, value in found.metrics.items()
        }
        tags = {
            **provenance_tags(),
            "kind": KIND,
            "study": name,
            "model_run_id": candidate.run.info.run_id,
            "set_file": file,
            "set_digest": digest(given),
        }
        made = FurtherSet(name, str(candidate), file, metrics, found.tables, "", objective_of(study), found.settings)
        run_id = record_run(
            client,
            candidate.run.info.experiment_id,
            f"set-{Path(file).name}-{candidate.run.info.run_name}",
            tags,
            metrics,
            found.settings,
            lambda folder: write_set(made, folder),
        )
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot evaluate through the MLflow tracking store: {reason(error)}") from None
    return replace(made, run_id=run_id)


def write_set(found: FurtherSet, folder: Path) -> list[Path]:
    """Write the tables as CSV, and all numbers with their units as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in found.tables.items():
        write_whole(folder / f"set_{name}.csv", table.to_csv(index=False))
    record = {
        "study": found.study,
        "model": found.model,
        "file": found.file,
        "settings": found.settings,
        "metrics": {name: {"value": value, "unit": metric_unit(name)} for name, value in found.metrics.items()},
    }
    write_whole(folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return [*(folder / f"set_{name}.csv" for name in found.tables), folder / RECORD]
