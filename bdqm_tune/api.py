"""The Python API: prepare data, tune a study, evaluate it, use its model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from bdqm_tune.amptorch_import import load_amptorch_checkpoint
from bdqm_tune.compilation.cache import compile_ahead
from bdqm_tune.config.config import load_config
from bdqm_tune.confirmation import confirm as confirmation
from bdqm_tune.confirmation.confirm import Confirmation
from bdqm_tune.evaluation.evaluation import evaluate_best
from bdqm_tune.evaluation.record import Evaluation
from bdqm_tune.learning.calculator import PotentialCalculator, make_calculator
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.dataset import prepare as _prepare
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.potential import Potential
from bdqm_tune.models.ensembling import BEST, COVERAGE, assemble
from bdqm_tune.models.registry import ALIAS, Registered
from bdqm_tune.models.registry import register as _register
from bdqm_tune.models.store import as_potential, computed_in, is_tracked, load_model
from bdqm_tune.n2p2 import export_n2p2 as _export_n2p2
from bdqm_tune.n2p2 import load_n2p2
from bdqm_tune.services.connection import Stores, find_stores, home_folder
from bdqm_tune.study.results import StudyResults
from bdqm_tune.study.results import load_results as _load_results
from bdqm_tune.tuning.tune import tune as _tune

__all__ = [
    "confirm",
    "evaluate",
    "export_n2p2",
    "load_amptorch_checkpoint",
    "load_calculator",
    "load_ensemble",
    "load_n2p2",
    "load_results",
    "prepare",
    "register",
    "tune",
]
Files = str | Path | Sequence[str | Path]


def prepare(
    train: Files = "builtin",
    test: Files | None = None,
    config: str | Path | None = None,
    validation: Files | None = None,
) -> Dataset:
    """Read, check, split and featurise structures.

    Args:
        train: any file that ASE reads, with energies, or several: a list, a folder, a pattern, a slice as
            `md.traj@::10`; or `builtin`.
        test: the same for the test split, which only `evaluate` reads.
        config: a configuration file.
        validation: the same for the validation split; None: a share of `train`.

    Raises:
        BadInput: an argument or a file is not valid; the message says what.
    """
    compile_ahead()
    named = {"train": train, "test": test, "validation_file": validation}
    data = {name: _texts(files) for name, files in named.items() if files is not None}
    return _prepare(load_config(config, {"data": data}), home_folder())


def _texts(files: Files) -> str | list[str]:
    return str(files) if isinstance(files, str | Path) else [str(file) for file in files]


def tune(
    data: Dataset,
    study: str | None = None,
    n_trials: int | None = None,
    sampler: str | BaseSampler | None = None,
    pruner: str | BasePruner | None = None,
    **options: Any,
) -> optuna.Study:
    """Run the trials of a study; resumes the study of that name if there is one.

    Args:
        study: its name; None: that of the configuration file.
        n_trials: trials to add; None: the configuration's number.
        sampler, pruner: a name of the configuration, or an object of Optuna, which is used as it is, for these trials:
            runs record its class, as `python:GPSampler`. Such a pruner is queried after every epoch; other workers
            take those that they are given, or name.
        options: `objectives`, `seed`, and `epochs`.

    Raises:
        BadInput: an option is not valid, or the study of that name has another search-space signature.
        BdqmError: a store failed.
    """
    training = {"epochs": options.pop("epochs")} if "epochs" in options else {}
    drawn, pruned = (given if isinstance(given, str) else None for given in (sampler, pruner))
    options_of_study = {"name": study, "n_trials": n_trials, "sampler": drawn, "pruner": pruned, **options}
    overrides = {
        "study": {key: value for key, value in options_of_study.items() if value is not None},
        "training": training,
    }
    return _tune(
        data,
        data.given.updated(overrides),
        find_stores(),
        sampler=None if isinstance(sampler, str) else sampler,
        pruner=None if isinstance(pruner, str) else pruner,
    )


def load_results(study: str | optuna.Study) -> StudyResults:
    """The results of a study so far: data frames `trials` and `curves`, and the name of the `objective`.

    Args:
        study: its name, or what `tune` returned.

    Raises:
        BadInput: there is no such study.
        BdqmError: a store failed.
    """
    return _load_results(find_stores(), _name(study))


def confirm(
    study: str | optuna.Study,
    best: int = confirmation.BEST,
    seeds: int = confirmation.SEEDS,
    random: str = confirmation.EXISTING,
    train: str | Path | None = None,
    trial: int | None = None,
    ensemble: bool = True,
) -> Confirmation:
    """Train the best configurations of a study again with other seeds; `table` ranks them, `champion` is the best.

    Args:
        study: its name, or what `tune` returned.
        best: how many configurations.
        seeds: how many for each.
        random: the random search to compare with: `existing`, `run`, `none`, or a study's name.
        train: the training file, where it is no longer where it was.
        trial: number of the one to confirm in their place; of a study of several objectives, one on its Pareto front.
        ensemble: whether the champion's model is the ensemble of its seeds, where that predicts in at most three times
            the time; else it is its best seed's.

    Raises:
        BadInput: no such study, no complete trial, a number is too small, or the training file is gone.
        BdqmError: a store failed, or no configuration could be trained.
    """
    compile_ahead()
    file = None if train is None else str(train)
    options = confirmation.Options(best, seeds, random, file, trial=trial, ensemble=ensemble)
    return confirmation.confirm(find_stores(), _name(study), options)


def evaluate(
    study: str | optuna.Study,
    reopen: str = "",
    train: str | Path | None = None,
    trial: int | None = None,
    allow_unknown_elements: bool = False,
) -> Evaluation:
    """Evaluate a study's champion, or else its best trial, on the test split, which is opened for one model only.

    Args:
        study: its name, or what `tune` returned.
        reopen: why the test split is opened for another model; recorded.
        train: the training file, where it is no longer where it was.
        trial: number of the one to evaluate in their place; of a study of several objectives, one on its Pareto front.
        allow_unknown_elements: predict elements that the model was not trained on, with a warning.

    Raises:
        BadInput: no such study or model, no test split, such an element, or it was opened for another model.
        BdqmError: a store failed.
    """
    source = "" if train is None else str(train)
    return evaluate_best(find_stores(), _name(study), reopen, source, trial, allow_unknown_elements)


def register(
    study: str | optuna.Study,
    name: str = "",
    alias: str = ALIAS,
    train: str | Path | None = None,
    trial: int | None = None,
) -> Registered:
    """Register a study's champion, or else its best trial, in MLflow; the alias points to it from then on.

    Args:
        study: its name, or what `tune` returned.
        name: of the registered model; empty: the study's.
        train: the training file, where it is no longer where it was.
        trial: number of the one to register in their place; of a study of several objectives, one on its Pareto front.

    Raises:
        BadInput: no such study, no complete trial, or a name that MLflow does not take.
        BdqmError: a store failed.
    """
    return _register(find_stores(), _name(study), name, alias, None if train is None else str(train), trial)


def load_ensemble(
    study: str | optuna.Study, best: int = BEST, coverage: float = COVERAGE, train: str | Path | None = None
) -> Ensemble:
    """The best trials of a study as an ensemble, with intervals that are calibrated on its validation split.

    Nothing is recorded; `save(folder)` writes it to files, which `load_calculator(folder)` reads.

    Args:
        study: its name, or what `tune` returned.
        best: how many trials.
        coverage: stated, of the intervals.
        train: the training file, where it is no longer where it was.

    Raises:
        BadInput: no such study, too few models, too few validation structures, or the training file is gone.
        BdqmError: a store failed.
    """
    return assemble(find_stores(), _name(study), best, coverage, None if train is None else str(train)).ensemble


def load_calculator(
    model: str | Path, *, allow_unknown_elements: bool = False, precision: str | None = None
) -> PotentialCalculator:
    """A trained model as an ASE calculator of energies (eV), forces (eV/Å) and, in a periodic cell, stress (eV/Å³).

    Forces are derivatives of the energy; where the model was trained on energies only, one warning says so, and the
    calculator's `trained_on_forces` is False. An ensemble puts `energy_std` and more into the results.

    Args:
        model: a folder; the id of a run in MLflow, or `runs:/RUN_ID/model`; or a registered model,
            `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        allow_unknown_elements: predict elements that the model was not trained on, with a warning.
        precision: of the network, `float32` or `float64`, which for vibrations and tight relaxations moves in finer
            steps; None: that of the training, of an ensemble float64. Energies are always summed in float64.

    Raises:
        BadInput: there is no such model, the message says what there is; or no such precision.
    """
    return make_calculator(computed_in(_load_model(model), precision), allow_unknown_elements)


def export_n2p2(
    model: str | Path | Potential, folder: str | Path, length_unit: str = "bohr", energy_unit: str = "hartree"
) -> list[str]:
    """Write a model of symmetry functions as n2p2's files, which LAMMPS runs by `pair_style hdnnp`.

    Args:
        model: a potential, or as that of `load_calculator`.
        folder: made where it is missing; files of these names that are there are replaced.
        length_unit: of the files: `bohr` or `angstrom`.
        energy_unit: `hartree` or `eV`.

    Returns:
        The lines with which LAMMPS, in its units `metal`, runs them.

    Raises:
        BadInput: there is no such model, or n2p2 has no equal of some part of it.
        OSError: a file cannot be written.

    Example:
        >>> import bdqm_tune as bt
        >>> bt.export_n2p2("models:/silicon@champion", "hdnnp-data")  # doctest: +SKIP
    """
    if isinstance(model, str | Path):
        model = as_potential(_load_model(model), str(model))
    return _export_n2p2(model, folder, length_unit, energy_unit)


def _load_model(model: str | Path) -> Potential | Ensemble:
    """A model in a folder, a run or the registry; the stores are looked for only where it is in them."""
    return load_model(str(model), find_stores() if is_tracked(str(model)) else Stores(home_folder()))


def _name(study: str | optuna.Study) -> str:
    return study if isinstance(study, str) else study.study_name
