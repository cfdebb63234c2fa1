"""Compare the trials of a study, or several studies: a table, the data as CSV, figures.

python -m analysis.compare STUDY
python -m analysis.compare STUDY STUDY …
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.secrets import without_secrets

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 120  # columns, where the output is no terminal

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def folder(name: str, out: Path | None, top: str = "figures") -> Path:
    """The folder for a study's files; nothing is made yet.

    Args:
        out: as the user named it; None: one of the study's own in `top`.

    Raises:
        BadInput: it could not be made or written to.
    """
    out = out or Path(top) / (re.sub(r"[^\w.-]+", "_", name).strip(".")[:100] or "study")
    there = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise BadInput(f"--out {out}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise BadInput(f"--out {out}: no permission to write in {there}")
    return out


@app.command(epilog="Example: python -m analysis.compare oc20 --top 10")
def compare(
    studies: Annotated[list[str], typer.Argument(help="Name of the study; of several, they are set side by side.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for figures and CSV; default: figures/STUDY, or figures/compare-….")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many trials the table shows.")] = 20,
    random: Annotated[
        str, typer.Option(metavar="STUDY", help="Study by the random sampler on the same data, for the baseline.")
    ] = "",
) -> None:
    """Compare the trials of a study: a table here, trials.csv, curves.csv and figures (PNG, PDF) in a folder.

    Of several studies: a table of their best, intervals over repeats (studies that differ in nothing but their seed),
    what can be said of their differences, studies.csv and a figure.
    """
    try:
        repeated = sorted({name for name in studies if studies.count(name) > 1})
        if repeated:
            raise BadInput(f"the study {repeated[0]!r} is given twice")
        if len(studies) == 1:
            _compare_trials(studies[0], out, top, random)
        elif random:
            raise BadInput("--random is the baseline of one study; of several, name it among them")
        else:
            _compare_studies(studies, out)
    except BdqmError as error:
        print(without_secrets(f"error: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)


def _console() -> Console:
    from rich.console import Console

    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=WIDTH)


def _compare_trials(name: str, out: Path | None, top: int, random: str) -> None:
    from analysis.drawings import write_study
    from analysis.tables import summary, table
    from bdqm_tune.experiment.results import load_results
    from bdqm_tune.services.connection import find_stores

    target = folder(name, out)
    stores = find_stores()
    results = load_results(stores, name)
    baseline = load_results(stores, random) if random else None
    console = _console()
    if len(results.trials):
        console.print(table(results.trials, results.hyperparameters, top, console.width, results.objective))
        if len(results.trials) > top:
            print(f"and {len(results.trials) - top} more trials: --top, or trials.csv")
        print()
    print(summary(name, results.trials, results.objective))
    if len(results.objectives) > 1:
        print(f"judged by {', '.join(results.objectives)}: `bdqm-tune front {name}` shows the trials to choose from")
    write_study(results, target, baseline)
    print(f"Figures (PNG, PDF), trials.csv and curves.csv: {target}{os.sep}")


def _compare_studies(names: list[str], out: Path | None) -> None:
    from analysis.comparison import compare_studies, statements
    from analysis.drawings import write_comparison
    from analysis.tables import groups_table
    from bdqm_tune.experiment.results import load_results
    from bdqm_tune.services.connection import find_stores

    target = folder(f"compare-{'-'.join(names)}", out)
    stores = find_stores()
    found = compare_studies([load_results(stores, name) for name in names])
    console = _console()
    console.print(groups_table(found.groups, found.objective))
    print()
    print(f"best of the first {found.budget} trials, which all {len(names)} studies have; intervals: 95 %, bootstrap")
    for line in (*statements(found), *found.notes):
        print(line)
    write_comparison(found, target)
    print(f"Figures (PNG, PDF), studies.csv and best.csv: {target}{os.sep}")


if __name__ == "__main__":
    app()
