"""The scripts of jobs/ in a plain shell: what reaches the worker, what `mlflow run` makes of it, what they refuse."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bdqm_tune.services.site import load_site
from tests.jobs.conftest import PROJECT, FakeProject

SCRIPTS = sorted(path.name for path in (PROJECT / "jobs").glob("*.*") if path.suffix in (".sbatch", ".pbs", ".sh"))


def start(script: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """A script of the working folder's jobs/, in a session of its own as a scheduler's."""
    return subprocess.Popen(
        ["bash", f"jobs/{script}", *arguments],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], status: int) -> str:
    output, _ = process.communicate(timeout=180)
    assert process.returncode == status, output
    return output


def test_the_warning_reaches_the_worker_and_the_run_is_finished(project: FakeProject) -> None:
    project.leave(1)
    job = start("tune.sbatch", "-P", "study=a b", "-P", "device=cpu", BDQM_SUBMISSION="slurm-7")
    project.until("tune")
    (project.folder / "left").write_text("0")  # so that there is no successor
    job.send_signal(signal.SIGUSR1)
    finish(job, 0)
    assert project.report == ["tune slurm-7 --study a b", "got SIGUSR1", "handed back"]
    assert project.runs() == ["FINISHED"]


@pytest.mark.endurance
def test_a_warning_waits_until_the_worker_listens(project: FakeProject) -> None:
    """Python that has just been started would die of it."""
    project.leave(1)
    (project.folder / "slow").touch()
    job = start("tune.sbatch", "-P", "device=cpu", BDQM_SUBMISSION="slurm-7")
    project.until("starts")
    job.send_signal(signal.SIGUSR1)
    project.until("tune")
    (project.folder / "left").write_text("0")
    finish(job, 0)
    assert project.report[0] == "starts"
    assert project.report[-2:] == ["got SIGUSR1", "handed back"]
    assert project.runs() == ["FINISHED"]


@pytest.mark.endurance
def test_an_mlflow_that_lingers_does_not_use_up_the_time(project: FakeProject, tmp_path: Path) -> None:
    """As it does where the servers have moved: it asks the old ones for minutes."""
    environment = tmp_path / "environment" / "bin"
    environment.mkdir(parents=True)
    (environment / "activate").write_text(f"PATH='{environment}':\"$PATH\"\n")
    (environment / "python").symlink_to(sys.executable)
    (environment / "mlflow").write_text("#!/bin/bash\npython -m bdqm_tune tune\nexec sleep 120\n")
    (environment / "mlflow").chmod(0o755)
    site = project.folder / "jobs" / "site.toml"
    site.write_text(site.read_text().replace(f'"{sys.prefix}"', f'"{environment.parent}"'))
    job = start("tune.sbatch", "-P", "device=cpu")
    project.until("tune")
    (project.folder / "left").write_text("0")
    began = time.monotonic()
    job.send_signal(signal.SIGUSR1)
    finish(job, 143)
    assert project.report[1:] == ["got SIGUSR1", "handed back"]
    assert time.monotonic() - began < 40


def test_the_end_of_a_job_waits_for_the_worker(project: FakeProject) -> None:
    """SIGTERM to all processes, as a scheduler sends it: mlflow dies at once, the worker has something to do."""
    job = start("tune.sbatch", "-P", "device=cpu", BDQM_SUBMISSION="slurm-7")
    project.until("tune")
    for process in [*psutil.Process(job.pid).children(recursive=True), psutil.Process(job.pid)]:
        process.terminate()
    finish(job, 143)
    assert project.report[1:] == ["got SIGTERM", "handed back"]


def test_a_worker_that_fails_fails_its_job(project: FakeProject) -> None:
    project.leave(0)
    (project.folder / "exit").write_text("2")
    output = finish(start("tune.sbatch", BDQM_PARAMETERS="-P device=cpu -P 'study=x y'"), 1)
    assert re.fullmatch(r"tune slurm-\d+ --study x y", project.report[0])
    assert "failed" in output
    assert project.runs() == ["FAILED"]


@pytest.mark.endurance
def test_pbs_warns_itself_and_submits_a_successor(project: FakeProject) -> None:
    variables = {
        "BDQM_WALLTIME": "0:00:30",
        "PBS_JOBID": "12[3].server",
        "BDQM_PARAMETERS": "-P device=cpu -P study=oc",
    }
    successor = 'echo "successor of $BDQM_SUBMISSION with $BDQM_PARAMETERS"'
    output = finish(start("tune.pbs", **variables, BDQM_SUCCESSOR=successor), 0)
    said = "successor of pbs-12 with -P device=cpu -P study=oc"
    assert project.report == ["tune pbs-12 --study oc", "got SIGUSR1", "handed back", f"succeeded 12[3].server {said}"]
    assert output.splitlines()[-1] == said


def test_the_servers_go_down_before_their_time_is_over(project: FakeProject) -> None:
    output = finish(start("servers.pbs", BDQM_WALLTIME="23", PBS_JOBID="5", BDQM_SUCCESSOR="echo next one"), 0)
    up = f"servers up up --host {os.uname().nodename} --foreground"
    assert project.report == [up, "servers down", "succeeded 5 next one"]
    assert output.splitlines()[-1] == "next one"


@pytest.mark.parametrize("script", ["tune.sbatch", "tune.pbs"])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "nvidia-smi"),
        ("echo 'No devices were found'", "No devices were found"),
        ("echo broken; exit 9", "broken"),
    ],
)
def test_a_node_without_a_gpu_stops_a_worker(
    project: FakeProject, script: str, answer: str | None, said: str, tmp_path: Path
) -> None:
    if answer is not None:
        nvidia_smi(tmp_path, answer)
    elif shutil.which("nvidia-smi"):
        pytest.skip("this machine has an nvidia-smi")
    output = finish(start(script, PBS_JOBID="1", PATH=f"{tmp_path}:{os.environ['PATH']}"), 1)
    assert re.search(rf"error: no usable GPU on \S+ \(.*{said}.*\).*'gpu' in jobs/site.toml.*-P device=cpu", output)
    assert project.report == []


@pytest.mark.endurance  # without one, the same script runs in three other tests
def test_a_gpu_is_named(project: FakeProject, tmp_path: Path) -> None:
    project.leave(0)
    nvidia_smi(tmp_path, "echo 'GPU 0: Tesla V100 (UUID: GPU-1)'")
    output = finish(start("tune.sbatch", PATH=f"{tmp_path}:{os.environ['PATH']}"), 0)
    assert "GPU: GPU 0: Tesla V100" in output
    assert len(project.report) == 1


def nvidia_smi(folder: Path, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"BDQM_ENVIRONMENT": "nowhere"}, "error: no environment 'nowhere'"),
        ({"BDQM_ENVIRONMENT": sys.prefix, "BDQM_MODULES": "anaconda3"}, "error: no command 'module'"),
        ({}, "error: no Python with bdqm_tune to read jobs/site.toml"),
    ],
)
def test_what_is_wrong_with_the_site_is_one_line(project: FakeProject, variables: dict[str, str], message: str) -> None:
    environ = {"PATH": "/usr/bin:/bin"}  # without conda, and without this environment
    assert message in finish(start("tune.sbatch", **environ, **variables), 1)


def test_what_a_site_runs_may_use_variables_that_are_not_set(tmp_path: Path) -> None:
    """Modules and conda come as shell functions of the site's, written for shells that stop at nothing."""
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "activate").write_text('false; : "$NOT_SET"; ARGUMENTS="$*"; PATH="$BIN:$PATH"\n')
    (tmp_path / "mlflow").write_text("")
    (tmp_path / "mlflow").chmod(0o755)
    script = """
        module() { false; : "$NOT_SET_EITHER"; [ "$2" = python/3 ] || return 1; loaded="$3"; }
        set -euo pipefail; . "$0"/jobs/common.sh; activate
        echo "loaded $loaded, arguments '$ARGUMENTS', options $-"; false; echo "not reached"
    """
    environ = {"PATH": "/usr/bin:/bin", "BIN": str(tmp_path), "BDQM_ENVIRONMENT": str(tmp_path / "env")}
    for modules, status, said in (
        ("python/3 cuda", 1, "loaded cuda, arguments '', options ehuB"),
        ("ruby", 1, "error: 'module load ruby' failed: see 'modules' in jobs/site.toml, and 'module avail'"),
    ):
        done = subprocess.run(
            ["bash", "-c", script, str(PROJECT)],
            env=environ | {"BDQM_MODULES": modules},
            capture_output=True,
            text=True,
        )
        assert done.returncode == status
        assert said in done.stdout + done.stderr
        assert "not reached" not in done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_bash(name: str) -> None:
    subprocess.run(["bash", "-n", PROJECT / "jobs" / name], check=True)


@pytest.mark.parametrize("job", ["tune", "servers", "analysis", "interactive"])
def test_directives_ask_for_what_the_example_asks_for(job: str) -> None:
    """The lines that hold by hand are those of site.toml, but for its account, queue and kind of GPU."""
    resources = load_site(PROJECT / "jobs" / "site.toml").resources(job)
    sbatch = (PROJECT / "jobs" / f"{job}.sbatch").read_text()
    pbs = (PROJECT / "jobs" / f"{job}.pbs").read_text()
    assert f"#SBATCH --time={resources.walltime}\n" in sbatch
    assert f"#SBATCH --cpus-per-task={resources.cores}\n" in sbatch
    assert f"#SBATCH --mem={resources.memory}\n" in sbatch
    assert (f"#SBATCH --gres=gpu:{resources.gpu_count}\n" in sbatch) == bool(resources.gpu_count)
    gpus = f":gpus={resources.gpu_count}" if resources.gpu_count else ""
    wanted = f"nodes=1:ppn={resources.cores}{gpus},mem={resources.memory.lower()}b,walltime={resources.walltime}"
    assert f"#PBS -l {wanted}\n" in pbs
