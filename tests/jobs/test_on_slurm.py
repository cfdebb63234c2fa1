"""The scripts of jobs/, unchanged, on a real Slurm: the warning, the queue again, the end; by sbatch and qsub."""

import os
import re
from pathlib import Path

import pytest

from tests.jobs.conftest import FakeProject, write_site
from tests.slurm import HOST, Slurm
from tests.waiting import eventually

pytestmark = pytest.mark.endurance  # Slurm counts its limits in minutes
SMALL = ["--gres=none", "--cpus-per-task=1", "--mem=500M"]
# A warning after 45 s: `mlflow run` takes half a minute to start a worker while other tests have the processors.
MINUTES, WARNING = 2, 75


def output(project: FakeProject) -> str:
    written = [path.read_text() for path in project.folder.glob("bdqm-*.o*")]
    return "\n".join([f"reported: {project.report}", *written])


def test_a_worker_goes_back_to_the_queue_before_its_time_is_over(slurm: Slurm, project: FakeProject) -> None:
    """`left` says 1 at first: a trial is left when the warning comes, and none when the worker has begun again."""
    warned = [*SMALL, f"--time={MINUTES}", f"--signal=B:USR1@{WARNING}"]
    job_id = slurm.run("sbatch", "--parsable", *warned, "jobs/tune.sbatch", "-P", "device=cpu").stdout.strip()
    slurm.wait(job_id, 300)
    begun = f"tune slurm-{job_id} --study default"
    assert project.report == [begun, "got SIGUSR1", "handed back", begun], output(project)
    assert project.runs() == ["FINISHED", "FINISHED"]
    assert "trials are left: the job goes back to the queue" in output(project)


def test_a_cancelled_worker_hands_back_and_stays_away(slurm: Slurm, project: FakeProject) -> None:
    project.runs()  # which makes MLflow's file: two at once could not
    submitted = slurm.run("sbatch", "--parsable", *SMALL, "--array=1-2", "jobs/tune.sbatch", "-P", "device=cpu")
    job_id = submitted.stdout.strip()
    eventually(lambda: len(project.report) == 2, 180, lambda: output(project))
    slurm.run("scancel", job_id)
    slurm.wait(job_id, 180)
    begun = [f"tune slurm-{job_id} --study default"] * 2
    assert sorted(project.report) == sorted([*begun, *["got SIGTERM"] * 2, *["handed back"] * 2]), output(project)


def test_a_worker_cancelled_while_it_asks_what_is_left_stays_away(slurm: Slurm, project: FakeProject) -> None:
    (project.folder / "status takes long").touch()
    job_id = slurm.run("sbatch", "--parsable", *SMALL, "jobs/tune.sbatch", "-P", "device=cpu").stdout.strip()
    project.until("tune")
    slurm.run("scancel", "--signal=USR1", "--batch", job_id)
    project.until("asked for what is left")
    slurm.run("scancel", job_id)
    slurm.wait(job_id, 180)
    begun = f"tune slurm-{job_id} --study default"
    assert project.report == [begun, "got SIGUSR1", "handed back", "asked for what is left"], output(project)


def test_the_servers_come_back(slurm: Slurm, project: FakeProject) -> None:
    warned = [*SMALL, f"--time={MINUTES}", f"--signal=B:USR1@{WARNING}"]
    job_id = slurm.run("sbatch", "--parsable", *warned, "jobs/servers.sbatch").stdout.strip()
    up = f"servers up up --host {os.uname().nodename} --foreground"
    eventually(lambda: project.report[:3] == [up, "servers down", up], 300, lambda: output(project))
    slurm.run("scancel", job_id)
    slurm.wait(job_id, 180)


def test_pbs_workers_have_successors(slurm: Slurm, project: FakeProject) -> None:
    """By Slurm's qsub, which starts the same script a second time, for the same submission."""
    write_site(project.folder / "jobs" / "site.toml", warning=WARNING)
    walltime = f"0:{MINUTES:02}:00"
    resources = ["-l", f"nodes=1:ppn=1,mem=500mb,walltime={walltime}"]
    successor = f"qsub -V -N bdqm-tune {' '.join(resources)} jobs/tune.pbs"
    variables = {"BDQM_PARAMETERS": "-P device=cpu", "BDQM_WALLTIME": walltime, "BDQM_SUCCESSOR": successor}
    job_id = slurm.run("qsub", "-V", "-N", "bdqm-tune", *resources, "jobs/tune.pbs", **variables).stdout.strip()
    begun = f"tune pbs-{job_id} --study default"
    worked = [begun, "got SIGUSR1", "handed back", begun]
    # The record of the successor is written while that one begins.
    eventually(lambda: [line for line in project.report if line in worked] == worked, 300, lambda: output(project))
    recorded = re.compile(rf"succeeded {job_id} \d+")
    eventually(lambda: [bool(recorded.fullmatch(line)) for line in project.report if line not in worked] == [True], 60)
    eventually(lambda: slurm.run("squeue", "--noheader", "--name=bdqm-tune").stdout == "", 180, "successor")


def test_an_interactive_session_has_the_environment(slurm: Slurm, project: FakeProject, tmp_path: Path) -> None:
    """In a terminal of its own, as srun wants one."""
    command = f"bash jobs/interactive.sbatch {' '.join(SMALL)} --time=5"
    typed = (
        f"export BDQM_PARAMETERS='-P device=cpu'; {command} < <(sleep 4; echo 'which mlflow; hostname; exit'; sleep 2)"
    )
    done = slurm.run("script", "--quiet", "--return", "--command", f'bash -c "{typed}"', str(tmp_path / "typescript"))
    assert f"{HOST}, job" in done.stdout
    assert "/bin/mlflow" in done.stdout.replace("\r", "")
