"""Tables of an embedded MLflow store, made once a process and then copied: MLflow takes 1.3 s of processor for each.

The revision that they must have, for which MLflow reads a folder of scripts each time, is looked up once as well;
and so is each script that Optuna reads whenever a storage is opened.
"""

import functools
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from unittest import mock

import alembic.util
import sqlalchemy
from mlflow.store.db import utils


@contextmanager
def copied_tables(template: Path) -> Iterator[None]:
    """Let MLflow make the first SQLite file of this process as ever, and fill others from a copy of it."""
    make = utils._initialize_tables

    def copy(engine: sqlalchemy.Engine) -> None:
        if engine.dialect.name != "sqlite" or sqlalchemy.inspect(engine).get_table_names():
            return make(engine)
        if not template.exists():
            unfinished = template.with_suffix(".unfinished")
            first = sqlalchemy.create_engine(f"sqlite:///{unfinished}")
            make(first)
            first.dispose()
            unfinished.rename(template)
        with closing(sqlite3.connect(template)) as source, closing(engine.raw_connection()) as target:
            source.backup(target.driver_connection)  # type: ignore[arg-type]
        return None

    read = alembic.util.load_python_file
    read_once = functools.cache(read)

    def script(folder: str, name: str) -> ModuleType:
        return (read if name == "env.py" else read_once)(folder, name)  # to read env.py is to migrate

    with (
        mock.patch.object(alembic.util, "load_python_file", script),
        mock.patch.object(utils, "_initialize_tables", copy),
        mock.patch.object(utils, "_get_latest_schema_revision", functools.cache(utils._get_latest_schema_revision)),
        mock.patch("mlflow.store.model_registry.sqlalchemy_store._initialize_tables", copy),
    ):
        yield
