"""The command that writes a study's report. Heavy imports happen inside it."""

import json
from typing import Annotated

import typer

from bdqm_tune.cli.shared import Json, stores_here

REPORT_EXAMPLE = "`bdqm-tune report oc20`, `bdqm-tune report oc20 --out for-the-group --json`"


def report(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name of the study.")],
    out: Annotated[
        str,
        typer.Option(metavar="FOLDER", help="For the files; one that ends with / gets a folder of the study's own."),
    ] = "reports/",
    as_json: Json = False,
) -> None:
    """Write a study's report: a page (HTML), the same as Markdown, tables (CSV) and figures; in a folder and MLflow."""
    from dataclasses import asdict

    from bdqm_tune.analysis.report import make_report, report_lines
    from bdqm_tune.config.config import Study

    made = make_report(stores_here(), study or Study().name, out)
    print(json.dumps(asdict(made)) if as_json else "\n".join(report_lines(made)))
