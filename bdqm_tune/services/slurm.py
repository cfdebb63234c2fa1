"""Jobs by Slurm: sbatch, squeue, scancel."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.jobspec import WARNED, JobSpec, JobState, Scheduler, call, submit_by

JOB_ID = re.compile(r"(Submitted batch job )?(?P<id>\d+)((;| on cluster )\S+)?")  # with --parsable, and without
# minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, days-hours:minutes:seconds: sbatch(1)
TIME = re.compile(r"((?P<days>\d+)-)?(?P<parts>\d+(:\d+){0,2})")


class Slurm(Scheduler):
    """The scripts `*.sbatch`; flags win over their #SBATCH lines."""

    name = "slurm"
    suffix = ".sbatch"
    queue = "squeue --me"

    def check(self) -> None:
        if shutil.which("sbatch") is None:
            raise BadInput(
                "no Slurm here: there is no sbatch; call this on the cluster's login node, or --scheduler local"
            )

    def command(self, spec: JobSpec) -> list[str]:
        site, resources = spec.site, spec.site.resources(spec.job)
        flags = [f"--job-name={spec.name}"]
        flags += [
            f"--{flag}={value}"
            for flag, value in (("account", site.account), ("qos", site.queue), ("partition", site.partition))
            if value
        ]
        flags += [f"--time={resources.walltime}", f"--cpus-per-task={resources.cores}", f"--mem={resources.memory}"]
        flags += [f"--gres=gpu:{resources.gpu}" if resources.gpu else "--gres=none"]
        flags += site.flags(spec.job)
        if spec.job == "interactive":  # srun's flags, which the script passes on
            return ["bash", str(self.script(spec)), *flags]
        if spec.job in WARNED:
            flags += [f"--signal=B:USR1@{site.warning}"]
        if spec.workers:
            flags += [f"--array=1-{spec.workers}"]
        logs = str(spec.logs).replace("%", "%%")  # which Slurm reads for itself
        output = f"{logs}/{spec.name}-{'%A_%a' if spec.workers else '%j'}.out"
        return ["sbatch", "--parsable", *flags, f"--output={output}", "--export=ALL", str(self.script(spec))]

    def folder(self, spec: JobSpec) -> Path:
        return spec.project

    def submit(self, spec: JobSpec) -> str:
        return submit_by(self.command(spec), JOB_ID, self.folder(spec), spec.environ)

    def states(self, job_ids: Sequence[str]) -> list[JobState]:
        output = call(["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%F|%i|%T|%N|%L|%r"])
        # A line of a job has six fields; others are a site's greeting, or `CLUSTER: …`.
        found = [line.strip().split("|", 5) for line in output.splitlines() if line.count("|") >= 5]
        return [
            JobState(job_id, state.lower(), node, left if node else "", "" if reason == "None" else reason)
            for base, job_id, state, node, left, reason in found
            if base in job_ids
        ]

    def seconds(self, walltime: str) -> int | None:
        found = TIME.fullmatch(walltime)
        if found is None:
            return None
        parts = [int(part) for part in found["parts"].split(":")]
        if found["days"] is not None:
            hours, minutes, seconds = (*parts, 0, 0)[:3]
        elif len(parts) == 3:
            hours, minutes, seconds = parts
        else:
            hours, (minutes, seconds) = 0, (*parts, 0)[:2]
        return ((24 * int(found["days"] or 0) + hours) * 60 + minutes) * 60 + seconds

    def cancel(self, job_id: str) -> None:
        try:
            call(["scancel", job_id])
        except BdqmError as error:
            if "Invalid job id" not in str(error):
                raise
