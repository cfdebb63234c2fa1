"""The command that makes a folder a project, from which jobs are submitted. Heavy imports happen inside it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bdqm_tune.cli.shared import Json

INIT_EXAMPLE = "`bdqm-tune init`, `bdqm-tune init oc20-project`"


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Made if it is not there.")] = Path(),
    replace: Annotated[
        bool, typer.Option("--replace", help="Write scripts that were changed again; never jobs/site.toml.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Lay MLproject and the job scripts of this version into a folder; what is there already stays."""
    from dataclasses import asdict

    from bdqm_tune.services.project import SITE, lay_project

    laid = lay_project(folder, replace)
    if as_json:
        print(json.dumps(asdict(laid)))
        return
    for what, names in (("written", laid.written), ("as it should be", laid.same), ("kept, differs", laid.kept)):
        for name in names:
            print(f"{folder / name}: {what}")
    if set(laid.kept) - {SITE}:
        print("--replace writes again what differs, but for jobs/site.toml")
    print(f"next: edit {folder / SITE}, then `bdqm-tune submit --dry-run` in {folder.absolute()}")
