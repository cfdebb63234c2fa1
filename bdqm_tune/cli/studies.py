"""The commands that manage studies: status, studies, delete-study, doctor. Heavy imports happen inside them."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bdqm_tune.cli.gpu_check import check_gpu
from bdqm_tune.cli.shared import Json, stores_here
from bdqm_tune.errors import BadInput, BdqmError

if TYPE_CHECKING:
    from bdqm_tune.admin.deletion import Belongings
    from bdqm_tune.services.diagnostics import Finding

STATUS_EXAMPLE = "`bdqm-tune status oc20`, `bdqm-tune status oc20 --json`"
STUDIES_EXAMPLE = "`bdqm-tune studies`"
FRONT_EXAMPLE = "`bdqm-tune front oc20`, `bdqm-tune front oc20 --json`"
DELETE_EXAMPLE = "`bdqm-tune delete-study oc20`"
COPY_EXAMPLE = "`bdqm-tune copy-study oc20 --to servers`"
DOCTOR_EXAMPLE = "`bdqm-tune doctor`, `bdqm-tune doctor --wait`, `bdqm-tune doctor --gpu`"

Name = Annotated[str, typer.Argument(metavar="STUDY", help="Name of the study.")]


def status(study: Name, as_json: Json = False) -> None:
    """Say how a study is doing: trials, the best one, pace, and who works on it."""
    from bdqm_tune.admin.status import status_lines, study_status
    from bdqm_tune.tracking.quiet import quiet_libraries

    quiet_libraries()
    found = study_status(stores_here(), study)
    print(json.dumps(asdict(found)) if as_json else "\n".join(status_lines(found)))


def studies(as_json: Json = False) -> None:
    """List all studies: trials by state, the best value, when they were worked on, and by how many."""
    from bdqm_tune.admin.status import all_studies, table
    from bdqm_tune.study.study import follows_servers, in_files_only
    from bdqm_tune.tracking.quiet import quiet_libraries

    quiet_libraries()
    stores = stores_here()
    found = all_studies(stores)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        print("\n".join(table(found)) if found else "there is no study yet")
    if follows_servers(stores) and (others := in_files_only(stores, [one.study for one in found])):
        command = "`bdqm-tune copy-study STUDY --to servers` brings one here"
        print(f"bdqm-tune: in files of this folder: {', '.join(others)}; {command}", file=sys.stderr)


def front(study: Name, as_json: Json = False) -> None:
    """Show the Pareto front of a study of several objectives, to choose a trial from."""
    from bdqm_tune.study.pareto_front import pareto_front_lines, study_pareto_front
    from bdqm_tune.tracking.quiet import quiet_libraries

    quiet_libraries()
    found = study_pareto_front(stores_here(), study)
    print(json.dumps(asdict(found)) if as_json else "\n".join(pareto_front_lines(found)))


def delete_study(
    study: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a study, its trials and its runs; the runs can be restored until `mlflow gc`."""
    from bdqm_tune.admin.deletion import belongings
    from bdqm_tune.admin.deletion import delete_study as delete
    from bdqm_tune.tracking.client import gc_command

    stores = stores_here()
    found = belongings(stores, study)
    if not yes:
        if not sys.stdin.isatty():
            raise BadInput("delete-study asks on a terminal only; elsewhere, --yes says that it may")
        print("\n".join(_what_goes(found)), file=sys.stderr)
        if not typer.confirm("Delete?", err=True):
            print("nothing was deleted", file=sys.stderr)
            raise typer.Exit(1)
    delete(stores, found)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    print(f"deleted: the study {study}, {found.trials} trials, {len(found.runs)} runs")
    if found.runs:
        print(
            "next:    `mlflow runs restore --run-id ID` brings a run back, until the files and all are removed for good"
        )
        print(f"         by {gc_command(found.tracking_uri)}")


def copy_study(
    study: Name,
    to: Annotated[str, typer.Option("--to", metavar="servers|files", help="Where it is to be.")],
    as_json: Json = False,
) -> None:
    """Copy a study with its trials, runs and models from files to your servers, or from there to files.

    Files are those of this folder, or what BDQM_STORAGE and MLFLOW_TRACKING_URI name."""
    from bdqm_tune.admin.study_copy import copy_study as copy
    from bdqm_tune.services.connection import file_stores, server_stores

    if to not in ("servers", "files"):
        raise BadInput(f"--to must be servers or files, got {to!r}")
    places = {"servers": server_stores(), "files": file_stores()}
    target = places.pop(to)
    (source,) = places.values()
    made = copy(source, target, study, lambda line: print(f"bdqm-tune: {line}", file=sys.stderr, flush=True))
    if as_json:
        print(json.dumps(asdict(made)))
        return
    print(f"copied: the study {study}, {made.trials} trials, {made.runs} runs, to {made.to}")
    if made.models:
        print(f"not copied: registered models, {', '.join(made.models)}; `bdqm-tune register` registers them there")
    print("next:   the one that it was copied from is still there; continue only one of the two")


def _what_goes(found: "Belongings") -> Iterator[str]:
    yield f"the study {found.study}: {found.trials} trials, for good"
    yield f"of MLflow ({found.tracking_uri}): {len(found.runs)} runs, which can be restored until `mlflow gc`"
    if found.experiment is not None:
        yield f"the experiment {found.study}, which has no other runs"
    if found.models:
        yield f"their registered models stay, but cannot be loaded after `mlflow gc`: {', '.join(found.models)}"
    if found.runs_elsewhere:
        yield f"{found.runs_elsewhere} trials have runs that are not in this store; they stay where they are"


def doctor(
    wait: Annotated[
        bool, typer.Option("--wait", help="Watch the workers of other machines for two minutes, too.")
    ] = False,
    gpu: Annotated[
        bool,
        typer.Option("--gpu", help="Only compare the batched trainer with torch's operations, on the GPU."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the environment, the servers and both stores, repair what killed workers left, and say what helps.

    Exit status 1 if something is wrong that only you can fix.
    """
    if gpu:
        check_gpu(as_json)
    found: list[Finding] = []
    for finding in _findings(wait):
        found.append(finding)
        if not as_json:
            print(f"{finding.state:<8} {finding.check:<9} {finding.message}", flush=True)
            if finding.help:
                print(f"{'':<18} {finding.help}", flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in found]))
    raise typer.Exit(1 if any(finding.state == "error" for finding in found) else 0)


def _findings(wait: bool) -> "Iterator[Finding]":
    from bdqm_tune.admin.doctor import check_runs, check_studies, disk, git, gpu, other_packages, packages
    from bdqm_tune.admin.repair import repair_leftovers
    from bdqm_tune.mlflow_server.checks import check_servers
    from bdqm_tune.mlflow_server.paths import ServerPaths
    from bdqm_tune.services.connection import find_stores, services_folder
    from bdqm_tune.services.diagnostics import ERROR, WARNING, Finding
    from bdqm_tune.tracking.quiet import quiet_libraries

    quiet_libraries()
    yield from packages()
    yield from other_packages()
    yield git()
    yield gpu()
    yield from check_servers(ServerPaths(services_folder()))
    try:
        stores = find_stores(wait=False)
    except BdqmError as error:
        yield Finding("stores", ERROR, str(error))
        return
    yield from (Finding("stores", WARNING, note) for note in stores.notes)
    yield disk(Path(stores.home))
    checked = [check_studies(stores), check_runs(stores)]
    yield from checked
    if ERROR in [finding.state for finding in checked]:
        return
    try:
        yield from repair_leftovers(stores, wait)
    except BdqmError as error:
        yield Finding("leftovers", ERROR, str(error))
