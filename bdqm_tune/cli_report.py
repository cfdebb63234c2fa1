"""The command that writes a study's report. Heavy imports happen inside it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bdqm_tune.cli_shared import Json, stores_here

REPORT_EXAMPLE = "`bdqm-tune report oc20`, `bdqm-tune report oc20 --out for-the-group --json`"


def report(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name of the study.")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="For the files; default: reports/STUDY.")] = "",
    as_json: Json = False,
) -> None:
    """Write a study's report: a page (HTML), the same as Markdown, tables (CSV) and figures; in a folder and MLflow."""
    from dataclasses import asdict

    from analysis.report import make_report, report_lines

    made = make_report(stores_here(), study, Path(out) if out else None)
    print(json.dumps(asdict(made)) if as_json else "\n".join(report_lines(made)))
