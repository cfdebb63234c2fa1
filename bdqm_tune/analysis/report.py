"""The report of a study: one page, the same as Markdown, its tables as CSV and its figures, in a folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from bdqm_tune.admin.runs import record_report
from bdqm_tune.analysis.folders import REPORTS, output_folder
from bdqm_tune.analysis.reporting.facts import gather
from bdqm_tune.analysis.reporting.write import write_report
from bdqm_tune.services.connection import Stores
from bdqm_tune.tracking.quiet import quiet_libraries
from bdqm_tune.units import bytes_text


@dataclass(frozen=True)
class Report:
    """A report that was written."""

    study: str
    folder: str
    html: str
    markdown: str
    html_bytes: int
    run_id: str  # that has it, too; "" where no worker has begun yet


def make_report(stores: Stores, name: str, out: str | Path = REPORTS) -> Report:
    """Write the report of a study into a folder, and add it to the study's run of reports in MLflow.

    Args:
        out: the folder; one that ends with a slash gets a folder of the study's own.

    Raises:
        BadInput: there is no such study, or the folder cannot be written to.
        BdqmError: a store cannot be read or written.
    """
    quiet_libraries()
    target = output_folder(name, out)
    facts = gather(stores, name)
    files = write_report(facts, target)
    page, text = files[:2]
    run_id = record_report(stores, facts.study, list(facts.results.runs.index), target, files)
    return Report(name, str(target), str(page), str(text), page.stat().st_size, run_id)


def report_lines(made: Report) -> list[str]:
    """Where the report is."""
    run = f", and run {made.run_id}" if made.run_id else ""
    return [f"{made.html}: {bytes_text(made.html_bytes)}", f"report.md, tables and figures: {made.folder}{os.sep}{run}"]
