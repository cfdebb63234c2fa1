"""Slurm, PBS and this machine run jobs in the same way: one suite over all, and the command line of each."""

import os
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.jobspec import JobSpec, Scheduler
from bdqm_tune.services.local import Local
from bdqm_tune.services.pbs import Pbs, parse_qstat
from bdqm_tune.services.site import Resources, Site
from bdqm_tune.services.slurm import Slurm
from bdqm_tune.services.submission import SCHEDULERS, make_scheduler
from tests.waiting import eventually

NOTHING = Resources(walltime="5:00", cores=1, memory="100M")
PLAIN = Site(scheduler="slurm", tune=NOTHING, servers=NOTHING, interactive=NOTHING, analysis=NOTHING)
GPU = Resources(walltime="8:00:00", cores=6, memory="32G", gpu="V100:1")
PHOENIX = Site(
    scheduler="slurm", account="gts-someone3", queue="embers", tune=GPU, servers=NOTHING, interactive=GPU, analysis=GPU
)

# Says what it was given, and what ends it; as a worker's script, it waits for its children.
SCRIPT = """#!/bin/bash
trap 'echo ended >> "$REPORT"; exit 1' TERM
echo "$VALUE" >> "$REPORT"
sleep 120 &
wait
sleep 5 & # the child may be ended before this shell
wait
"""


@pytest.fixture(params=sorted(SCHEDULERS))
def scheduler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    if request.param != "local":
        for name, value in request.getfixturevalue("slurm").environ.items():
            monkeypatch.setenv(name, value)
    return make_scheduler(request.param)


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    """A job of two workers in a project whose scripts do nothing but report to `report`."""
    for folder in (tmp_path / "jobs", tmp_path / "logs"):
        folder.mkdir()
    for suffix in (".sbatch", ".pbs"):
        (tmp_path / "jobs" / f"tune{suffix}").write_text(SCRIPT)
    variables = {"REPORT": str(tmp_path / "report"), "VALUE": "-P 'note=a, b' -P x=\"1\""}
    return JobSpec("tune", tmp_path, PLAIN, tmp_path / "logs", 2, variables)


@pytest.fixture
def submitted(scheduler: Scheduler, spec: JobSpec) -> Iterator[str]:
    """The id of that job, which has begun."""
    job_id = scheduler.submit(spec)
    eventually(lambda: report(spec) == [spec.variables["VALUE"]] * 2)
    yield job_id
    scheduler.cancel(job_id)


def report(spec: JobSpec) -> list[str]:
    file = Path(spec.variables["REPORT"])
    return file.read_text().splitlines() if file.exists() else []


def test_workers_run_with_their_variables_and_end_by_sigterm(
    scheduler: Scheduler, spec: JobSpec, submitted: str
) -> None:
    states = scheduler.states([submitted])
    assert {state.state for state in states} == {"running"}
    assert {state.node for state in states} == {os.uname().nodename}
    assert {state.job_id.partition("_")[0] for state in states} == {submitted}
    assert scheduler.states(["999999"]) == []
    scheduler.cancel(submitted)
    eventually(lambda: report(spec)[2:] == ["ended"] * 2)
    eventually(lambda: scheduler.states([submitted]) == [])
    scheduler.cancel(submitted)  # once more, which changes nothing
    assert list(spec.logs.iterdir()), "output is where it was asked for"


def test_a_refusal_is_an_error_with_the_schedulers_words(scheduler: Scheduler, spec: JobSpec) -> None:
    if scheduler.name == "local":
        broken = replace(spec, project=spec.project / "nowhere")
    else:
        where = {"slurm": "partition", "pbs": "queue"}[scheduler.name]
        broken = replace(spec, site=PLAIN.model_copy(update={where: "nowhere"}))
    with pytest.raises(BdqmError, match=r"(sbatch|qsub) failed: .*nvalid partition name|cannot start .*tune"):
        scheduler.submit(broken)
    assert report(spec) == []


@pytest.mark.parametrize("kind", [Slurm, Pbs])
def test_where_there_is_no_scheduler(kind: type[Scheduler], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="login node, or --scheduler local"):
        kind().check()


