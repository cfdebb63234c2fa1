"""Submit jobs, the servers' first where there are none, and keep a record of each."""

import re
import shlex
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from bdqm_tune.errors import BadInput, BdqmError, one_line
from bdqm_tune.plugins import load_plugin, plugin_names
from bdqm_tune.services.connection import read_connection
from bdqm_tune.services.jobspec import WARNED, JobSpec, JobState, NoAnswer, Scheduler, find_id
from bdqm_tune.services.local import Local
from bdqm_tune.services.pbs import JOB_ID
from bdqm_tune.services.pbspro import PbsPro, pbs_of_this_machine
from bdqm_tune.services.site import Site
from bdqm_tune.services.slurm import Slurm
from bdqm_tune.services.submissions import Submission, read_records, this_process, write_record

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# How `scheduler` in site.toml is read. Others come from packages that declare an entry point of this group.
SCHEDULERS: Mapping[str, Callable[[], Scheduler]] = {
    "slurm": Slurm,
    "pbs": pbs_of_this_machine,
    "pbspro": PbsPro,
    "local": Local,
}


def make_scheduler(name: str) -> Scheduler:
    """The scheduler of that name, of this package or of one that declares it under `bdqm_tune.schedulers`.

    Raises:
        BadInput: there is none, or its package does not load.
    """
    if name in SCHEDULERS:
        return SCHEDULERS[name]()
    if name not in (others := plugin_names("scheduler")):
        raise BadInput(f"unknown scheduler {name!r}; there are: {', '.join([*SCHEDULERS, *others])}")
    made = load_plugin("scheduler", name)
    try:
        found: Scheduler = made()
    except (Exception, SystemExit) as error:  # whatever a package of others does
        raise BadInput(f"scheduler {name!r}: it cannot be made: {one_line(error)}") from None
    return found


def check_times(scheduler: Scheduler, site: Site, where: str, option_of: str = "") -> None:
    """See that jobs which are warned before their end run for longer than that.

    Args:
        option_of: the job whose walltime was given by --walltime.

    Raises:
        BadInput: one does not; `where` names the file.
    """
    for job in WARNED:
        walltime = site.resources(job).walltime
        seconds = scheduler.seconds(walltime)
        if seconds is not None and 0 < seconds <= site.warning:
            given = "--walltime" if job == option_of else f"{where}: {job}.walltime"
            raise BadInput(f"{given} {walltime} is not longer than the warning of {site.warning} s")


def submit(scheduler: Scheduler, spec: JobSpec, folder: Path, study: str = "") -> Submission:
    """Submit a job. Its record is written before, and completed after it, so that nothing is submitted twice unseen.

    Args:
        folder: of the records.

    Raises:
        BadInput: of an earlier submission of the same it is not known whether it is in the queue.
        NoAnswer: nor of this one.
        BdqmError: the scheduler refuses; nothing was submitted, and no record is left.
    """
    for earlier in read_records(folder):
        if not earlier.job_id and (earlier.scheduler, earlier.job, earlier.study) == (scheduler.name, spec.job, study):
            then = "" if earlier.is_made_now else "; then call this again"
            raise BadInput(f"{without_id(earlier, scheduler, folder)}{then}. Nothing was submitted")
    command, made = shlex.join(scheduler.command(spec)), datetime.now().isoformat(timespec="microseconds")
    record = Submission(
        "", scheduler.name, spec.job, made, study, max(spec.workers, 1), command, str(spec.logs), this_process()
    )
    write_record(folder, record)
    try:
        record = replace(record, job_id=scheduler.submit(spec))
    except NoAnswer as error:
        record = replace(record, process="")
        write_record(folder, record)
        raise NoAnswer(f"{one_line(error)}. {without_id(record, scheduler, folder)}") from None
    except BdqmError:
        (folder / record.file).unlink()
        raise
    except (KeyboardInterrupt, SystemExit):
        record = replace(record, process="")
        write_record(folder, record)
        print(without_id(record, scheduler, folder), file=sys.stderr, flush=True)
        raise
    write_record(folder, replace(record, process=""))
    return replace(record, process="")


def record_successor(folder: Path, job_id: str, output: str) -> None:
    """Record what a job has submitted to go on after it; nothing where the job itself was submitted by hand.

    Args:
        job_id: of that job, or of a task of that array.
        output: of the command that submitted the successor.

    Raises:
        NoAnswer: there is no id in the output.
    """
    array = re.sub(r"\[\d+\]", "[]", job_id)
    known = [record for record in read_records(folder) if record.job_id in (job_id, array)]
    if known:
        new, made = find_id(output, JOB_ID), datetime.now().isoformat(timespec="microseconds")
        write_record(folder, replace(known[-1], job_id=new, made=made, workers=1))


def without_id(record: Submission, scheduler: Scheduler, folder: Path) -> str:
    """What to do about a submission of which only the queue knows whether there is a job."""
    what = f"{record.job} of study {record.study!r}" if record.study else record.job
    if record.is_made_now:
        return f"process {record.process} is submitting {what} at this moment: wait until it has ended"
    return (
        f"A submission of {record.made[:19]} ({what}) may be in the queue: if `{scheduler.queue}` shows its job, write "
        f"its id as job_id into {folder / record.file}; if not, remove that file"
    )


def running_servers(scheduler: Scheduler, folder: Path) -> tuple[Submission, JobState] | None:
    """The job of the servers that waits or runs, if there is one."""
    for record in reversed(read_records(folder)):
        if record.job == "servers" and record.scheduler == scheduler.name and record.job_id:
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
