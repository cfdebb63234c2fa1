"""What the MLflow run of a training contains: of a trial, or of a configuration that is trained again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from bdqm_tune.backends import Backend, TrainingRun, tags_of
from bdqm_tune.config.config import Config
from bdqm_tune.config.descriptor_search import flat
from bdqm_tune.config.spaces import plain
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.fit import EpochRecord
from bdqm_tune.learning.held_out import HeldOut
from bdqm_tune.study.best_so_far import ERRORS
from bdqm_tune.study.search_space import Suggestion
from bdqm_tune.tracking.provenance import provenance_tags

# The artifacts of a run: the model's folder, the curves, a configuration that trains this again, a traceback.
MODEL, HISTORY, CONFIG, TRACEBACK = "model", "history.csv", "config.yaml", "traceback.txt"
OUT_OF_FOLD = "out_of_fold.csv"  # and, with folds, what the networks predict of the structures that they leave out
LEFT_OUT = "left_out"  # tag: indices of structures of the training file in neither split, as JSON; none: no tag


def parameters(config: Config, tried: Suggestion, device: str) -> dict[str, Any]:
    """The parameters of a run."""
    descriptor = flat(tried.descriptor.model_dump()) if config.declared.features else {}
    return {
        **tried.hyperparameters.model_dump(),
        **{f"descriptor_{key}": plain(value) for key, value in descriptor.items() if value is not None},
        **{key: value for key, value in config.training.model_dump().items() if value is not None},
        "reference_energies": plain(config.target.reference_energies),
        "target_scaling": config.target.scaling,
        "objective": config.objective,
        "seed": tried.seed,
        "backend": config.trained_by,
        **{f"backend_{name}": plain(value) for name, value in config.backend_options.items() if value is not None},
        "device": device,
    }


def tags(study: str, dataset: Dataset, backend: Backend) -> dict[str, str]:
    """The tags that every training of a study has."""
    left_out = dataset.left_out.tolist()
    return {
        **provenance_tags(),
        **tags_of(backend),
        "study": study,
        "device": backend.device,
        "train_digest": dataset.train.digest,
        "validation_digest": dataset.validation.digest,
        **({LEFT_OUT: json.dumps(left_out)} if left_out else {}),
    }


def best_metrics(best: EpochRecord | None) -> dict[str, float]:
    """The errors of the best epoch, under the names that are logged; empty if there is none."""
    if best is None:
        return {}
    found = {name: getattr(best, name) for name in (*ERRORS, "val_stress_mae")}
    return {f"best_{name}": value for name, value in found.items() if value is not None}


def summary_metrics(
    training: TrainingRun | None, seconds: float, time_per_atom: float | None = None
) -> dict[str, float]:
    """What is logged at the end of a training; the time of a prediction only where it was measured."""
    best = training.best if training else None
    summary = {
        "best_epoch": best.epoch if best else None,
        "n_parameters": training.n_parameters if training else None,
        "trial_seconds": seconds,
        "time_per_atom": time_per_atom,
    }
    return best_metrics(best) | {name: float(value) for name, value in summary.items() if value is not None}


def write_artifacts(folder: Path, training: TrainingRun | None, config: Config, dataset: Dataset, error: str) -> None:
    """Write the model of the best epoch, the curves, the configuration, and the traceback of a failure.

    With folds also the energies that their networks predict, at the same epoch, of the structures that they leave out.
    """
    if training is not None and training.best is not None:
        training.potential().save(folder / MODEL)
        if dataset.folds and (held_out := training.held_out()) is not None:
            out_of_fold(held_out, dataset).to_csv(folder / OUT_OF_FOLD, index=False)
    if training is not None and training.records:
        history(training.records).to_csv(folder / HISTORY, index=False)
    if error:
        (folder / TRACEBACK).write_text(error, encoding="utf-8")
    (folder / CONFIG).write_text(as_yaml(config), encoding="utf-8")


def out_of_fold(held_out: HeldOut, dataset: Dataset) -> pd.DataFrame:
    """One row a structure: image (of the file), fold (from 1), energy and predicted (eV)."""
    structures = dataset.validation.structures
    fold = np.zeros(len(structures), dtype=int)
    for number, part in enumerate(dataset.folds, start=1):
        fold[np.isin(dataset.validation.indices, part.validation.indices)] = number
    return pd.DataFrame(
        {
            "image": structures.images,
            "fold": fold,
            "energy": structures.energies,
            "predicted": structures.energies + held_out.energies,
        }
    )


def history(records: Sequence[EpochRecord]) -> pd.DataFrame:
    """One row an epoch."""
    return pd.DataFrame([{"epoch": record.epoch, **record.metrics()} for record in records])


def one_configuration(config: Config, tried: Suggestion) -> Config:
    """The configuration with nothing left to search."""
    content = config.model_dump(mode="json")
    content["descriptor"] = tried.descriptor.model_dump(mode="json")
    content["search"] = tried.hyperparameters.model_dump(mode="json")
    content["study"] |= {"n_trials": 1, "enqueue": [{}], "seed": tried.seed}
    return Config.model_validate(content)


def tried_by(config: Config) -> Suggestion:
    """What a configuration tries that leaves nothing to search."""
    return Suggestion(config.declared.hyperparameters(**config.fixed), config.descriptor, config.study.seed)


def as_yaml(config: Config) -> str:
    """A configuration as the text of its file."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
