"""Compare the trials of a study: a table, the data as CSV, figures.

python -m analysis.compare STUDY
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.units import OBJECTIVE_UNITS

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

    from bdqm_tune.experiment.results import StudyResults

STATES = ("complete", "pruned", "failed", "running", "waiting")
WIDTH = 120  # columns, where the output is no terminal
MAE = "val_energy_mae"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def best_first(trials: pd.DataFrame, objective: str = MAE) -> pd.DataFrame:
    """Complete trials by their objective, then pruned ones by theirs, then what has no result."""
    rank = trials["state"].map({state: position for position, state in enumerate(STATES)})
    return trials.assign(_rank=rank).sort_values(["_rank", objective, "number"]).drop(columns="_rank")


def summary(name: str, trials: pd.DataFrame, objective: str = MAE) -> str:
    """How many trials came to what, the best one, and the time they took, in one line."""
    counts = trials["state"].value_counts()
    total = f"{len(trials)} {'trial' if len(trials) == 1 else 'trials'}"
    parts = [f"{name}: {total}", ", ".join(f"{counts[state]} {state}" for state in STATES if state in counts)]
    first = best_first(trials, objective).head(1)
    if first["state"].eq("complete").any():
        best = first.iloc[0]
        parts.append(f"best trial {best['number']} with {best[objective]:.4g} {OBJECTIVE_UNITS[objective]}")
    else:
        parts.append("none complete yet")
    hours = trials["trial_seconds"].astype(float).sum() / 3600
    parts.append(f"{hours:.1f} h in trials" if hours >= 0.1 else f"{hours:.3f} h in trials")
    return "; ".join(part for part in parts if part)


def table(
    trials: pd.DataFrame, hyperparameters: list[str], top: int, width: int = WIDTH, objective: str = MAE
) -> Table:
    """The best `top` trials, in `width` columns.

    A hyperparameter that is the same in all of them stands below, as do the names of those that found no room.
    """
    from rich.console import Console

    rows = best_first(trials, objective).head(top)
    varied = [name for name in hyperparameters if len(rows) == 1 or rows[name].astype(str).nunique() > 1]
    same = [f"{name} {_setting(rows[name].iloc[0])}" for name in hyperparameters if name not in varied and len(rows)]
    notes = [f"the same in all: {', '.join(same)}"] if same else []
    console = Console(width=10_000)
    for room in range(len(varied), -1, -1):
        left_out = [f"in trials.csv: {', '.join(varied[room:])}"] if room < len(varied) else []
        result = _table(rows, varied[:room], "\n".join(notes + left_out), objective)
        if console.measure(result).maximum <= width:
            break
    return result


def _table(rows: pd.DataFrame, hyperparameters: list[str], caption: str, objective: str) -> Table:
    from rich import box
    from rich.table import Table

    result = Table(
        box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False, caption=caption or None,
        caption_justify="left", caption_style="",
    )  # fmt: skip
    for heading in (
        "trial",
        "state",
        f"MAE\n({OBJECTIVE_UNITS[objective]})",
        "best/\nepochs",
        "param-\neters",
        "seconds",
    ):
        result.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
    for name in hyperparameters:
        result.add_column(_heading(name), justify="right", no_wrap=True)
    for row in rows.to_dict("records"):
        result.add_row(
            f"{row['number']}",
            row["state"],
            _number(row[objective], ".4g"),
            f"{_number(row['best_epoch'])}/{_number(row['epochs'])}",
            _number(row["n_parameters"]),
            _number(row["trial_seconds"], ".1f"),
            *(_setting(row[name]) for name in hyperparameters),
        )
    return result


def _heading(name: str) -> str:
    """A hyperparameter's name over several lines, so that a narrow column holds it."""
    parts = []
    for word in name.replace("descriptor.", "descr._").split("_"):
        half = (len(word) + 1) // 2
        parts += [word] if len(word) < 9 else [word[:half] + "-", word[half:]]
    return "\n".join(parts)


def _number(value: float, form: str = ".0f") -> str:
    return "–" if value != value else f"{value:{form}}"


def _setting(value: Any) -> str:
    """A hyperparameter's value in a narrow column: three digits of a number, 2.2e-3 of a small one."""
    if hasattr(value, "item"):
        value = value.item()
    if value is None or value != value:
        return "–"
    if isinstance(value, str | bool):
        return str(value)
    if float(value).is_integer():
        return str(int(value))
    if abs(value) >= 0.01:
        return f"{value:.3g}"
    from analysis.figures.style import short

    return short(value, digits=1)


def folder(name: str, out: Path | None) -> Path:
    """The folder for a study's files; nothing is made yet.

    Raises:
        BadInput: it could not be made or written to.
    """
    out = out or Path("figures") / (re.sub(r"[^\w.-]+", "_", name).strip(".") or "study")
    there = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise BadInput(f"--out {out}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise BadInput(f"--out {out}: no permission to write in {there}")
    return out


def write(results: StudyResults, out: Path) -> list[Path]:
    """Write trials.csv, curves.csv and the figures into a folder; what could not be drawn has a note in its figure."""
    from matplotlib import pyplot as plt

    from analysis.figures import style
    from analysis.figures.curves import validation_curves
    from analysis.figures.history import optimisation_history
    from analysis.figures.importance import compute_importance, parameter_importance
    from analysis.figures.slices import slices

    out.mkdir(parents=True, exist_ok=True)
    files = [out / "trials.csv", out / "curves.csv"]
    results.trials.to_csv(files[0], index=False)
    results.curves.to_csv(files[1], index=False)
    drawings: dict[str, Callable[[], Figure | Axes]] = {
        "history": lambda: optimisation_history(results.trials, results.objective),
        "curves": lambda: validation_curves(results.curves, results.trials, results.objective),
        "importance": lambda: parameter_importance(compute_importance(results.study)),
        "slices": lambda: slices(results.trials, results.hyperparameters, results.objective),
    }
    for name, draw in drawings.items():
        files += style.save(draw(), out / name)
        plt.close()
    return files


@app.command(epilog="Example: python -m analysis.compare oc20 --top 10")
def compare(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    out: Annotated[Path | None, typer.Option(help="Folder for figures and CSV; default: figures/STUDY.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many trials the table shows.")] = 20,
) -> None:
    """Compare the trials of a study: a table here, trials.csv, curves.csv and figures (PNG, PDF) in a folder."""
    try:
        _compare(study, out, top)
    except BdqmError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _compare(name: str, out: Path | None, top: int) -> None:
    from rich.console import Console

    from bdqm_tune.experiment.results import load_results
    from bdqm_tune.services.connection import find_stores

    target = folder(name, out)
    results = load_results(find_stores(), name)
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=WIDTH)
    if len(results.trials):
        console.print(table(results.trials, results.hyperparameters, top, console.width, results.objective))
        if len(results.trials) > top:
            print(f"and {len(results.trials) - top} more trials: --top, or trials.csv")
        print()
    print(summary(name, results.trials, results.objective))
    write(results, target)
    print(f"Figures (PNG, PDF), trials.csv and curves.csv: {target}{os.sep}")


if __name__ == "__main__":
    app()
