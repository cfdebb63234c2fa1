"""The report of a study: one page, the same as Markdown, its tables as CSV and its figures, in a folder.

python -m analysis.report --study STUDY
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bdqm_tune.errors import BdqmError
from bdqm_tune.services.secrets import without_secrets

if TYPE_CHECKING:
    from bdqm_tune.services.connection import Stores

FOLDER = "reports"  # where reports go, each in a folder of its own

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Report:
    """A report that was written."""

    study: str
    folder: str
    html: str
    markdown: str
    html_bytes: int
    run_id: str  # that has it, too; "" where no worker has begun yet


def make_report(stores: Stores, name: str, out: Path | None = None) -> Report:
    """Write the report of a study into a folder, and add it to the study's run of reports in MLflow.

    Args:
        out: None: reports/STUDY.

    Raises:
        BadInput: there is no such study, or the folder cannot be written to.
        BdqmError: a store cannot be read or written.
    """
    from analysis.compare import folder
    from analysis.reporting.facts import gather
    from analysis.reporting.write import write_report
    from bdqm_tune.experiment.output import quiet_libraries
    from bdqm_tune.experiment.report_run import record_report

    quiet_libraries()
    target = folder(name, out, FOLDER)
    facts = gather(stores, name)
    files = write_report(facts, target)
    page, text = files[:2]
    run_id = record_report(stores, facts.study, list(facts.results.runs.index), target, files)
    return Report(name, str(target), str(page), str(text), page.stat().st_size, run_id)


@app.command(epilog="Example: python -m analysis.report --study oc20")
def report(
    study: Annotated[str, typer.Option(help="Name of the study.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default: reports/STUDY.")] = None,
) -> None:
    """Write the report of a study: report.html, which needs nothing else, report.md, tables (CSV) and figures (PNG,
    PDF), in a folder and as artifacts of a run of the study."""
    from bdqm_tune.config import Study
    from bdqm_tune.services.connection import find_stores

    try:
        made = make_report(find_stores(), study or Study().name, out)
    except BdqmError as error:
        print(without_secrets(f"error: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    print("\n".join(report_lines(made)))


def report_lines(made: Report) -> list[str]:
    """Where the report is."""
    from bdqm_tune.units import bytes_text

    run = f", and run {made.run_id}" if made.run_id else ""
    return [f"{made.html}: {bytes_text(made.html_bytes)}", f"report.md, tables and figures: {made.folder}{os.sep}{run}"]


if __name__ == "__main__":
    app()
