"""Submit jobs, the servers' first where there are none, and keep a record of each."""

import shlex
import socket
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.connection import read_connection
from bdqm_tune.services.jobspec import JobSpec, JobState, Scheduler
from bdqm_tune.services.local import Local
from bdqm_tune.services.pbs import Pbs
from bdqm_tune.services.slurm import Slurm
from bdqm_tune.services.submissions import Submission, read_records, write_record

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SCHEDULERS: Mapping[str, type[Scheduler]] = {"slurm": Slurm, "pbs": Pbs, "local": Local}  # those of `site.py`


def make_scheduler(name: str) -> Scheduler:
    """The scheduler of that name.

    Raises:
        BadInput: there is none.
    """
    if name not in SCHEDULERS:
        raise BadInput(f"unknown scheduler {name!r}; there are: {', '.join(SCHEDULERS)}")
    return SCHEDULERS[name]()


def submit(scheduler: Scheduler, spec: JobSpec, folder: Path, study: str = "") -> Submission:
    """Submit a job and record it.

    Args:
        folder: of the records.

    Raises:
        BdqmError: the scheduler refuses; nothing was submitted.
    """
    made = datetime.now().isoformat(timespec="microseconds")
    job_id = scheduler.submit(spec)
    command = shlex.join(scheduler.command(spec))
    submission = Submission(
        job_id, scheduler.name, spec.job, made, study, max(spec.workers, 1), command, str(spec.logs)
    )
    write_record(folder, submission)
    return submission


def running_servers(scheduler: Scheduler, folder: Path) -> tuple[Submission, JobState] | None:
    """The job of the servers that waits or runs, if there is one."""
    for record in reversed(read_records(folder)):
        if record.job == "servers" and record.scheduler == scheduler.name:
            for state in scheduler.states([record.job_id]):
                return record, state
    return None


def servers_answer(connection_file: Path) -> bool:
    """Whether the servers that the connection file names are there; a job that was killed leaves its file behind."""
    if not connection_file.exists():
        return False
    connection = read_connection(connection_file)
    for url in (urlsplit(connection.tracking_uri), urlsplit(connection.storage_url)):
        try:
            socket.create_connection((url.hostname, url.port), timeout=5).close()
        except OSError:
            return False
    return True


def bring_servers_up(
    scheduler: Scheduler,
    spec: JobSpec,
    folder: Path,
    connection_file: Path,
    minutes: float,
    say: Callable[[str], None],
    pause: float = 1.0,
) -> None:
    """See that the servers answer: submit their job unless one waits or runs, and wait for them.

    Args:
        spec: of the servers.
        folder: of the records.
        pause: between two checks, seconds.

    Raises:
        BadInput: servers run that only this machine can reach.
        BdqmError: they are not there after `minutes`, or their job has ended.
    """
    if servers_answer(connection_file):
        host = urlsplit(read_connection(connection_file).tracking_uri).hostname
        if host in LOOPBACK and scheduler.name != "local":
            raise BadInput(
                f"the servers that run listen at {host}, where no other node reaches them: `bdqm-tune services down` "
                "ends them, and `bdqm-tune submit` brings them up as a job"
            )
        return
    found = running_servers(scheduler, folder)
    record = found[0] if found else submit(scheduler, spec, folder)
    say(f"servers: job {record.job_id} {'is there already' if found else 'submitted'}; waiting for it")
    deadline, last = time.monotonic() + 60 * minutes, ""
    while not servers_answer(connection_file):
        states = scheduler.states([record.job_id])
        if not states:
            raise BdqmError(f"servers: job {record.job_id} has ended; its output is in {record.logs}")
        state = " ".join(filter(None, (states[0].state, states[0].node, states[0].reason)))
        if state != last:
            say(f"servers: {state}")
            last = state
        if time.monotonic() > deadline:
            raise BdqmError(
                f"servers: job {record.job_id} is {state} after {minutes:g} min; it stays in the queue. The same "
                "command later waits for it again (--wait waits longer); nothing else was submitted"
            )
        time.sleep(pause)
