"""The commands `submit`, `jobs` and `cancel`: work on a cluster. Heavy imports happen inside them."""

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bdqm_tune.cli.shared import Json, stores_here, tune_overrides
from bdqm_tune.errors import BadInput, BdqmError, argument
from bdqm_tune.user import expanded

if TYPE_CHECKING:
    from bdqm_tune.services.jobspec import JobSpec, JobState, Scheduler
    from bdqm_tune.services.site import Changes, Site
    from bdqm_tune.services.submissions import Submission

JOBS = ("tune", "servers", "analysis", "interactive")
FILES = ("train", "test", "validation", "config")  # parameters that name a file
SUBMIT_EXAMPLE = "`bdqm-tune submit --workers 8 --n-trials 200 --study oc20 --train train.traj`"
JOBS_EXAMPLE = "`bdqm-tune jobs`"
CANCEL_EXAMPLE = "`bdqm-tune cancel oc20`, or a job's id, or `servers`"


def submit(
    context: typer.Context,
    job: Annotated[str, typer.Option(metavar="NAME", help=f"Which script of jobs/: {', '.join(JOBS)}.")] = "tune",
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Workers on the study, a job each.")] = 1,
    n_trials: Annotated[str, typer.Option(metavar="N", help="Trials to add, by all workers together.")] = "",
    study: Annotated[str, typer.Option(metavar="NAME", help="Name of the study.")] = "",
    walltime: Annotated[str, typer.Option(metavar="TIME", help="In place of site.toml's, such as 2:00:00.")] = "",
    wait: Annotated[float, typer.Option(metavar="MINUTES", help="To wait for the servers' job.")] = 30,
    site: Annotated[str, typer.Option(metavar="FILE", help="Default: jobs/site.toml, or $BDQM_SITE.")] = "",
    scheduler: Annotated[
        str, typer.Option(metavar="NAME", help="slurm, pbs, pbspro or local, in place of site.toml's.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print scripts and commands, and submit nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Submit workers to the cluster, and the servers first where none run. Other options are those of `tune`."""
    from bdqm_tune.services.connection import home_folder, services_folder
    from bdqm_tune.services.project import find_project
    from bdqm_tune.services.site import load_site
    from bdqm_tune.services.submission import bring_servers_up, check_times, make_scheduler, servers_answer
    from bdqm_tune.services.submission import submit as submit_job
    from bdqm_tune.services.submissions import records_folder

    if job not in JOBS:
        raise BadInput(f"--job: unknown job {job!r}; there are: {', '.join(JOBS)}")
    project, home = find_project(), home_folder()
    given = {"study": study, "n_trials": n_trials} | _others(context.args)
    parameters = {name: value for name, value in given.items() if value}
    site_file = Path(site or os.environ.get("BDQM_SITE") or project / "jobs" / "site.toml").absolute()
    options = {(job, "walltime"): ("--walltime", walltime), ("", "scheduler"): ("--scheduler", scheduler)}
    changes = {place: given for place, given in options.items() if given[1]}
    chosen = load_site(site_file, changes)
    if job == "tune":
        parameters, chosen = _for_workers(parameters, chosen, site_file, changes)
    elif set(parameters) - {"study"}:
        raise BadInput(f"--job {job} takes no options of `tune` but --study; got {', '.join(parameters)}")
    variables = {
        "BDQM_PROJECT": str(project),
        "BDQM_HOME": str(home),
        "BDQM_SERVICES": str(services_folder()),
        "BDQM_SITE": str(site_file),
        **chosen.variables(),
    }
    if job == "tune":
        variables["BDQM_PARAMETERS"] = shlex.join(
            part for name, value in parameters.items() for part in ("-P", f"{name}={value}")
        )
    elif job == "analysis":
        variables["BDQM_STUDY"] = parameters.setdefault("study", "default")
    queue = make_scheduler(chosen.scheduler)
    check_times(queue, chosen, f"site {site_file}", job if walltime else "")
    is_example = chosen.is_example and chosen.scheduler != "local"
    logs = home / "jobs" / "logs"
    spec = _spec(job, project, chosen, logs, workers if job == "tune" else 0, variables)
    common = {name: value for name, value in variables.items() if name not in ("BDQM_PARAMETERS", "BDQM_STUDY")}
    servers = _spec("servers", project, chosen, logs, 0, common)
    connection_file = services_folder() / "connection.json"
    needs_servers = job in ("tune", "analysis") and not {"BDQM_STORAGE", "MLFLOW_TRACKING_URI"} <= os.environ.keys()
    if dry_run:
        if is_example:
            print(
                f"# account {chosen.account!r} is an example: before you submit, write your group's into {site_file}\n"
            )
        if needs_servers and not servers_answer(connection_file):
            _show(queue, servers)
        _show(queue, spec)
        return
    if is_example:
        raise BadInput(
            f"site {site_file}: account: {chosen.account!r} is an example; write your group's, or leave it empty"
        )
    queue.check()
    if job == "interactive":
        command = queue.command(spec)
        os.chdir(queue.folder(spec))
        os.execvpe(command[0], command, spec.environ)
    folder = records_folder(home)
    if job in ("tune", "analysis") and not needs_servers:
        from bdqm_tune.tracking.embedded import make_tracking_file
        from bdqm_tune.tracking.quiet import quiet_libraries

        quiet_libraries()
        make_tracking_file(os.environ["MLFLOW_TRACKING_URI"])  # several `mlflow run` at once would each make its tables
    if needs_servers:
        bring_servers_up(queue, servers, folder, connection_file, wait, _say)
    submission = submit_job(queue, spec, folder, parameters.get("study", "") if job != "servers" else "")
    if as_json:
        from dataclasses import asdict

        print(json.dumps(asdict(submission)))
        return
    _tell(submission)


def jobs(
    all_: Annotated[bool, typer.Option("--all", help="Those that have ended, too.")] = False, as_json: Json = False
) -> None:
    """Show the jobs that were submitted from here: state, node, time left, trials of their study that are done."""
    found = [(record, state) for record in _records() for state in _states(record, all_)]
    trials = _trials() if found else {}
    if as_json:
        from dataclasses import asdict

        nothing = {"trials_done": None, "trials": None}
        print(json.dumps([asdict(r) | asdict(s) | trials.get(r.study, nothing) for r, s in found]))
        return
    if not found:
        print("no job waits or runs" + ("" if all_ else "; --all shows those that have ended"))
        return
    done = {study: f"{counts['trials_done']}/{counts['trials']}" for study, counts in trials.items()}
    rows = [("JOB", "WHAT", "STUDY", "TRIALS", "STATE", "NODE", "TIME LEFT", "WHY IT WAITS")]
    rows += [
        (s.job_id, r.job, r.study, done.get(r.study, ""), s.state, s.node, s.time_left, s.reason) for r, s in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
    for study in sorted({record.study for record, _ in found if record.study}):
        print(f"next: `bdqm-tune status {argument(study)}` shows how far the study is")


def cancel(
    what: Annotated[list[str], typer.Argument(metavar="WHAT…", help="Ids of jobs, names of studies, or `servers`.")],
) -> None:
    """End jobs: workers requeue their trials for the next ones."""
    from bdqm_tune.services.connection import home_folder
    from bdqm_tune.services.submission import make_scheduler, without_id

    alive = [record for record in _records() if _states(record, ended=False)]
    chosen = []
    for name in what:
        matching = [r for r in alive if name in (r.job_id, r.study) or (name == "servers" and r.job == "servers")]
        if not matching:
            there = ", ".join(f"{r.job_id or '?'} ({r.study or r.job})" for r in alive) or "none"
            base = re.sub(r"_\[?[\d,-]+\]?$", "", re.sub(r"\[\d+\]", "[]", name))  # of a task in an array
            whole = base in {record.job_id for record in alive} - {""}
            hint = f"; `bdqm-tune cancel {shlex.quote(base)}` ends all of that array" if whole else ""
            raise BadInput(f"no job {name!r} waits or runs; there are: {there}{hint}")
        chosen += [record for record in matching if record not in chosen]
    for record in chosen:
        scheduler = make_scheduler(record.scheduler)
        if not record.job_id:
            raise BadInput(f"{without_id(record, scheduler, home_folder() / 'jobs')}; then call this again")
        scheduler.cancel(record.job_id)
        print(f"cancelled: job {record.job_id} ({record.study or record.job})")


def _others(arguments: list[str]) -> dict[str, str]:
    """`--epochs 60 --set=lr=1e-3 -P seed=1` as parameters of `mlflow run`."""
    found: dict[str, str] = {}
    left = list(arguments)
    while left:
        option = left.pop(0)
        if not option.startswith("-"):
            raise BadInput(f"unexpected argument {option!r}; options of `tune` are given as --name value")
        name, equals, value = option.removeprefix("--").partition("=")
        if not equals or option == "-P":
            if not left:
                raise BadInput(f"{option} needs a value")
            value = left.pop(0)
        if option == "-P":
            name, _, value = value.partition("=")
        found[name.replace("-", "_")] = value
    return found


def _for_workers(
    parameters: dict[str, str], site: "Site", site_file: Path, changes: "Changes"
) -> tuple[dict[str, str], "Site"]:
    """The parameters of workers, checked here as each worker would hours later; and the site, without GPU where the
    CPU is requested."""
    from bdqm_tune.config.config import load_config
    from bdqm_tune.services.secrets import refuse_secrets
    from bdqm_tune.services.site import load_site
    from bdqm_tune.structures.sources import ALL, Source, absolute, exists, find_sources

    refuse_secrets(parameters)
    for name in FILES:
        given = parameters.get(name, "builtin")
        if given == "builtin":
            continue
        sources = find_sources(given) if name != "config" else [Source(str(expanded(given)), ALL)]
        for source in sources:
            if not exists(source.path):
                raise BadInput(f"--{name} {source.path}: no such file")
        parameters = parameters | {name: absolute(given)}
    config = load_config(parameters.get("config"), tune_overrides(parameters))
    parameters = parameters | {"study": config.study.name}  # which the script needs, and a file may set
    if parameters.get("device") == "cpu" and site.tune.gpu:
        site = load_site(site_file, {**changes, ("tune", "gpu"): ("--device", "")})
    if not site.tune.gpu:
        parameters = {"device": "cpu"} | parameters
    return parameters, site


def _spec(job: str, project: Path, site: "Site", logs: Path, workers: int, variables: Mapping[str, str]) -> "JobSpec":
    from bdqm_tune.services.jobspec import JobSpec

    return JobSpec(job, project, site, logs, workers, variables)


def _show(queue: "Scheduler", spec: "JobSpec") -> None:
    """What would be submitted."""
    print(f"# {queue.script(spec)}")
    print(queue.script(spec).read_text(encoding="utf-8"))
    print(f"# how it would be submitted\n{queue.text(spec)}\n")


def _tell(submission: "Submission") -> None:
    """Which job it is, and how to follow it."""
    count = f", {submission.workers} workers" if submission.job == "tune" else ""
    print(f"submitted: job {submission.job_id} ({submission.job}{count})")
    print(f"output     {submission.logs}")
    print("next       bdqm-tune jobs                shows whether they wait or run")
    if submission.study:
        print(f"           bdqm-tune status {shlex.quote(submission.study):<12} shows how far the study is")
        print("           bdqm-tune services url        shows MLflow's page")
    print(f"           bdqm-tune cancel {shlex.quote(submission.job_id):<12} ends them")


def _records() -> "list[Submission]":
    from bdqm_tune.services.connection import home_folder
    from bdqm_tune.services.submissions import read_records

    return read_records(home_folder() / "jobs")


def _trials() -> dict[str, dict[str, int | None]]:
    """How many trials each study has, and has done; nothing where the database does not answer at once."""
    from bdqm_tune.admin.status import all_studies
    from bdqm_tune.services.submission import servers_answer

    with suppress(BdqmError):
        stores = stores_here(wait=False)
        if stores.storage is None and stores.connection_file is not None and not servers_answer(stores.connection_file):
            return {}
        return {
            one.study: {"trials_done": done, "trials": done + one.waiting + one.running}
            for one in all_studies(stores)
            for done in [one.complete + one.pruned + one.failed]
        }
    return {}


def _states(record: "Submission", ended: bool) -> "list[JobState]":
    from bdqm_tune.services.jobspec import JobState
    from bdqm_tune.services.submission import make_scheduler

    if record.is_made_now:
        return [JobState("?", "being submitted")]
    if not record.job_id:
        return [JobState("?", "not known", reason=f"no id came back: see `{make_scheduler(record.scheduler).queue}`")]
    states = make_scheduler(record.scheduler).states([record.job_id])
    return states or ([JobState(record.job_id, "ended")] if ended else [])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
