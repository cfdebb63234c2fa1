"""Jobs by PBS Professional or OpenPBS, whose commands are called as Torque's and take other flags."""

import json
import os
import secrets
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace

from bdqm_tune.services.jobspec import JobSpec, JobState, call, exports
from bdqm_tune.services.pbs import ENDED, STATES, Pbs, parse_qstat, pbs_memory
from bdqm_tune.services.site import Resources

PACKED = "BDQM_PACKED"  # variable with all others of a job's


class PbsPro(Pbs):
    """The scripts `*.pbs` without their #PBS lines, which are Torque's; all flags are on the command line."""

    name = "pbspro"

    def command(self, spec: JobSpec) -> list[str]:
        command = super().command(spec)
        return command if spec.job == "interactive" else [command[0], "-C", "#NONE", "-v", PACKED, *command[1:]]

    def with_successor(self, spec: JobSpec) -> JobSpec:
        """The job with these variables once more in one: OpenPBS 23.06.06 loses all of `-V`, and quotes in `-v`."""
        spec = super().with_successor(spec)
        return replace(spec, variables={**spec.variables, PACKED: packed(spec.variables)})

    def submit(self, spec: JobSpec) -> str:
        mine = {name: value for name, value in os.environ.items() if name.startswith(("BDQM_", "MLFLOW_"))}
        mine.pop(PACKED, None)  # of the job that this is called in
        # A name that successors get, too, so that they add no trials; the scripts' own would be lost with `-V`.
        once = {"BDQM_SUBMISSION": f"pbs-{secrets.token_hex(4)}"}
        return super().submit(replace(spec, variables={**once, **mine, **spec.variables}))

    def requests(self, resources: Resources) -> list[str]:
        chunk = ["1", f"ncpus={resources.cores}"]
        if resources.gpu:
            chunk += [f"ngpus={resources.gpu_count}"]
            chunk += [f"gpu_type={resources.gpu_type}"] if resources.gpu_type else []
        if memory := pbs_memory(resources.memory):
            chunk += [f"mem={memory}"]
        return ["-l", f"select={':'.join(chunk)}", "-l", f"walltime={resources.walltime}"]

    def array(self, workers: int) -> list[str]:
        return ["-J", f"1-{workers}"] if workers > 1 else []  # there are no arrays of one

    def states_of(self, job_id: str) -> list[JobState]:
        """The same, asked for one id: of several, newer versions write the first alone as JSON."""
        command = ["qstat", "-t", "-f"]
        try:
            return parse_json(call([*command, "-F", "json", job_id]))
        except (ValueError, TypeError, AttributeError):  # what qstat did not quote is no JSON, or a number
            return [state for state in parse_qstat(call([*command, job_id])) if "[]" not in state.job_id]


def packed(variables: Mapping[str, str]) -> str:
    """Variables as one word, which the scripts unpack."""
    text = exports(variables).encode()
    return b64encode(text + b"\n" * (-len(text) % 3)).decode()  # of a length that needs no `=` at the end


def parse_json(text: str) -> list[JobState]:
    """The jobs of `qstat -t -f -F json` that have not ended; of an array, its tasks.

    Raises:
        ValueError: it is no JSON.
    """
    jobs = json.loads(text[text.find("{") :]).get("Jobs", {})  # behind a site's greeting
    found = []
    for job_id, job in jobs.items():
        state = job.get("job_state", "")
        if state in ENDED or ("[]" in job_id and len(jobs) > 1):
            continue
        running = state == "R"
        found.append(
            JobState(
                job_id,
                STATES.get(state, state.lower()),
                job.get("exec_host", "").partition("/")[0] if running else "",
                _left(job) if running else "",
                job.get("comment", "") if state == "Q" else "",
            )
        )
    return found


def _left(job: dict[str, dict[str, str]]) -> str:
    """The time that a running job has left, h:mm:ss; empty where qstat does not say."""
    pbs = Pbs()
    limit = pbs.seconds(job.get("Resource_List", {}).get("walltime", ""))
    used = pbs.seconds(job.get("resources_used", {}).get("walltime", "0"))
    if limit is None or used is None:
        return ""
    minutes, seconds = divmod(max(limit - used, 0), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def pbs_of_this_machine() -> Pbs:
    """PBS Professional's or OpenPBS's commands where `qsub --version` answers as theirs does, else Torque's."""
    try:
        done = subprocess.run(["qsub", "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return Pbs()
    return PbsPro() if b"pbs_version" in done.stdout + done.stderr else Pbs()
