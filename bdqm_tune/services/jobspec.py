"""What a job needs, whatever the scheduler; and what is the same for all schedulers."""

import os
import re
import shlex
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bdqm_tune.errors import BadInput, BdqmError, shown
from bdqm_tune.services.site import Site

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
PATIENCE = 120  # seconds for a command of a scheduler
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


class NoAnswer(BdqmError):
    """A command of a scheduler ended, or did not, without saying whether it did what it was asked for."""


class Scheduler(ABC):
    """What runs jobs."""

    name: str
    suffix: str  # of its scripts in jobs/
    queue: str  # the command that shows a user's jobs

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
        """Submit a job or an array, and return its id.

        Raises:
            NoAnswer: it may be in the queue, and its id is not known.
            BdqmError: the scheduler refuses it, with what it says.
        """

    @abstractmethod
    def states(self, job_ids: Sequence[str]) -> list[JobState]:
        """Those of these jobs that wait or run, a line for each task of an array."""

    @abstractmethod
    def cancel(self, job_id: str) -> None:
        """End a job or an array by SIGTERM. One that has ended already is left alone."""

    def seconds(self, walltime: str) -> int | None:
        """A walltime in seconds; None: only the scheduler knows."""
        return None

    def script(self, spec: JobSpec) -> Path:
        """The script of a job."""
        return spec.project / "jobs" / f"{spec.job}{self.suffix}"

    def text(self, spec: JobSpec) -> str:
        """Command and variables as one would type them."""
        lines = [f"mkdir -p {shlex.quote(str(spec.logs))}", f"cd {shlex.quote(str(self.folder(spec)))}"]
        return "\n".join(lines) + "\n" + exports(spec.variables) + shlex.join(self.command(spec))


def exports(variables: Mapping[str, str]) -> str:
    """Lines for a shell to evaluate, which give these variables to what it starts."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def call(command: Sequence[str], cwd: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Standard output of a scheduler's command.

    Raises:
        NoAnswer: it has not ended after two minutes.
        BdqmError: it fails, with what it says.
    """
    done = _run(command, cwd, environ)
    if done.returncode:
        raise BdqmError(_failure(command, done))
    return done.stdout


def submit_by(
    command: Sequence[str], pattern: re.Pattern[str], cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> str:
    """The id of the job that a command submits: the last line of what it prints that is one.

    A site's wrapper may greet before, and report after it.

    Args:
        pattern: of such a line; its group `id`.

    Raises:
        NoAnswer: the job may be in the queue: there is no id, or there is one and the command failed nevertheless.
        BdqmError: it fails, with what it says.
    """
    done = _run(command, cwd, environ)
    found = [each for text in (done.stdout, done.stderr) if (each := _last_id(text, pattern))]
    if done.returncode and found:
        raise NoAnswer(f"{_failure(command, done)} (and what it printed has an id, {found[0]})")
    if done.returncode:
        raise BdqmError(_failure(command, done))
    if not found:
        said = shown(f"{done.stdout}{done.stderr}")
        raise NoAnswer(f"{command[0]} took the job, and no line of what it printed is an id: {said}")
    return found[0]


def find_id(output: str, pattern: re.Pattern[str]) -> str:
    """The id in what a command that submitted a job printed. Raises NoAnswer: there is none."""
    if found := _last_id(output, pattern):
        return found
    raise NoAnswer(f"no line is a job's id: {shown(output)}")


def _last_id(output: str, pattern: re.Pattern[str]) -> str:
    for line in reversed(COLOURS.sub("", output).splitlines()):
        if found := pattern.fullmatch(line.strip()):
            return found["id"]
    return ""


def _failure(command: Sequence[str], done: "subprocess.CompletedProcess[str]") -> str:
    output = " ".join(f"{done.stderr} {done.stdout}".split())
    return f"{command[0]} failed: {output or f'exit status {done.returncode}'}"


def _run(
    command: Sequence[str], cwd: Path | None, environ: Mapping[str, str] | None
) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # a site's greeting may be in any encoding
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{command[0]} has not ended after {PATIENCE} s") from None
    except OSError as error:
        raise BdqmError(f"{command[0]}: {error}") from None
