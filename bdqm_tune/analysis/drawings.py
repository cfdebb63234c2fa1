"""All figures and CSV files of a study, or of several side by side, in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bdqm_tune.analysis.comparison import Comparison
from bdqm_tune.analysis.figures import style
from bdqm_tune.analysis.figures.comparison import comparison
from bdqm_tune.analysis.figures.contour import contour, most_important
from bdqm_tune.analysis.figures.coverage import calibration, spread
from bdqm_tune.analysis.figures.curves import validation_curves
from bdqm_tune.analysis.figures.durations import durations
from bdqm_tune.analysis.figures.errors import (
    element_errors,
    element_force_errors,
    error_distribution,
    force_error_distribution,
    per_element,
)
from bdqm_tune.analysis.figures.history import optimisation_history, random_baseline
from bdqm_tune.analysis.figures.hypervolume import hypervolume
from bdqm_tune.analysis.figures.importance import compute_importance, parameter_importance
from bdqm_tune.analysis.figures.learning import learning_curve
from bdqm_tune.analysis.figures.parallel import parallel_coordinates
from bdqm_tune.analysis.figures.pareto import pareto, with_costs
from bdqm_tune.analysis.figures.parity import force_parity, parity
from bdqm_tune.analysis.figures.slices import slices
from bdqm_tune.analysis.figures.timeline import timeline
from bdqm_tune.errors import BadInput
from bdqm_tune.evaluation.record import Evaluation
from bdqm_tune.files import write_whole
from bdqm_tune.study.results import StudyResults

Drawings = Mapping[str, Callable[[], Figure | Axes]]


def study_drawings(results: StudyResults, random: StudyResults | None = None) -> Drawings:
    """The figures of a study by the names of their files, each drawn when it is called.

    Args:
        random: a study by the random sampler on the same data; None: the random trials of the study itself, if any.

    Raises:
        BadInput: that study has other data or another objective, or no random trials.
    """
    trials, objective, names = results.trials, results.objective, results.hyperparameters
    baseline = random_baseline(trials if random is None else random.trials, objective)
    if random is not None:
        _check_baseline(results, random, baseline)
    importances = compute_importance(trials, results.spaces, objective)
    atoms = results.splits.get("training", {}).get("atoms")
    drawings: dict[str, Callable[[], Figure | Axes]] = {
        "history": lambda: optimisation_history(trials, objective, baseline),
        "curves": lambda: validation_curves(results.curves, trials, objective),
        "importance": lambda: parameter_importance(importances),
        "contour": lambda: contour(trials, most_important(trials, names, importances), objective),
        "slices": lambda: slices(trials, names, objective),
        "parallel": lambda: parallel_coordinates(trials, names, objective),
        "durations": lambda: durations(trials),
        "pareto": lambda: pareto(with_costs(trials, atoms), objective, results.objectives),
        "timeline": lambda: timeline(trials),
    }
    if len(results.objectives) > 1:
        drawings["hypervolume"] = lambda: hypervolume(trials, results.objectives)
    return drawings


def evaluation_drawings(evaluation: Evaluation) -> Drawings:
    """The figures of an evaluation, in the same way: parity, the errors by their size and by element, of energies and
    of forces, those first by which the study trained; of an ensemble also its calibration and its spread.

    Energies are per atom, and total ones beside them where structures differ in size.
    """
    errors, coverage, found = evaluation.errors, evaluation.coverage, evaluation.metrics
    several = errors["n_atoms"].nunique() > 1
    energies: dict[str, Callable[[], Figure | Axes]] = {}
    if several:
        energies["parity_per_atom"] = lambda: parity(errors, per_atom=True)
    energies["parity"] = lambda: parity(errors, per_atom=not several)
    energies["error_distribution"] = lambda: error_distribution(errors)
    energies["element_errors"] = lambda: per_element(element_errors(errors))
    forces = _force_drawings(evaluation)
    drawings = forces | energies if evaluation.objective == "val_forces_mae" else energies | forces
    if coverage is not None:
        observed = (found["test_coverage"], found["test_coverage_low"], found["test_coverage_high"])
        drawings["calibration"] = lambda: calibration(coverage, found["coverage"], observed)
        drawings["spread"] = lambda: spread(errors, per_atom=several)
    return drawings


def _force_drawings(evaluation: Evaluation) -> dict[str, Callable[[], Figure | Axes]]:
    """Those of the forces; none of a model that was not trained on them, or that an earlier version evaluated."""
    table, by_element = evaluation.tables.get("forces"), evaluation.tables.get("by_element")
    if table is None:
        return {}
    drawings: dict[str, Callable[[], Figure | Axes]] = {
        "force_parity": lambda: force_parity(table, evaluation.metrics),
        "force_error_distribution": lambda: force_error_distribution(table),
    }
    if by_element is not None:
        drawings["element_force_errors"] = lambda: per_element(element_force_errors(by_element), forces=True)
    return drawings


def _check_baseline(results: StudyResults, random: StudyResults, baseline: pd.DataFrame) -> None:
    data = [one.study.user_attrs.get("question", {}).get("data") for one in (results, random)]
    if data[0] != data[1] or results.objective != random.objective:
        raise BadInput(f"--random {random.name}: has other data or another objective than {results.name}")
    if baseline.empty:
        raise BadInput(f"--random {random.name}: has hardly any trials by the random sampler; tune --sampler random")


def write(drawings: Drawings, out: Path) -> list[Path]:
    """Write figures (PNG, PDF) into a folder."""
    files = []
    for name, draw in drawings.items():
        files += style.save(draw(), out / name)
        plt.close()
    return files


def write_study(results: StudyResults, out: Path, random: StudyResults | None = None) -> list[Path]:
    """Write trials.csv, curves.csv and the figures into a folder; what could not be drawn has a note in its figure."""
    drawings = study_drawings(results, random)  # which may be refused, before anything is written
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "trials.csv", out / "curves.csv"]
    write_whole(files[0], results.trials.to_csv(index=False))
    write_whole(files[1], results.curves.to_csv(index=False))
    return files + write(drawings, out)


def write_comparison(found: Comparison, models: pd.DataFrame, out: Path) -> list[Path]:
    """Write studies.csv, best.csv (the best after every trial), models.csv and figures.

    The learning curve is among them where sizes differ.

    Args:
        models: the best of each study, see `best_models`.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "studies.csv", out / "best.csv", out / "models.csv"]
    write_whole(files[2], models.to_csv(index=False))
    write_whole(files[0], found.studies.to_csv(index=False))
    write_whole(files[1], found.by_trials.to_csv(index=False))
    drawings: dict[str, Callable[[], Figure | Axes]] = {
        "comparison": lambda: comparison(found.by_trials, found.by_epochs, found.studies, found.objective)
    }
    if found.studies["structures"].nunique() > 1:
        sizes = found.studies.rename(columns={"best": "mae"})
        drawings["learning"] = lambda: learning_curve(sizes, style.label(found.objective))
    return files + write(drawings, out)
