"""What a job needs, whatever the scheduler; and what is the same for all schedulers."""

import os
import shlex
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.site import Site

WARNED = ("tune", "servers")  # jobs that see to a successor before their time is over


@dataclass(frozen=True)
class JobSpec:
    """One submission: a script of jobs/, with what the site says of it.

    Raises:
        BadInput: the number of workers cannot be.
    """

    job: str  # tune, servers, analysis or interactive: the script's name, and its table in site.toml
    project: Path  # folder with MLproject and jobs/
    site: Site
    logs: Path  # folder for the output
    workers: int = 0  # of an array; 0: one job, no array
    variables: Mapping[str, str] = field(default_factory=dict)  # of the script's environment

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise BadInput(f"--workers must be at least 1, got {self.workers}")

    @property
    def name(self) -> str:
        """The job's name in the queue."""
        return f"bdqm-{self.job}"

    @property
    def environ(self) -> dict[str, str]:
        """The whole environment of the submission, which the job inherits."""
        return {**os.environ, **self.variables}


@dataclass(frozen=True)
class JobState:
    """One line of the queue."""

    job_id: str  # of the scheduler; of a task in an array, ID_TASK
    state: str  # pending, running, or another word of the scheduler's, in small letters
    node: str = ""
    time_left: str = ""
    reason: str = ""  # why it waits


class Scheduler(ABC):
    """What runs jobs."""

    name: str
    suffix: str  # of its scripts in jobs/

    @abstractmethod
    def check(self) -> None:
        """See that it can be used here. Raises BadInput: it cannot."""

    @abstractmethod
    def command(self, spec: JobSpec) -> list[str]:
        """The command that submits a job. Nothing is done."""

    @abstractmethod
    def folder(self, spec: JobSpec) -> Path:
        """The working folder of that command."""

    @abstractmethod
    def submit(self, spec: JobSpec) -> str:
        """Submit a job or an array, and return its id. Raises BdqmError, with what the scheduler says: it refuses."""

    @abstractmethod
    def states(self, job_ids: Sequence[str]) -> list[JobState]:
        """Those of these jobs that wait or run, a line for each task of an array."""

    @abstractmethod
    def cancel(self, job_id: str) -> None:
        """End a job or an array by SIGTERM. One that has ended already is left alone."""

    def script(self, spec: JobSpec) -> Path:
        """The script of a job."""
        return spec.project / "jobs" / f"{spec.job}{self.suffix}"

    def text(self, spec: JobSpec) -> str:
        """Command and variables as one would type them."""
        lines = [f"cd {shlex.quote(str(self.folder(spec)))}"]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in spec.variables.items()]
        return "\n".join([*lines, shlex.join(self.command(spec))])


def call(command: Sequence[str], cwd: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Standard output of a scheduler's command.

    Raises:
        BdqmError: it fails, with what it says.
    """
    try:
        done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BdqmError(f"{command[0]}: {error}") from None
    if done.returncode:
        output = " ".join(f"{done.stderr} {done.stdout}".split())
        raise BdqmError(f"{command[0]} failed: {output or f'exit status {done.returncode}'}")
    return done.stdout
