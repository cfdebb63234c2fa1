"""Jobs by Slurm: sbatch, squeue, scancel."""

import getpass
import shutil
from collections.abc import Sequence
from pathlib import Path

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.jobspec import WARNED, JobSpec, JobState, Scheduler, call


class Slurm(Scheduler):
    """The scripts `*.sbatch`; flags win over their #SBATCH lines."""

    name = "slurm"
    suffix = ".sbatch"

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
        return call(self.command(spec), self.folder(spec), spec.environ).strip().partition(";")[0]

    def states(self, job_ids: Sequence[str]) -> list[JobState]:
        lines = call(
            ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%F|%i|%T|%N|%L|%r"]
        ).splitlines()
        found = [line.split("|", 5) for line in lines]
        return [
            JobState(job_id, state.lower(), node, left if node else "", "" if reason == "None" else reason)
            for base, job_id, state, node, left, reason in found
            if base in job_ids
        ]

    def cancel(self, job_id: str) -> None:
        try:
            call(["scancel", job_id])
        except BdqmError as error:
            if "Invalid job id" not in str(error):
                raise
