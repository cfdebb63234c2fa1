"""MLflow's embedded store, a SQLite file: made whole or not at all.

MLflow makes its tables in some fifty steps and cannot resume where it was cut off, by a full disk or a signal: the
file would be useless.
"""

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import sqlalchemy
from sqlalchemy.pool import StaticPool

from bdqm_tune.services.mlflow_private import initialize_tables
from bdqm_tune.storage.database import sqlite_file


def make_tracking_file(uri: str) -> None:
    """Make MLflow's tables in the file that the tracking URI names, unless it is there, or is no SQLite file.

    Raises:
        OSError: it cannot be written.
    """
    file = sqlite_file(sqlalchemy.make_url(uri)) if uri.startswith("sqlite:") else None
    if file is None or file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
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
