"""What was submitted: one small JSON file a submission, in `$BDQM_HOME/jobs/`."""

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.files import write_whole


@dataclass(frozen=True)
class Submission:
    """One job, or array of workers, as it was submitted."""

    job_id: str  # empty: it is being submitted, or whether it is in the queue is not known
    scheduler: str
    job: str  # tune, servers or analysis
    made: str  # ISO 8601
    study: str = ""
    workers: int = 1
    command: str = ""
    logs: str = ""  # folder of its output
    process: str = ""  # that is submitting it: PID@HOST, and when that process began

    @property
    def is_made_now(self) -> bool:
        """Whether the process that submits it is still at work."""
        host = self.process.partition("@")[2].partition(" ")[0]
        if not self.process or self.job_id or host != os.uname().nodename:
            return False
        try:
            return _named(psutil.Process(int(self.process.partition("@")[0]))) == self.process
        except psutil.Error:
            return False

    @property
    def file(self) -> str:
        """The name of its record."""
        return f"{self.made.replace(':', '')}-{self.scheduler}.json"


def this_process() -> str:
    """This process, as a record names it."""
    return _named(psutil.Process())


def _named(process: psutil.Process) -> str:
    return f"{process.pid}@{os.uname().nodename} {process.create_time():.2f}"


def records_folder(home: Path) -> Path:
    """The folder of the records, made with the one for the jobs' output in it.

    Raises:
        BadInput: it cannot be written in.
    """
    folder = home / "jobs"
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BadInput(f"{folder}: cannot keep records there ({one_line(error)}); set BDQM_HOME") from None
    return folder


def write_record(folder: Path, submission: Submission) -> None:
    """Keep the record of a submission: before it, and again with the id after it."""
    write_whole(folder / submission.file, json.dumps(asdict(submission), indent=1) + "\n")


def read_records(folder: Path) -> list[Submission]:
    """All records, the oldest first.

    Raises:
        BadInput: a file is none.
    """
    found = []
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            found.append(Submission(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            raise BadInput(f"{path} is no record of a submission ({one_line(error)}); remove it") from None
    return found
