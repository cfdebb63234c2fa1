"""Signals and deaths while the servers are being started: nothing of them is left behind, and nothing is waited for."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from bdqm_tune.errors import BdqmError
from bdqm_tune.mlflow_server import control
from bdqm_tune.mlflow_server.control import up
from bdqm_tune.mlflow_server.paths import ServerPaths, state_of
from bdqm_tune.mlflow_server.processes import holder, leftovers, uninterrupted, wait_for
from bdqm_tune.mlflow_server.settings import Choices
from bdqm_tune.mlflow_server.supervisor import Servers as Supervised
from bdqm_tune.services.connection import read_connection
from tests.forked import Forked
from tests.servers import Servers
from tests.waiting import eventually

# The process that looks after the servers itself; they are two that sleep. MLflow's answers once there
# is a file `answers`.
SUPERVISOR = """
import os, sys
from bdqm_tune.mlflow_server import supervisor, tracking
from bdqm_tune.mlflow_server.processes import start

def sleeping(places, *_):
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    return start(command, places.folder, places.log("sleeping"), os.environ)

class Programs:
    version = "none"

supervisor.find_programs, supervisor.initialise = Programs, lambda *_: None
supervisor.start_database, supervisor.await_database = sleeping, lambda *_: None
supervisor.Servers._bring_schemas = lambda _: None
tracking.start_tracking, tracking.listens = sleeping, lambda *_: True
tracking.answers = lambda *_: os.path.exists("answers")
supervisor.main()
"""


@pytest.fixture
def places(tmp_path: Path) -> ServerPaths:
    return ServerPaths(tmp_path / "services")


@pytest.fixture
def supervise(places: ServerPaths) -> Iterator[Callable[[], Forked]]:
    """`supervise()` starts both "servers"."""
    started: list[Forked] = []

    def begin() -> Forked:
        started.append(Forked(["-c", SUPERVISOR, places.folder, "127.0.0.1"], cwd=places.folder.parent))
        return started[-1]

    yield begin
    for process in [*started, *leftovers(places.folder)]:
        process.kill()


def read_until(lines: IO[str], part: str) -> str:
    """What is printed until a line has `part`, with that line."""
    found = ""
    for line in lines:
        found += line
        if part in line:
            return found
    pytest.fail(f"no line with {part!r}: {found}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_server_starts_leaves_none(
    places: ServerPaths, supervise: Callable[[], Forked], number: int
) -> None:
    process = supervise()
    read_until(process.stdout, "MLflow: starting")
    eventually(lambda: len(leftovers(places.folder)) == 2)
    process.send_signal(number)
    output, errors = process.communicate(60)
    assert process.wait() == 130
    assert leftovers(places.folder) == []
    assert "error: interrupted before the servers were up" in output
    assert "Traceback" not in output + errors
    assert holder(places.lock) is None


def test_signals_at_any_moment_leave_no_server(places: ServerPaths, supervise: Callable[[], Forked]) -> None:
    (places.folder.parent / "answers").touch()
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
        process = supervise()
        read_until(process.stdout, "database: none")
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(60)
        assert process.wait() in (0, 130)
        assert leftovers(places.folder) == [], f"after {delay} s: {output}"
        assert "Traceback" not in output + errors


def test_a_database_that_dies_while_mlflow_starts_is_started_again_at_once(
    places: ServerPaths, supervise: Callable[[], Forked]
) -> None:
    process = supervise()
    read_until(process.stdout, "MLflow: starting")
    eventually(lambda: len(leftovers(places.folder)) == 2)
    database, mlflow = sorted(leftovers(places.folder), key=psutil.Process.create_time)
    database.kill()
    killed = time.monotonic()
    output = read_until(process.stdout, "database: starting")
    assert time.monotonic() - killed < 15
    assert "the database ended while MLflow was starting" in output
    assert not mlflow.is_running()
    (places.folder.parent / "answers").touch()
    read_until(process.stdout, "up: http")
    assert len(leftovers(places.folder)) == 2
    process.terminate()
    assert process.wait(60) == 0
    assert leftovers(places.folder) == []


def test_the_connection_file_is_written_again_where_it_is_gone_or_damaged(
    places: ServerPaths, supervise: Callable[[], Forked]
) -> None:
    (places.folder.parent / "answers").touch()
    process = supervise()
    read_until(process.stdout, "up: http")
    written = places.connection.read_text()
    places.connection.unlink()
    assert up(places, "127.0.0.1", False, print) == read_connection(places.connection)
    assert places.connection.read_text() == written
    places.connection.write_text("{}")
    assert up(places, "127.0.0.1", False, print) == read_connection(places.connection)
    assert places.connection.read_text() == written
    assert len(leftovers(places.folder)) == 2
    process.terminate()
    assert process.wait(60) == 0
    assert not places.connection.exists()


def test_up_is_over_when_what_it_started_is_up_not_when_others_were(
    places: ServerPaths, supervise: Callable[[], Forked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What those left behind who were killed looks as if it were of those who start."""
    (places.folder.parent / "answers").touch()
    process = supervise()
    read_until(process.stdout, "up: http")
    before, log = state_of(places.connection), places.log("services")
    still: Any = psutil.Process(process.pid)
    still.poll = lambda: None
    monkeypatch.setattr(control, "UP_SECONDS", 0.5)
    with pytest.raises(BdqmError, match="the servers are not up after 0 s"):
        control._await(places, still, before, log, 0, print)
    places.connection.unlink()
    monkeypatch.setattr(control, "UP_SECONDS", 30.0)
    assert control._await(places, still, before, log, 0, print) == read_connection(places.connection)
    process.terminate()
    assert process.wait(60) == 0


