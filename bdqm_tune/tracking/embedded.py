"""MLflow's embedded store, a SQLite file: made whole or not at all.

MLflow makes its tables in some fifty steps and cannot resume where it was cut off, by a full disk or a signal: the
file would be useless. Of `mlflow` itself, which does it all the same, it is waited for.
"""

import os
import sqlite3
import time
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

import sqlalchemy
from sqlalchemy.pool import StaticPool

from bdqm_tune.errors import BadInput
from bdqm_tune.files import locked
from bdqm_tune.services.mlflow_private import initialize_tables, revisions
from bdqm_tune.storage.database import sqlite_file
from bdqm_tune.tracking.moved_folder import follow_move

NO_LOCKS_REMEDY = "set MLFLOW_TRACKING_URI to a file on another one, or let `bdqm-tune services up` start servers"
STILL = 15.0  # seconds without a change after which nobody is making tables
POLL = 0.1  # seconds between two checks

_whole: set[Path] = set()  # files whose tables were whole


def make_tracking_file(uri: str) -> None:
    """Make MLflow's tables in the file that the tracking URI names, unless it is there, or is no SQLite file.

    Of several processes, of any study, one makes them. Returns when they are whole.

    Raises:
        BadInput: the path is one in which MLflow loses artifacts, or its file system has no locks.
        OSError: it cannot be written.
    """
    file = sqlite_file(sqlalchemy.make_url(uri)) if uri.startswith("sqlite:") else None
    if file is None or (file in _whole and file.exists()):
        return
    check_folder(Path.cwd())
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.with_name(f".{file.name}.lock")
        try:
            with locked(lock, NO_LOCKS_REMEDY):
                if not file.exists():
                    _make(file)
        finally:
            lock.unlink(missing_ok=True)  # a process that locks a new one finds the file, or makes the same
    _await_tables(file)
    with suppress(sqlite3.Error):  # MLflow says what is wrong with the file
        follow_move(file)
    _whole.add(file)


def check_folder(folder: Path) -> None:
    """See that MLflow finds artifacts again below a folder: of a path it decodes %41 to A.

    Raises:
        BadInput: it does not.
    """
    if unquote(str(folder)) != str(folder):
        raise BadInput(
            f"{folder}: MLflow keeps artifacts elsewhere where a path has a % and two hexadecimal digits; "
            "rename the folder"
        )


def _await_tables(file: Path) -> None:
    """Wait while another program, `mlflow` itself, makes the tables: as long as their revision changes."""
    last, since = _revision(file), time.monotonic()
    while last != _head() and time.monotonic() - since < STILL:
        time.sleep(POLL)
        if (now := _revision(file)) != last:
            last, since = now, time.monotonic()


def _revision(file: Path) -> str | None:
    """Alembic's revision of the tables; None: there are none, or they cannot be read."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        return None
    return row[0] if row else None


@cache
def _head() -> str | None:
    """The revision of the tables that this MLflow makes."""
    return revisions().get_current_head()


def _make(file: Path) -> None:
    partial = file.with_name(f".{file.name}.{uuid4().hex}")
    content = _tables()
    try:
        partial.write_bytes(content)
        _put(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _tables() -> bytes:
    """A database with MLflow's tables, as SQLite writes it."""
    memory = sqlalchemy.create_engine("sqlite://", poolclass=StaticPool)
    try:
        initialize_tables(memory)
        connection = memory.raw_connection().driver_connection
        assert connection is not None
        return bytes(connection.serialize())
    finally:
        memory.dispose()


def _put(partial: Path, file: Path) -> None:
    """Give the file its name, unless another process was faster, whose file may be in use."""
    try:
        with suppress(FileExistsError):
            os.link(partial, file)
    except OSError:  # a file system that knows one name of a file
        if not file.exists():
            partial.rename(file)
