"""Test the best model of a study, or its ensemble: metrics with intervals and baselines, tables, figures.

python -m analysis.evaluate --study STUDY
python -m analysis.evaluate --study STUDY --ensemble latest
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bdqm_tune.errors import BdqmError
from bdqm_tune.services.secrets import without_secrets

if TYPE_CHECKING:
    from bdqm_tune.experiment.evaluation_record import Evaluation

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def metric_lines(metrics: dict[str, float]) -> list[str]:
    """Name, value, interval and unit of every metric, in columns, and beside it that of the baselines."""
    from analysis.metrics_table import metrics_table

    rows: list[tuple[str, ...]] = [("", "value", "95 % interval", "unit", "mean energy", "references")]
    for row in metrics_table(metrics).to_dict("records"):
        interval = f"{_number(row['low'])} to {_number(row['high'])}" if row["low"] == row["low"] else ""
        value, *baselines = (_number(row[key]) for key in ("value", "mean energy", "references"))
        rows.append((row["metric"], value, interval, row["unit"], *baselines))
    shown = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in shown]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*shown, strict=True)
    ]


def _number(value: float) -> str:
    return "" if value != value else f"{value:.4g}"


def write(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write the tables, test_metrics.json and the figures (PNG, PDF) into a folder."""
    from analysis.drawings import evaluation_drawings
    from analysis.drawings import write as draw
    from bdqm_tune.experiment.evaluation_record import write_record

    out.mkdir(parents=True, exist_ok=True)
    return [*write_record(evaluation, out), *draw(evaluation_drawings(evaluation), out)]


@app.command(epilog="Example: python -m analysis.evaluate --study oc20")
def evaluate(
    study: Annotated[str, typer.Option(help="Name of the study.")] = "",
    ensemble: Annotated[
        str, typer.Option(metavar="RUN_ID", help="Evaluate this ensemble of the study; or latest.")
    ] = "",
    trial: Annotated[
        str, typer.Option(metavar="N", help="Evaluate this trial: of several objectives, one of the front.")
    ] = "",
    reopen: Annotated[
        str, typer.Option(metavar="REASON", help="Why the test split is opened for one more model; stays on record.")
    ] = "",
    train: Annotated[str, typer.Option(metavar="FILE", help="The training file, if it has moved since.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; default: figures/STUDY, and figures/STUDY/ensemble.")
    ] = None,
) -> None:
    """Evaluate the best trial of a study, or an ensemble, on the test split, which is opened for one model: metrics
    here; tables (CSV), test_metrics.json and figures (PNG, PDF) in a folder and as artifacts of the evaluation's run.
    """
    from bdqm_tune.config import Study

    try:
        _evaluate(study or Study().name, ensemble, out, reopen, train, trial)
    except BdqmError as error:
        print(without_secrets(f"error: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)


def _evaluate(name: str, ensemble: str, out: Path | None, reopen: str, train: str, trial: str) -> None:
    from analysis.compare import folder
    from bdqm_tune.cli_models import picked_trial
    from bdqm_tune.experiment.ensemble_evaluation import evaluate_ensemble
    from bdqm_tune.experiment.evaluation import evaluate_best
    from bdqm_tune.services.connection import find_stores

    picked = picked_trial(trial, ensemble)
    target = folder(name, out)  # before the evaluation, so that nothing is recorded whose files have no place
    if ensemble and out is None:
        target = folder(name, target / "ensemble")
    stores, options = find_stores(), {"reopen": reopen, "train": train}
    evaluation = (
        evaluate_ensemble(stores, name, ensemble, **options)
        if ensemble
        else evaluate_best(stores, name, **options, trial=picked)
    )
    print(f"{evaluation.study}: {evaluation.opening.model} on {len(evaluation.errors)} test structures")
    print(opening_line(evaluation))
    print("\n".join(metric_lines(evaluation.metrics)))
    files = write(evaluation, target)
    for file in files:
        evaluation.log_artifact(file)
    print(f"tables, test_metrics.json and figures: {target}{os.sep}, and run {evaluation.run_id}")


def opening_line(evaluation: Evaluation) -> str:
    """When the test split was opened, and why again."""
    opening = evaluation.opening
    line = f"test split opened on {opening.time}"
    if opening.reason:
        line += f"; opening {opening.number} of this study: {opening.reason}"
    return line + ("; this is the record of then, nothing was evaluated again" if evaluation.repeated else "")


if __name__ == "__main__":
    app()