def test_what_a_signal_would_cut_off_is_done_first() -> None:
    done: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            done.append("registered")
        done.append("too late")
    assert done == ["registered"]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interruption_that_is_lost_in_a_callback_is_heeded_by_what_waits(
    places: ServerPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    monkeypatch.setattr("bdqm_tune.progress.told_to_end", told)
    assert not wait_for(lambda: False, [], 0.01)
    told.set()
    with pytest.raises(KeyboardInterrupt):
        wait_for(lambda: False, [], 10)
    with pytest.raises(KeyboardInterrupt):
        control._await(places, None, None, places.log("services"), 0, print)


@pytest.mark.soak
def test_real_servers_are_given_up_or_started_again_in_the_middle_of_a_start(own_servers: Servers) -> None:
    command = [sys.executable, "-m", "bdqm_tune", "services", "up"]
    environ = own_servers.environ | {"PYTHONUNBUFFERED": "1"}

    def start(*options: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*command, *options], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    for options, part in ((), "database: starting"), ((), "MLflow: starting"), (("--foreground",), "MLflow: starting"):
        process = start(*options)
        assert process.stdout is not None
        read_until(process.stdout, part)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 130, output
        assert output.endswith("bdqm-tune: interrupted\n")
        assert "Traceback" not in output
        assert leftovers(own_servers.folder) == []

    process = start("--foreground")
    assert process.stdout is not None
    read_until(process.stdout, "MLflow: starting")
    (database,) = [one for one in leftovers(own_servers.folder) if one.name() in ("mariadbd", "mysqld")]
    database.kill()
    read_until(process.stdout, "up: ")
    own_servers.services("status")
    process.terminate()
    assert process.wait(timeout=120) == 0
    assert leftovers(own_servers.folder) == []


def test_a_port_that_was_taken_for_a_moment_is_no_obstacle(places: ServerPaths) -> None:
    """Found by random faults: what took it had gone by the time of the second look."""
    servers, tried = Supervised(places, Choices(), print), list[int]()

    def start(port: int) -> Any:
        tried.append(port)
        if len(tried) == 1:
            raise BdqmError(f"it does not start: [Errno 98] address already in use: {port}")
        return None

    port, _ = servers._on_a_free_port([], start)
    assert [port] == tried[1:]

    def fail(port: int) -> Any:
        tried.append(port)
        raise BdqmError("it does not start")

    with pytest.raises(BdqmError, match="it does not start"):
        servers._on_a_free_port([], fail)
    assert len(tried) == 3
