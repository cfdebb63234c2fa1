"""The registry of a study's workers: a table beside Optuna's, with a heartbeat counter for each."""

import json
import os
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from optuna.exceptions import StorageInternalError

from bdqm_tune.errors import BdqmError
from bdqm_tune.process import is_gone, is_here, process_identity
from bdqm_tune.services.tables import WORKERS as TABLE
from bdqm_tune.services.tables import has_tables, make_tables
from bdqm_tune.storage.queries import StudyDatabaseFailed
from bdqm_tune.storage.retry import Retry, postgresql_code, reason
from bdqm_tune.tracking.provenance import JOB_ID_VARIABLES

Answer = TypeVar("Answer")
RUNNING, ENDED, DEAD = "running", "ended", "lost"  # as stored
DENIED, POSTGRES_DENIED = 1142, "42501"  # MySQL's number and PostgreSQL's code for: the account may not do this


@dataclass(frozen=True)
class Worker:
    """A process that runs trials of a study, as registered."""

    name: str
    state: str  # running, ended, or lost: declared dead
    heartbeats: int  # counted up while it lives
    since: datetime  # UTC
    seen: datetime  # time of the last heartbeat, UTC
    description: Mapping[str, str]  # host, pid, process, run_id of its MLflow run, device, and job where there is one
    note: str  # why it was declared dead

    @property
    def is_gone(self) -> bool:
        """Whether its process is known to have ended."""
        return is_gone(self.description.get("process", ""))

    @property
    def is_here(self) -> bool:
        """Whether it ran on this machine since this was started, as far as is known."""
        return is_here(self.description.get("process", ""))


class Workers:
    """The workers of one study.

    Args:
        engine: of the database in which the study is.
        retry: of every method, which raises StudyDatabaseFailed after the retry timeout.
    """

    def __init__(self, engine: sa.Engine, retry: Retry, study_id: int) -> None:
        self._engine, self._retry, self._study_id = engine, retry, study_id
        self._known = False

    def _run(self, call: Callable[[], Answer]) -> Answer:
        try:
            return self._retry(call)
        except (StorageInternalError, sa.exc.SQLAlchemyError) as error:
            raise StudyDatabaseFailed(f"{self._retry.name()} failed: {reason(error)}") from error

    def _change(self, statement: sa.Executable) -> int:
        """Execute it; the number of rows that it changed."""

        def once() -> int:
            with self._engine.begin() as connection:
                return int(connection.execute(statement).rowcount)

        return self._run(once)

    @property
    def _exists(self) -> bool:
        """Whether the table exists; an older version made none, and the first worker makes it."""
        self._known = self._known or self._run(lambda: has_tables(self._engine))
        return self._known

    def _make(self) -> None:
        try:
            self._run(lambda: make_tables(self._engine))
        except StudyDatabaseFailed as error:
            cause = error.__cause__
            if f"({DENIED}," not in str(cause) and postgresql_code(getattr(cause, "orig", None)) != POSTGRES_DENIED:
                raise
            raise BdqmError(
                f"{self._retry.name()} lacks the table {TABLE.name}, which this account may not make: "
                "`bdqm-tune services down` and `bdqm-tune services up` make it on servers of an older bdqm-tune; "
                "elsewhere, anyone who may make tables there runs `bdqm-tune tune` once"
            ) from None
        self._known = True

    def add(self, name: str, description: Mapping[str, str]) -> None:
        """Register a worker; does nothing if it is registered."""
        self._make()
        now = sa.func.current_timestamp()
        registered = sa.exists().where(TABLE.c.worker == name)
        values = [name, self._study_id, RUNNING, 0, json.dumps(dict(description)), ""]
        row = sa.select(*(sa.literal(value) for value in values[:4]), now, now, *map(sa.literal, values[4:]))
        self._change(TABLE.insert().from_select([column.name for column in TABLE.columns], row.where(~registered)))

    def describe(self, name: str, description: Mapping[str, str]) -> None:
        """Replace the description of a worker."""
        self._change(TABLE.update().where(TABLE.c.worker == name).values(description=json.dumps(dict(description))))

    def heartbeat(self, name: str) -> bool:
        """Record a heartbeat of a worker; False if it was declared dead meanwhile."""
        mine = sa.and_(TABLE.c.worker == name, TABLE.c.state == RUNNING)
        values = {"beats": TABLE.c.beats + 1, "seen": sa.func.current_timestamp()}
        return bool(self._change(TABLE.update().where(mine).values(values)))

    def end(self, name: str, state: str = ENDED, note: str = "", heartbeats: int | None = None) -> bool:
        """End a running worker; True if this call did.

        Args:
            state: ENDED or DEAD.
            heartbeats: only if its counter has still this value.
        """
        chosen = [TABLE.c.worker == name, TABLE.c.state == RUNNING]
        if heartbeats is not None:
            chosen.append(TABLE.c.beats == heartbeats)
        return bool(self._change(TABLE.update().where(*chosen).values(state=state, note=note)))

    def heartbeats(self) -> dict[str, int]:
        """The heartbeat counters of the study's running workers, by name."""
        if not self._exists:
            return {}
        mine = sa.and_(TABLE.c.study_id == self._study_id, TABLE.c.state == RUNNING)
        query = sa.select(TABLE.c.worker, TABLE.c.beats).where(mine)

        def once() -> dict[str, int]:
            with self._engine.begin() as connection:
                return {row.worker: row.beats for row in connection.execute(query)}

        return self._run(once)

    def all(self, *states: str, names: Collection[str] | None = None) -> list[Worker]:
        """The study's workers in these states, or in any, by the time of registration.

        Args:
            names: of the workers to return; None: all.
        """
        if not self._exists:
            return []
        query = sa.select(TABLE, sa.func.current_timestamp().label("now")).where(TABLE.c.study_id == self._study_id)
        if states:
            query = query.where(TABLE.c.state.in_(states))
        if names is not None:
            query = query.where(TABLE.c.worker.in_(names))

        def once() -> list[Worker]:
            with self._engine.begin() as connection:
                return [_worker(row) for row in connection.execute(query.order_by(TABLE.c.since, TABLE.c.worker))]

        return self._run(once)

    def forget(self) -> None:
        """Remove all workers of the study, which is to be deleted."""
        if self._exists:
            self._change(TABLE.delete().where(TABLE.c.study_id == self._study_id))


def _worker(row: sa.Row[Any]) -> Worker:
    # The database may be in another time zone, or its clock be wrong; PostgreSQL names the zone, though not of columns.
    now = row.now.replace(tzinfo=None)
    shift = timedelta(seconds=round((datetime.now(UTC).replace(tzinfo=None) - now).total_seconds()))
    since, seen = ((moment + shift).replace(tzinfo=UTC) for moment in (row.since, row.seen))
    return Worker(row.worker, row.state, row.beats, since, seen, json.loads(row.description), row.note)


def who(worker: Worker) -> str:
    """A worker as shown to people: `PID on HOST`."""
    return f"{worker.description.get('pid', '?')} on {worker.description.get('host', '?')}"


def describe_process() -> dict[str, str]:
    """Description of this process: host, pid, process identity, scheduler job."""
    process = {"host": socket.gethostname(), "pid": str(os.getpid()), "process": process_identity()}
    jobs = [os.environ[name] for name in JOB_ID_VARIABLES if os.environ.get(name)]
    return process | ({"job": jobs[0]} if jobs else {})
