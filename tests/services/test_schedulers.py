"""Slurm, PBS and this machine run jobs in the same way: one suite over all, and the command line of each."""

import json
import os
import re
import shlex
import subprocess
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.jobspec import JobSpec, NoAnswer, Scheduler
from bdqm_tune.services.local import Local
from bdqm_tune.services.pbs import Pbs, parse_qstat
from bdqm_tune.services.pbspro import PbsPro, parse_json
from bdqm_tune.services.site import Resources, Site
from bdqm_tune.services.slurm import Slurm
from bdqm_tune.services.submission import make_scheduler
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


@pytest.fixture(params=["slurm", "pbs", "local"])  # those that run here: Slurm answers to PBS's commands as well
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


@pytest.mark.parametrize("kind", [Slurm, Pbs, PbsPro])
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


def test_pbs_command_and_its_successors(commands: Callable[..., None], tmp_path: Path) -> None:
    commands("qsub", "")
    spec = JobSpec("tune", Path("/p"), PHOENIX, Path("/my logs"), 8, {"BDQM_SUBMISSION": "pbs-1"})
    resources = "-l nodes=1:ppn=6:gpus=1:V100,mem=32gb,walltime=8:00:00"
    queue = "-A gts-someone3 -q embers"
    assert Pbs().command(spec) == f"qsub -V -N bdqm-tune {queue} {resources} -j oe -t 1-8 /p/jobs/tune.pbs".split()
    assert Pbs().text(spec).splitlines() == [
        "mkdir -p '/my logs'",
        "cd '/my logs'",
        "export BDQM_SUBMISSION=pbs-1",
        "export BDQM_WALLTIME=28800",
        f"export BDQM_SUCCESSOR='cd '\"'\"'/my logs'\"'\"' && "
        f"{tmp_path}/commands/qsub -V -N bdqm-tune {queue} {resources} -j oe /p/jobs/tune.pbs'",
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


def test_further_flags_come_last_and_win() -> None:
    site = PHOENIX.model_copy(update={"extra": ["--constraint=a b"], "tune": GPU.model_copy(update={"extra": ["-x"]})})
    spec = JobSpec("tune", Path("/p"), site, Path("/logs"), 2)
    command = Slurm().command(spec)
    assert command.index("--gres=gpu:V100:1") < command.index("--constraint=a b") < command.index("-x")
    for kind in (Pbs, PbsPro):
        command = kind().command(spec)
        assert command.index("embers") < command.index("--constraint=a b") < command.index("-x") < len(command) - 1


def test_pbs_professionals_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    spec = JobSpec("tune", Path("/p"), PHOENIX, Path("/logs"), 8)
    begin = "qsub -C #NONE -v BDQM_PACKED -V -N bdqm-tune -A gts-someone3 -q embers"
    resources = "-l select=1:ncpus=6:ngpus=1:gpu_type=V100:mem=32gb -l walltime=8:00:00"
    assert PbsPro().command(spec) == f"{begin} {resources} -j oe -J 1-8 /p/jobs/tune.pbs".split()
    assert "-J" not in PbsPro().command(replace(spec, workers=1)), "it has no arrays of one task"
    assert PbsPro().with_successor(spec).variables["BDQM_SUCCESSOR"] == (
        f"cd /logs && {begin.replace('#NONE', repr('#NONE'))} {resources} -j oe /p/jobs/tune.pbs"
    )
    assert shlex.join(PbsPro().command(replace(spec, job="interactive", workers=0))) == (
        f"bash /p/jobs/interactive.pbs -N bdqm-interactive -A gts-someone3 -q embers {resources}"
    )
    small = replace(spec, job="servers", workers=0)
    assert "select=1:ncpus=1:mem=100mb" in PbsPro().command(small)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put commands that print a text, and end with a status, before all others."""
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name: str, output: str, status: int = 0) -> None:
        (folder / f"{name}.out").write_bytes(output.encode("latin-1", "replace"))
        (folder / name).write_text(f'#!/bin/bash\necho "$@" >> {name}.called\ncat {folder}/{name}.out\nexit {status}\n')
        (folder / name).chmod(0o755)

    monkeypatch.chdir(tmp_path)
    return put


JOBS = Path(__file__).parents[2] / "jobs"
GREETING = "  Willkommen auf dem Gro\xdfrechner\n\nchecking 3 allocations ... OK\n"


@pytest.mark.parametrize(
    ("kind", "command", "output", "job_id"),
    [
        (Slurm, "sbatch", "811204\n", "811204"),
        (Slurm, "sbatch", f"{GREETING}811204;larix\nGood bye\n", "811204"),
        (Slurm, "sbatch", f"{GREETING}Submitted batch job 811204\n\n", "811204"),
        (Slurm, "sbatch", "Submitted batch job 811204 on cluster larix\n", "811204"),
        (Slurm, "sbatch", "12\n811204\n", "811204"),
        (Slurm, "sbatch", "\x1b[32m811204\x1b[0m\n", "811204"),
        (Pbs, "qsub", f"{GREETING}4711[].server\n", "4711[].server"),
        (Pbs, "qsub", f"{GREETING}4711\n", "4711"),
        (PbsPro, "qsub", f"{GREETING}4711[].pbs-01.site\n", "4711[].pbs-01.site"),
    ],
)
def test_an_id_is_found_in_what_a_site_prints(
    commands: Callable[..., None], spec: JobSpec, kind: type[Scheduler], command: str, output: str, job_id: str
) -> None:
    commands(command, output)
    assert kind().submit(spec) == job_id


@pytest.mark.parametrize(("kind", "command"), [(Slurm, "sbatch"), (Pbs, "qsub"), (PbsPro, "qsub")])
def test_no_id_at_all_is_no_refusal(
    commands: Callable[..., None], spec: JobSpec, kind: type[Scheduler], command: str
) -> None:
    commands(command, "job a/b taken\n")
    with pytest.raises(NoAnswer, match=f"{command} took the job, and no line of what it printed is an id: 'job a/b"):
        kind().submit(spec)


def test_a_command_that_fails_after_it_printed_an_id_is_no_refusal(
    commands: Callable[..., None], spec: JobSpec
) -> None:
    """As where a site's hook after the submission fails."""
    commands("sbatch", "Submitted batch job 77\npost hook: mail failed\n", 3)
    with pytest.raises(NoAnswer, match=r"sbatch failed: .*mail failed \(and what it printed has an id, 77\)"):
        Slurm().submit(spec)


def test_an_id_on_standard_error_is_one(commands: Callable[..., None], spec: JobSpec, tmp_path: Path) -> None:
    (tmp_path / "commands" / "sbatch").write_text("#!/bin/bash\necho 123 >&2\n")
    (tmp_path / "commands" / "sbatch").chmod(0o755)
    assert Slurm().submit(spec) == "123"


def test_slurms_queue_beneath_a_greeting(commands: Callable[..., None]) -> None:
    lines = "CLUSTER: larix\n\n8|8_1|RUNNING|n7|0:59:00|None\n9|9|PENDING||1:00:00|a|b\n7|7|RUNNING|n1|1|None\n"
    commands("squeue", GREETING + lines)
    running, waiting = Slurm().states(["8", "9"])
    assert (running.job_id, running.state, running.node, running.time_left, running.reason) == (
        "8_1",
        "running",
        "n7",
        "0:59:00",
        "",
    )
    assert (waiting.job_id, waiting.state, waiting.time_left, waiting.reason) == ("9", "pending", "", "a|b")


def test_pbs_professional_gets_the_variables_in_one(spec: JobSpec) -> None:
    """As its version 23.06.06 loses what -V is to pass, and quotes in what -v passes."""
    spec = replace(spec, variables={"NAME": "a 'b' \"c\",\n$(x) é", "N": ""})
    for job in ("tune", "analysis"):
        variables = PbsPro().with_successor(replace(spec, job=job)).variables
        assert re.fullmatch(r"[\w+/]+", variables["BDQM_PACKED"]), "nothing that a scheduler would read"
        for script in ("tune", "servers", "analysis", "interactive"):
            (line,) = re.findall(r"^eval .*BDQM_PACKED.*$", (JOBS / f"{script}.pbs").read_text(), re.MULTILINE)
            done = subprocess.run(
                ["bash", "-euc", f'{line}\nprintf "%s\\0" "$NAME" "$N" "${{BDQM_SUCCESSOR:-none}}"'],
                env={"PATH": os.environ["PATH"], "BDQM_PACKED": variables["BDQM_PACKED"]},
                capture_output=True,
                check=True,
            )
            assert done.stdout.decode().split("\0")[:3] == [
                spec.variables["NAME"],
                "",
                variables.get("BDQM_SUCCESSOR", "none"),
            ]
            assert subprocess.run(["bash", "-euc", line], env={"PATH": os.environ["PATH"]}).returncode == 0


def test_pbs_professionals_workers_have_one_submission_and_the_users_stores(
    commands: Callable[..., None], spec: JobSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///a b.db")
    monkeypatch.setenv("BDQM_PACKED", "of another job")
    (tmp_path / "commands" / "qsub").write_text(f'#!/bin/bash\necho "$BDQM_PACKED" > {tmp_path}/packed; echo 4.pbs\n')
    (tmp_path / "commands" / "qsub").chmod(0o755)
    assert PbsPro().submit(spec) == "4.pbs"
    exported = b64decode((tmp_path / "packed").read_text()).decode()
    assert "export MLFLOW_TRACKING_URI='sqlite:///a b.db'\n" in exported
    assert "export BDQM_PACKED" not in exported
    assert re.search(r"^export BDQM_SUBMISSION=pbs-\w{8}$", exported, re.MULTILINE)


def test_pbs_professionals_queue(commands: Callable[..., None]) -> None:
    """As OpenPBS 23.06.06 prints an array of three with `qstat -t -f -F json`, shortened."""
    task = {"job_state": "R", "exec_host": "n7/0*6", "Resource_List": {"walltime": "08:00:00"}}
    jobs = {
        "4[].pbs": {"job_state": "B", "array": True, "comment": "Job Array Began at ..."},
        "4[1].pbs": {**task, "resources_used": {"walltime": "00:00:19"}},
        "4[2].pbs": {"job_state": "Q", "comment": "Not Running: Not enough free nodes available"},
        "4[3].pbs": {"job_state": "X", "exec_host": "n7/0"},
    }
    commands("qstat", GREETING + json.dumps({"timestamp": 1, "Jobs": jobs}))
    running, waiting = PbsPro().states(["4[].pbs"])
    assert (running.job_id, running.state, running.node, running.time_left) == ("4[1].pbs", "running", "n7", "7:59:41")
    assert (waiting.job_id, waiting.state, waiting.reason) == ("4[2].pbs", "pending", jobs["4[2].pbs"]["comment"])
    (only,) = parse_json(json.dumps({"Jobs": {"5.pbs": task}}))
    assert (only.job_id, only.time_left) == ("5.pbs", "8:00:00")
    # What it does not quote, +5, is no JSON; its text is read then, which this command prints in either case.
    text = "Job Id: 4[].pbs\n    job_state = B\nJob Id: 4[1].pbs\n    job_state = R\n    exec_host = n\n\t7/0\n"
    commands("qstat", text + "{ +5")
    (running,) = PbsPro().states(["4[].pbs"])
    assert (running.job_id, running.node) == ("4[1].pbs", "n7")
    for odd in ('{"Jobs": null}', '{"Jobs": {"1.pbs": null}}', '{"Jobs": {"1.pbs": {"job_state": 5}}}'):
        commands("qstat", text + odd)
        assert PbsPro().states(["4[].pbs"]) == [running]
    for status, message in ((153, "Unknown Job Id 4[].pbs"), (35, "4.pbs Job has finished, use -x or -H"), (35, "")):
        commands("qstat", message, status)
        assert PbsPro().states(["4[].pbs"]) == []
    commands("qstat", "illegally formed job identifier", 1)
    with pytest.raises(BdqmError, match="qstat failed: illegally formed"):
        PbsPro().states(["4"])


def test_pbs_is_told_apart_by_what_the_machine_has(commands: Callable[..., None]) -> None:
    commands("qsub", "pbs_version = 23.06.06\n")
    assert type(make_scheduler("pbs")) is PbsPro
    commands("qsub", "Version: 6.1.1.1\nCommit: abc\n")
    assert type(make_scheduler("pbs")) is Pbs
    assert type(make_scheduler("pbspro")) is PbsPro


def test_unknown_schedulers_are_refused() -> None:
    with pytest.raises(BadInput, match="unknown scheduler 'lsf'; there are: slurm, pbs, pbspro, local"):
        make_scheduler("lsf")


def test_workers_cannot_be_less_than_none() -> None:
    with pytest.raises(BadInput, match="--workers must be at least 1, got -1"):
        JobSpec("tune", Path("/p"), PHOENIX, Path("/logs"), -1)
