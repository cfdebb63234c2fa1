"""Bring the servers up and down from a terminal, and say what runs."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.mlflow_server import supervisor, tracking
from bdqm_tune.mlflow_server.certificates import expiry, warning
from bdqm_tune.mlflow_server.data_lock import refuse_during_restore
from bdqm_tune.mlflow_server.database import connect
from bdqm_tune.mlflow_server.node import closed_to_others, elsewhere
from bdqm_tune.mlflow_server.paths import ServerPaths, state_of
from bdqm_tune.mlflow_server.processes import held, holder, leftovers, open_log, stop, uninterrupted
from bdqm_tune.mlflow_server.restore import restore_state
from bdqm_tune.mlflow_server.settings import choose, load_settings
from bdqm_tune.progress import check
from bdqm_tune.services.connection import Connection, read_connection
from bdqm_tune.services.secrets import without_secrets

LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (.*)$", re.MULTILINE)  # of the supervisor's log
UP_SECONDS, DOWN_SECONDS = 240.0, 35.0


@dataclass(frozen=True)
class Status:
    """What runs, and where."""

    # up, starting, down, failing: a server does not answer, or elsewhere: on a node that alone reaches them
    state: str
    folder: str
    host: str = ""
    since: str = ""
    database: str = ""  # address without password, "" if it does not answer
    tracking: str = ""
    artifacts_bytes: int = 0
    database_bytes: int = 0  # of its files, which are larger than the data at first
    restore: str = ""  # that is at work, or was cut off
    certificates_until: str = ""  # ISO 8601
    certificates_warning: str = ""


def up(places: ServerPaths, bind: str, foreground: bool, say: Callable[[str], None]) -> Connection:
    """Bring the servers up and wait until they answer; if they are, say where.

    Args:
        bind: the address to listen at.
        foreground: stay, and stop them at SIGTERM or SIGINT.

    Raises:
        BadInput: the place or an address cannot be used, or a restore is at work.
        BdqmError: they do not start.
        KeyboardInterrupt: before they were up; what this call had started is stopped.
    """
    choices = choose(bind, load_settings(places.settings))
    if (connection := _reached_elsewhere(places)) is not None:
        return connection
    refuse_during_restore(places)
    if foreground:
        reached: list[Connection] = []

        def ready(connection: Connection) -> None:
            reached.append(connection)
            say(f"up: {connection.tracking_uri}; SIGTERM or Ctrl-C stops the servers")

        supervisor.run(places, choices, supervisor.say, ready)
        return reached[0]
    places.make()
    log = places.log("services")
    offset = log.stat().st_size if log.exists() else 0
    process, before = None, state_of(places.connection)
    if holder(places.lock) is None:
        with open_log(log) as output, uninterrupted():
            process = subprocess.Popen(
                [sys.executable, "-m", "bdqm_tune.mlflow_server.supervisor", places.folder, bind],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    try:
        return _await(places, process, before, log, offset, say)
    except KeyboardInterrupt:
        if process is not None:
            say("stopping what was started")
            process.terminate()
            process.wait(DOWN_SECONDS)
        raise


def _await(
    places: ServerPaths,
    process: "subprocess.Popen[bytes] | None",
    before: tuple[int, int] | None,
    log: Path,
    offset: int,
    say: Callable[[str], None],
) -> Connection:
    """Follow the log until the servers are up.

    Args:
        process: that was started to bring them up; None if another one was at it before.
        before: state of the connection file before it was started, which others may have left.
    """
    deadline, problem = time.monotonic() + UP_SECONDS, f"the servers did not start; log: {log}"
    with log.open("r", encoding="utf-8", errors="replace") if log.exists() else Path(os.devnull).open() as lines:
        lines.seek(offset)
        while time.monotonic() < deadline:
            check()  # an interruption may have been lost in a callback
            ended = process is None or process.poll() is not None
            someone = holder(places.lock)
            is_new = ended or state_of(places.connection) != before
            if is_new and _published(places) and (someone is not None or ended):
                try:
                    return read_connection(places.connection)
                except BdqmError as error:  # it is damaged; the supervisor writes it again
                    problem = str(error)
                    if someone is None:
                        raise
            for text in LINE.findall(lines.read()):
                if text.startswith("error: "):
                    problem = text.removeprefix("error: ")
                elif process is not None:
                    say(text)
            if ended and someone is None:
                raise BdqmError(problem)
            time.sleep(0.1)
    raise BdqmError(f"the servers are not up after {UP_SECONDS:.0f} s; log: {log}")


def _published(places: ServerPaths) -> bool:
    """Whether the connection file is of those who had the lock last, not left by others before."""
    try:
        return places.connection.stat().st_mtime_ns >= places.lock.stat().st_mtime_ns
    except FileNotFoundError:
        return False


def _reached_elsewhere(places: ServerPaths) -> Connection | None:
    """Servers of this folder that run on another machine, which shares it, and answer here."""
    if elsewhere(places) is None or not places.connection.exists():
        return None
    connection = read_connection(places.connection)
    # What answers at a loopback address is another program of this machine, and must not get a password.
    return None if closed_to_others(connection) or not _answers(connection.storage_url) else connection


def down(places: ServerPaths) -> bool:
    """Shut the servers down; False if none ran.

    Raises:
        BadInput: they run on another node.
        BdqmError: they do not end.
    """
    if (node := elsewhere(places)) is not None:
        raise BadInput(
            f"the servers run on {node}: there, bdqm-tune services down; or end the job that runs them "
            f"(if {node} is gone: bdqm-tune services up here, then down)"
        )
    running = holder(places.lock)
    was_up = places.connection.exists() or running is not None or bool(leftovers(places.folder))
    deadline, terminated = time.monotonic() + DOWN_SECONDS, set[int]()
    while running is not None:
        if running.pid not in terminated:
            running.terminate(places.lock)
            terminated.add(running.pid)
        if time.monotonic() > deadline:
            raise BdqmError(f"process {running.pid} does not stop the servers; log: {places.log('services')}")
        time.sleep(0.1)
        running = holder(places.lock)
    if places.lock.exists():
        with held(
            places.lock, lambda: supervisor.AlreadyRunning(f"another process runs the servers of {places.folder}")
        ):
            stop(leftovers(places.folder), DOWN_SECONDS)
            places.connection.unlink(missing_ok=True)
            places.release_socket()  # of a supervisor that was killed
    return was_up


def status(places: ServerPaths) -> Status:
    """What runs."""
    found = Status(
        state="starting" if holder(places.lock) else "down",
        folder=str(places.folder),
        artifacts_bytes=folder_bytes(places.artifacts),
        database_bytes=folder_bytes(places.data),
        restore=restore_state(places),
        certificates_until=end.isoformat() if (end := expiry(places.tls)) else "",
        certificates_warning=warning(places.tls),
    )
    if not places.connection.exists():
        return found
    connection = read_connection(places.connection)
    if (node := elsewhere(places)) is not None and closed_to_others(connection):
        return replace(found, state="elsewhere", host=node, since=connection.since)
    database = _answers(connection.storage_url)
    mlflow = tracking.answers(connection.tracking_uri, Path(connection.tracking_ca) if connection.tracking_ca else None)
    return replace(
        found,
        state="up" if database and mlflow else "failing",
        host=connection.host,
        since=connection.since,
        database=without_secrets(connection.storage_url).partition("?")[0] if database else "",
        tracking=connection.tracking_uri if mlflow else "",
    )


def renew(places: ServerPaths, file: Path, say: Callable[[str], None]) -> Connection | None:
    """Remove a file that the servers make again at their start, and see that running ones do so; None: they are down.

    Args:
        file: of the passwords, or the key of the authority that signs the certificates.

    Raises:
        BdqmError: they do not come up again.
    """
    running, before = holder(places.lock) or elsewhere(places), state_of(places.connection)
    file.unlink(missing_ok=True)
    if running is None:
        return None
    say("both servers start again; workers wait for them")
    deadline = time.monotonic() + UP_SECONDS
    while state_of(places.connection) in (before, None):
        if (holder(places.lock) or elsewhere(places)) is None:
            raise BdqmError(f"the servers have ended; `bdqm-tune services up`, log: {places.log('services')}")
        if time.monotonic() > deadline:
            raise BdqmError(
                f"the servers are not up again after {UP_SECONDS:.0f} s; `bdqm-tune services down`, and `up`; "
                f"log: {places.log('services')}"
            )
        time.sleep(0.1)
    return read_connection(places.connection)


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(parent, name).lstat().st_size
            except FileNotFoundError:  # removed meanwhile
                continue
    return total


def _answers(storage_url: str) -> bool:
    import pymysql
    from sqlalchemy import make_url

    try:
        connect(make_url(storage_url)).close()
    except (pymysql.MySQLError, OSError):
        return False
    return True
