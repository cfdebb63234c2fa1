"""Jobs by Torque, the PBS of earlier years: qsub, qstat, qdel."""

import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.jobspec import WARNED, JobSpec, JobState, NoAnswer, Scheduler, call, submit_by
from bdqm_tune.services.site import Resources

STATES = {"Q": "pending", "H": "held", "W": "pending", "R": "running", "E": "exiting", "T": "moving", "S": "suspended"}
JOB_ID = re.compile(r"(?P<id>\d+(\[\])?(\.\S+)?)")
ENDED = ("C", "F", "X")
TIME = re.compile(r"\d+(:\d+){0,2}")  # seconds, minutes:seconds, hours:minutes:seconds
MEMORY = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)


class Pbs(Scheduler):
    """The scripts `*.pbs`; flags win over their #PBS lines."""

    name = "pbs"
    suffix = ".pbs"
    queue = 'qstat -u "$USER"'

    def check(self) -> None:
        if shutil.which("qsub") is None:
            raise BadInput("no PBS here: there is no qsub; call this on the cluster's login node, or --scheduler local")

    def command(self, spec: JobSpec) -> list[str]:
        site = spec.site
        flags = ["-N", spec.name]
        flags += ["-A", site.account] if site.account else []
        flags += ["-q", site.queue] if site.queue else []
        flags += [*self.requests(site.resources(spec.job)), *site.flags(spec.job)]
        if spec.job == "interactive":
            return ["bash", str(self.script(spec)), *flags]
        flags += ["-j", "oe", *self.array(spec.workers)]
        return ["qsub", "-V", *flags, str(self.script(spec))]

    def requests(self, resources: Resources) -> list[str]:
        """The flags that request them."""
        nodes = f"nodes=1:ppn={resources.cores}"
        if resources.gpu:
            nodes += f":gpus={resources.gpu_count}" + (f":{resources.gpu_type}" if resources.gpu_type else "")
        memory = pbs_memory(resources.memory)
        # In one -l: where Slurm answers to qsub, the last one alone counts.
        return ["-l", ",".join([nodes, *([f"mem={memory}"] if memory else []), f"walltime={resources.walltime}"])]

    def array(self, workers: int) -> list[str]:
        """The flags that make an array of that number of tasks."""
        return ["-t", f"1-{workers}"] if workers else []

    def folder(self, spec: JobSpec) -> Path:
        """The folder of the output, which lands where qsub was called."""
        return spec.project if spec.job == "interactive" else spec.logs

    def submit(self, spec: JobSpec) -> str:
        try:
            return submit_by(self.command(spec), JOB_ID, self.folder(spec), self.with_successor(spec).environ)
        except NoAnswer as error:
            if "'qsub: " in str(error):  # Slurm's qsub refuses with status 0
                raise BdqmError(f"qsub failed: {error}") from None
            raise

    def seconds(self, walltime: str) -> int | None:
        if not TIME.fullmatch(walltime):
            return None
        seconds = 0
        for part in walltime.split(":"):
            seconds = 60 * seconds + int(part)
        return seconds

    def text(self, spec: JobSpec) -> str:
        return super().text(self.with_successor(spec))

    def with_successor(self, spec: JobSpec) -> JobSpec:
        """The job with the variables by which its script warns itself and submits a successor, as PBS does neither."""
        if spec.job not in WARNED:
            return spec
        qsub, *flags = self.command(replace(spec, workers=0))
        qsub = shutil.which(qsub) or qsub  # whose folder may not be on the PATH of a job
        command = f"cd {shlex.quote(str(self.folder(spec)))} && {shlex.join([qsub, *flags])}"
        walltime = spec.site.resources(spec.job).walltime
        seconds = self.seconds(walltime)
        known = {} if seconds is None else {"BDQM_WALLTIME": str(seconds)}
        return replace(spec, variables={**spec.variables, **known, "BDQM_SUCCESSOR": command})

    def states(self, job_ids: Sequence[str]) -> list[JobState]:
        found = []
        for job_id in job_ids:
            try:
                found += self.states_of(job_id)
            except BdqmError as error:  # a job that ended: it was forgotten, or has finished, with or without a message
                if not re.search(r"[Uu]nknown [Jj]ob|has finished|exit status (153|35)", str(error)):
                    raise
        return found

    def states_of(self, job_id: str) -> list[JobState]:
        """Those of one job or array. Raises BdqmError, with what qstat says: it does not know it."""
        return parse_qstat(call(["qstat", "-f", job_id]))

    def cancel(self, job_id: str) -> None:
        if self.states([job_id]):
            call(["qdel", job_id])


def pbs_memory(text: str) -> str:
    """`32G`, `32GB` or Slurm's `32000` (megabytes) as PBS writes it, `32gb`; empty for Slurm's 0, a whole node's."""
    found = MEMORY.fullmatch(text)
    if found is None:
        return text
    number, unit = found.groups()
    return f"{number}{unit.lower() or 'm'}b" if int(number) else ""


def parse_qstat(text: str) -> list[JobState]:
    """The jobs of `qstat -f` that have not ended."""
    found = []
    text = re.sub(r"\n\t(?!\S+ = )", "", text)  # long values go on in the next line
    for job in re.split(r"^Job Id:\s*", text, flags=re.MULTILINE)[1:]:
        values = dict(re.findall(r"^\s+(\S+) = (.*)$", job, flags=re.MULTILINE))
        state = values.get("job_state", "")
        if state in ENDED:
            continue
        node = values.get("exec_host", "").partition("/")[0] if state == "R" else ""
        found.append(
            JobState(
                job.split(maxsplit=1)[0],
                STATES.get(state, state.lower()),
                node,
                values.get("Walltime.Remaining", ""),
                values.get("comment", "") if state == "Q" else "",
            )
        )
    return found
