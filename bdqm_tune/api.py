"""The package from Python: prepare data, tune a study, use its model."""

from pathlib import Path
from typing import Any

import optuna

from bdqm_tune.amptorch_import import load_amptorch_checkpoint
from bdqm_tune.config import load_config
from bdqm_tune.experiment.evaluation import load_potential
from bdqm_tune.experiment.tune import tune as _tune
from bdqm_tune.learning.calculator import PotentialCalculator
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.dataset import prepare as _prepare
from bdqm_tune.services.connection import find_stores

__all__ = ["load_amptorch_checkpoint", "load_calculator", "prepare", "tune"]


def prepare(train: str | Path = "builtin", test: str | Path | None = None, config: str | Path | None = None) -> Dataset:
    """Read, check, split and featurise structures.

    Args:
        train: any file that ASE reads, with energies; or `builtin`.
        test: the same for the test split, which is only laid aside.
        config: a configuration file.

    Raises:
        BadInput: something is wrong with what was given; the message says what.
    """
    data = {"train": str(train)} | ({} if test is None else {"test": str(test)})
    return _prepare(load_config(config, {"data": data}), find_stores().home)


def tune(data: Dataset, study: str | None = None, n_trials: int | None = None, **options: Any) -> optuna.Study:
    """Run the trials of a study; it goes on if there is one of that name.

    Args:
        study: its name; None: that of the configuration file.
        n_trials: trials to add; None: the configuration's number.
        options: `sampler`, `pruner`, `seed`, and `epochs`.

    Raises:
        BadInput: an option is not valid, or the study of that name asks another question.
        BdqmError: a store failed.
    """
    training = {"epochs": options.pop("epochs")} if "epochs" in options else {}
    given = {"name": study, "n_trials": n_trials, **options}
    overrides = {"study": {key: value for key, value in given.items() if value is not None}, "training": training}
    return _tune(data, data.config.updated(overrides), find_stores())


def load_calculator(model: str | Path) -> PotentialCalculator:
    """A trained model as an ASE calculator of energies (eV), forces (eV/Å) and, in a periodic cell, stress (eV/Å³).

    Args:
        model: a folder with a potential, or `runs:/RUN_ID/model` of a trial's run in MLflow.

    Raises:
        BadInput: there is no potential.
    """
    return PotentialCalculator(load_potential(str(model), find_stores()))
