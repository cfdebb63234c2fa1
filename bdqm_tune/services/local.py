"""Jobs as processes of this machine: for a workstation, without queue and without walltime."""

import os
import secrets
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.jobspec import JobSpec, JobState, Scheduler

JOB_VARIABLE = "BDQM_LOCAL_JOB"  # variable of every process of a job: its id
KILL_AFTER = 30.0  # seconds between SIGTERM and SIGKILL, as Slurm's


class Local(Scheduler):
    """The scripts `*.sbatch` in plain shells; the resources that they request are ignored."""

    name = "local"
    suffix = ".sbatch"
    queue = "pgrep -af jobs/"

    def check(self) -> None:
        """It can be used everywhere."""

    def command(self, spec: JobSpec) -> list[str]:
        if spec.job == "interactive":
            raise BadInput("an interactive job needs a cluster; on this machine a shell is one already")
        return ["bash", str(self.script(spec))]

    def folder(self, spec: JobSpec) -> Path:
        return spec.project

    def submit(self, spec: JobSpec) -> str:
        job_id = f"local-{secrets.token_hex(4)}"
        environ = {"BDQM_SUBMISSION": job_id, **spec.environ}  # as the script takes it from Slurm's job id
        for task in range(1, max(spec.workers, 1) + 1):
            task_id = f"{job_id}_{task}" if spec.workers else job_id
            try:
                with (spec.logs / f"{spec.name}-{task_id}.out").open("x") as output:
                    subprocess.Popen(
                        self.command(spec),
                        cwd=self.folder(spec),
                        env={**environ, JOB_VARIABLE: task_id},
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        start_new_session=True,
                    )
            except OSError as error:
                self.cancel(job_id)
                raise BdqmError(f"cannot start {self.script(spec)}: {error}") from None
        return job_id

    def states(self, job_ids: Sequence[str]) -> list[JobState]:
        tasks = {task for job_id in job_ids for task, _ in _processes(job_id)}
        return [JobState(task, "running", os.uname().nodename) for task in sorted(tasks)]

    def cancel(self, job_id: str) -> None:
        """As a scheduler does: SIGTERM to all processes, and SIGKILL to those that are there half a minute later."""
        for _, process in _processes(job_id):
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        deadline = time.monotonic() + KILL_AFTER
        while (left := _processes(job_id)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for _, process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _processes(job_id: str) -> list[tuple[str, psutil.Process]]:
    """The processes of a job with the tasks that they belong to."""
    found = []
    for process in psutil.process_iter():
        try:
            task = process.environ().get(JOB_VARIABLE, "")
            if task.partition("_")[0] == job_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append((task, process))
        except psutil.Error:  # it ended, or may not be read
            continue
    return found
