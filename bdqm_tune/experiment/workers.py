"""Who works on a study: a table of workers beside Optuna's, in which each counts as long as it lives."""

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from bdqm_tune.experiment.patience import Patience
from bdqm_tune.experiment.provenance import JOB_ID_VARIABLES

RUNNING, ENDED, LOST = "running", "ended", "lost"

TABLE = sa.Table(
    "bdqm_workers",
    sa.MetaData(),
    sa.Column("worker", sa.String(32), primary_key=True),
    sa.Column("study_id", sa.Integer, nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("beats", sa.BigInteger, nullable=False),
    sa.Column("since", sa.DateTime, nullable=False),  # these two by the database's clock, to be shown only
    sa.Column("seen", sa.DateTime, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
)


@dataclass(frozen=True)
class Worker:
    """A process that runs trials of a study, as the database has it."""

    name: str
    state: str  # running, ended, or lost: it no longer counted
    beats: int  # counts up while it lives
    since: datetime
    seen: datetime  # when it counted last
    description: Mapping[str, str]  # host, pid, process, run_id of its MLflow run, device, and job where there is one
    note: str  # what was done about it

    @property
    def is_gone(self) -> bool:
        """Whether its process is known to be no more, as it ran on this machine since this was started."""
        machine, _, process = self.description.get("process", "").rpartition("/")
        pid, _, started = process.partition("@")
        here = machine == process_identity().rpartition("/")[0]
        return here and pid.isdecimal() and started != _started(int(pid))


class Workers:
    """The workers of one study.

    Args:
        engine: of the database in which the study is.
        patience: with the database; every method may wait, and raises what the last attempt raised.
    """

    def __init__(self, engine: sa.Engine, patience: Patience, study_id: int) -> None:
        self._engine, self._patience, self._study_id = engine, patience, study_id

    @cached_property
    def _made(self) -> bool:
        """Make the table if there is none; several may at the same time."""
        with self._engine.begin() as connection:
            connection.execute(CreateTable(TABLE, if_not_exists=True))
        return True

    def _run(self, statement: sa.Executable) -> Any:
        def once() -> Any:
            assert self._made
            with self._engine.begin() as connection:
                result = connection.execute(statement)
                return result.all() if result.returns_rows else result.rowcount

        return self._patience(once)

    def add(self, name: str, description: Mapping[str, str]) -> None:
        """Enter a worker; again for one that is there, nothing happens."""
        now = sa.func.current_timestamp()
        there = sa.exists().where(TABLE.c.worker == name)
        values = [name, self._study_id, RUNNING, 0, json.dumps(dict(description)), ""]
        row = sa.select(*(sa.literal(value) for value in values[:4]), now, now, *map(sa.literal, values[4:]))
        self._run(TABLE.insert().from_select([column.name for column in TABLE.columns], row.where(~there)))

    def count(self, name: str) -> bool:
        """Say that a worker lives; False if it was declared lost meanwhile."""
        mine = sa.and_(TABLE.c.worker == name, TABLE.c.state == RUNNING)
        values = {"beats": TABLE.c.beats + 1, "seen": sa.func.current_timestamp()}
        return bool(self._run(TABLE.update().where(mine).values(values)))

    def end(self, name: str, state: str = ENDED, note: str = "", beats: int | None = None) -> bool:
        """End a worker that runs; whether it was this call that did.

        Args:
            state: ended, or lost.
            beats: only if it has not counted on from there.
        """
        chosen = [TABLE.c.worker == name, TABLE.c.state == RUNNING]
        if beats is not None:
            chosen.append(TABLE.c.beats == beats)
        return bool(self._run(TABLE.update().where(*chosen).values(state=state, note=note)))

    def all(self, *states: str) -> list[Worker]:
        """Those of the study in these states, or in any; the first to come first."""
        query = TABLE.select().where(TABLE.c.study_id == self._study_id).order_by(TABLE.c.since, TABLE.c.worker)
        if states:
            query = query.where(TABLE.c.state.in_(states))
        return [
            Worker(row.worker, row.state, row.beats, row.since, row.seen, json.loads(row.description), row.note)
            for row in self._run(query)
        ]

    def forget(self) -> None:
        """Remove all of the study, which is to be deleted."""
        self._run(TABLE.delete().where(TABLE.c.study_id == self._study_id))


def describe_process() -> dict[str, str]:
    """This process, for others to find it."""
    found = {"host": socket.gethostname(), "pid": str(os.getpid()), "process": process_identity()}
    jobs = [os.environ[name] for name in JOB_ID_VARIABLES if os.environ.get(name)]
    return found | ({"job": jobs[0]} if jobs else {})


def process_identity() -> str:
    """This process among all there ever were: MACHINE/PID@START, the machine as far as this user sees its processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        boot, space = "unknown", str(uuid4())
    return f"{boot} {space} {os.getuid()}/{os.getpid()}@{_started(os.getpid())}"


def _started(pid: int) -> str:
    """When a process of this machine started, in ticks since its boot, for the clock may jump; "" if there is none."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]
