"""Test the best model of a study once, or its ensemble: metrics, errors of every structure, figures.

python -m analysis.evaluate --study STUDY
python -m analysis.evaluate --study STUDY --ensemble latest
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bdqm_tune.errors import BdqmError

if TYPE_CHECKING:
    import pandas as pd

    from bdqm_tune.experiment.evaluation import Evaluation

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def unit(metric: str) -> str:
    """The unit that a test metric's name implies."""
    if "forces" in metric:
        return "eV/Å"
    if "per_atom" in metric:
        return "eV/atom"
    return "eV" if "energy" in metric or "width" in metric else ""


def metric_lines(metrics: dict[str, float]) -> list[str]:
    """Name, value and unit of every metric, in columns."""
    width = max((len(name) for name in metrics), default=0)
    return [f"{name:<{width}}  {value:>10.4g}  {unit(name)}".rstrip() for name, value in metrics.items()]


def write(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write errors.csv, test_metrics.json and the parity figure, per atom too where structures differ in size; for an
    ensemble also coverage.csv, and the figures of its calibration and its spread."""
    from matplotlib import pyplot as plt

    from analysis.figures import style
    from analysis.figures.parity import parity

    out.mkdir(parents=True, exist_ok=True)
    files = [out / "errors.csv", out / "test_metrics.json"]
    evaluation.errors.to_csv(files[0], index=False)
    record = {
        "study": evaluation.study,
        **({"trials": evaluation.trials} if evaluation.trial is None else {"trial": evaluation.trial}),
        "run_id": evaluation.run_id,
        "metrics": {name: {"value": value, "unit": unit(name)} for name, value in evaluation.metrics.items()},
    }
    files[1].write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    files += style.save(parity(evaluation.errors), out / "parity")
    plt.close()
    if evaluation.errors["n_atoms"].nunique() > 1:
        files += style.save(parity(evaluation.errors, per_atom=True), out / "parity_per_atom")
        plt.close()
    if evaluation.coverage is not None:
        files += _write_uncertainty(evaluation, evaluation.coverage, out)
    return files


def _write_uncertainty(evaluation: Evaluation, coverage: pd.DataFrame, out: Path) -> list[Path]:
    from matplotlib import pyplot as plt

    from analysis.figures import style
    from analysis.figures.coverage import calibration, spread

    files = [out / "coverage.csv"]
    coverage.to_csv(files[0], index=False)
    found = evaluation.metrics
    observed = (found["test_coverage"], found["test_coverage_low"], found["test_coverage_high"])
    files += style.save(calibration(coverage, found["coverage"], observed), out / "calibration")
    plt.close()
    several = evaluation.errors["n_atoms"].nunique() > 1
    files += style.save(spread(evaluation.errors, per_atom=several), out / "spread")
    plt.close()
    return files


@app.command(epilog="Example: python -m analysis.evaluate --study oc20")
def evaluate(
    study: Annotated[str, typer.Option(help="Name of the study.")] = "",
    ensemble: Annotated[
        str, typer.Option(metavar="RUN_ID", help="Evaluate this ensemble of the study; or latest.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; default: figures/STUDY, and figures/STUDY/ensemble.")
    ] = None,
) -> None:
    """Evaluate the best trial of a study, or an ensemble, on the test split: metrics here, errors.csv,
    test_metrics.json and figures (PNG, PDF) in a folder and as artifacts of the evaluation's run."""
    from bdqm_tune.config import Study

    try:
        _evaluate(study or Study().name, ensemble, out)
    except BdqmError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _evaluate(name: str, ensemble: str, out: Path | None) -> None:
    from analysis.compare import folder
    from bdqm_tune.experiment.ensemble_evaluation import evaluate_ensemble
    from bdqm_tune.experiment.evaluation import evaluate_best
    from bdqm_tune.services.connection import find_stores

    target = folder(name, out)  # before the evaluation, so that nothing is recorded whose files have no place
    if ensemble and out is None:
        target = folder(name, target / "ensemble")
    evaluation = evaluate_ensemble(find_stores(), name, ensemble) if ensemble else evaluate_best(find_stores(), name)
    numbers = ", ".join(map(str, evaluation.trials))
    model = f"trial {evaluation.trial}" if evaluation.trial is not None else f"the ensemble of trials {numbers}"
    print(f"{evaluation.study}: {model} on {len(evaluation.errors)} test structures")
    print("\n".join(metric_lines(evaluation.metrics)))
    files = write(evaluation, target)
    for file in files:
        evaluation.log_artifact(file)
    figures = "the parity figure" if evaluation.coverage is None else "figures"
    print(f"errors.csv, test_metrics.json and {figures}: {target}{os.sep}, and run {evaluation.run_id}")


if __name__ == "__main__":
    app()