def test_slurms_command() -> None:
    spec = JobSpec("tune", Path("/p"), PHOENIX, Path("/logs"), 8)
    queue = "--account=gts-someone3 --qos=embers"
    large = "--time=8:00:00 --cpus-per-task=6 --mem=32G --gres=gpu:V100:1"
    small = "--time=5:00 --cpus-per-task=1 --mem=100M --gres=none"
    assert shlex.join(Slurm().command(spec)) == (
        f"sbatch --parsable --job-name=bdqm-tune {queue} {large} --signal=B:USR1@120 --array=1-8 "
        "--output=/logs/bdqm-tune-%A_%a.out --export=ALL /p/jobs/tune.sbatch"
    )
    assert shlex.join(Slurm().command(replace(spec, job="servers", workers=0))) == (
        f"sbatch --parsable --job-name=bdqm-servers {queue} {small} --signal=B:USR1@120 "
        "--output=/logs/bdqm-servers-%j.out --export=ALL /p/jobs/servers.sbatch"
    )
    assert shlex.join(Slurm().command(replace(spec, job="analysis", workers=0))) == (
        f"sbatch --parsable --job-name=bdqm-analysis {queue} {large} "
        "--output=/logs/bdqm-analysis-%j.out --export=ALL /p/jobs/analysis.sbatch"
    )
    assert shlex.join(Slurm().command(replace(spec, job="interactive", workers=0))) == (
        f"bash /p/jobs/interactive.sbatch --job-name=bdqm-interactive {queue} {large}"
    )


def test_pbs_command_and_its_successors() -> None:
    spec = JobSpec("tune", Path("/p"), PHOENIX, Path("/my logs"), 8, {"BDQM_SUBMISSION": "pbs-1"})
    resources = "-l nodes=1:ppn=6:gpus=1:V100,mem=32gb,walltime=8:00:00"
    queue = "-A gts-someone3 -q embers"
    assert Pbs().command(spec) == f"qsub -V -N bdqm-tune {queue} {resources} -j oe -t 1-8 /p/jobs/tune.pbs".split()
    assert Pbs().text(spec).splitlines() == [
        "cd '/my logs'",
        "export BDQM_SUBMISSION=pbs-1",
        "export BDQM_WALLTIME=8:00:00",
        f"export BDQM_SUCCESSOR='cd '\"'\"'/my logs'\"'\"' && "
        f"qsub -V -N bdqm-tune {queue} {resources} -j oe /p/jobs/tune.pbs'",
        f"qsub -V -N bdqm-tune {queue} {resources} -j oe -t 1-8 /p/jobs/tune.pbs",
    ]


def test_local_has_no_interactive_jobs(spec: JobSpec) -> None:
    with pytest.raises(BadInput, match="needs a cluster"):
        Local().command(replace(spec, job="interactive"))


def test_torques_full_status() -> None:
    """As Torque's qstat -f prints it, with its continued lines."""
    text = (
        "Job Id: 12.server\n    Job_Name = bdqm-tune\n    job_state = R\n    exec_host = node-3/0-5\n"
        "    Variable_List = PBS_O_HOME=/home/me,\n\tPBS_O_LANG=C\n    Walltime.Remaining = 3541\n\n"
        "Job Id: 13.server\n    job_state = Q\n    comment = Not enough nodes\n\nJob Id: 14.server\n    job_state = C\n"
    )
    running, waiting = parse_qstat(text)
    assert (running.job_id, running.state, running.node, running.time_left) == (
        "12.server",
        "running",
        "node-3",
        "3541",
    )
    assert (waiting.job_id, waiting.state, waiting.node, waiting.reason) == (
        "13.server",
        "pending",
        "",
        "Not enough nodes",
    )


def test_unknown_schedulers_are_refused() -> None:
    with pytest.raises(BadInput, match="unknown scheduler 'lsf'; there are: slurm, pbs, local"):
        make_scheduler("lsf")


def test_workers_cannot_be_less_than_none() -> None:
    with pytest.raises(BadInput, match="--workers must be at least 1, got -1"):
        JobSpec("tune", Path("/p"), PHOENIX, Path("/logs"), -1)
