"""Trials that have ended while the stores were away: kept on the disk, so that their worker may end as well."""

import base64
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from bdqm_tune.files import open_no_link
from bdqm_tune.learning.checkpoint import sync_folder

FORMAT = 1
SUFFIX = ".journal"
DAMAGED = ".damaged"  # follows it in the name of a file that is kept for people to look at


@dataclass(frozen=True)
class EndedTrial:
    """All that the stores are to be told of a trial; plain JSON."""

    study: str
    identity: str  # of the study: another one may have had its name
    trial_id: int
    mark: str  # of the worker's taking the trial; whoever took it later has changed it
    parent: str  # id of the worker's run
    opening: dict[str, Any]  # an `Opening` of the trial's run
    metrics: list[tuple[dict[str, float], int, int]]  # by name; timestamp, ms; step
    tags: dict[str, str]  # at the end
    best: dict[str, float]  # metrics for the worker's run
    ended: int  # timestamp of these (ms)
    files: dict[str, str]  # artifacts, by path: base64
    result: dict[str, Any]  # a `TrialResult`
    reports: list[tuple[int, float]] = field(default_factory=list)  # epoch and value, that the study may not have

    def write_files(self, folder: Path) -> None:
        """Write the artifacts into a folder."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(base64.b64decode(content))


def read_files(folder: Path) -> dict[str, str]:
    """The files of a folder, by path, in base64."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): base64.b64encode(path.read_bytes()).decode() for path in files}


def outbox_folder(home: Path) -> Path:
    """Where the journals are, below `BDQM_HOME`."""
    return home / "journal"


class Outbox:
    """The journal of one worker: a line for each trial that has ended and that the study has not been told of.

    A line is the SHA-256 digest of what follows it, and JSON. As long as the worker lives it holds the file's lock.
    The file is there only while something is in it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{uuid4().hex}{SUFFIX}"
        self._file: int | None = None
        self._left: set[str] = set()  # marks of the trials in it that have not been told of
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def add(self, trial: EndedTrial) -> None:
        """Keep a trial, unless it was told of meanwhile; on the disk when this returns.

        Raises:
            OSError: it cannot be written; what was in the journal before still is.
        """
        with self._lock:
            if trial.mark not in self._told:
                self._append(line(trial))
                self._left.add(trial.mark)

    def told(self, mark: str) -> None:
        """Forget the trial: the stores know of it."""
        with self._lock:
            self._told.add(mark)
            self._left.discard(mark)
            if not self._left:
                self._remove()

    def close(self) -> int:
        """Leave the journal to other processes; the number of trials that it has for them."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None
            return len(self._left)

    def _append(self, content: bytes) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_no_link(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
            with suppress(OSError):  # a file system without locks: see `taken`
                fcntl.flock(self._file, fcntl.LOCK_EX)
            sync_folder(self.path.parent)
        before, left = os.fstat(self._file).st_size, memoryview(content)
        try:
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, before)
            raise

    def _remove(self) -> None:
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def line(trial: EndedTrial) -> bytes:
    """A trial as a line of a journal."""
    content = json.dumps({"format": FORMAT, **asdict(trial)}).encode()
    return hashlib.sha256(content).hexdigest().encode() + b" " + content + b"\n"


@dataclass(frozen=True)
class Content:
    """What a journal holds."""

    trials: list[EndedTrial]  # of one worker, and so of one study
    damaged: list[int]  # lines, counted from 1, that are not what was written


def read_outbox(content: bytes) -> Content:
    """The trials of a journal; a line that was cut off or changed is told, and not used."""
    found = [_trial(one) for one in content.split(b"\n") if one]
    return Content([one for one in found if one is not None], [i for i, one in enumerate(found, 1) if one is None])


def _trial(one: bytes) -> EndedTrial | None:
    digest, _, content = one.partition(b" ")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        return None
    plain: Mapping[str, Any] = json.loads(content)
    fields = {key: value for key, value in plain.items() if key != "format"}
    if plain["format"] != FORMAT or any(_leads_out(name) for name in plain["files"]):
        return None
    lists = {name: [tuple(one) for one in plain.get(name, [])] for name in ("metrics", "reports")}
    return EndedTrial(**{**fields, **lists})


def _leads_out(name: str) -> bool:
    """Whether a file of this name would be outside the folder that it is written into."""
    return PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts


@contextmanager
def taken(path: Path) -> Iterator[Content | None]:
    """What is in a journal, which nobody else reads in the block.

    None where its worker lives or another command has it; and on a file system without locks, where nobody can tell.
    """
    try:
        file = open_no_link(path, os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = os.fstat(file).st_nlink == 0  # whoever had it has told of all and removed it
        content = None if gone else read_outbox(path.read_bytes())
    except OSError:
        content = None
    try:
        yield content
    finally:
        os.close(file)
