"""A port that another program takes between the look for a free one and the start of the server."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bdqm_tune.errors import BdqmError
from bdqm_tune.mlflow_server.paths import ServerPaths
from bdqm_tune.mlflow_server.processes import free_port, listens
from bdqm_tune.mlflow_server.settings import choose, load_settings
from bdqm_tune.mlflow_server.supervisor import PORTS_TRIED, Servers

LISTENS = (
    "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
)


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    """Of a folder in which none has run."""
    places = ServerPaths(tmp_path / "services")
    return Servers(places, choose("127.0.0.1", load_settings(places.settings), {}), lambda text: None)


@pytest.fixture
def listener() -> Iterator[psutil.Popen]:
    """A process that listens on the port which it prints."""
    process = psutil.Popen([sys.executable, "-c", LISTENS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def test_the_next_port_is_tried_where_one_was_taken(servers: Servers) -> None:
    tried: list[int] = []
    with socket.socket() as other:

        def start(port: int) -> str:
            tried.append(port)
            if len(tried) == 1:  # in this moment another program begins to listen there
                other.bind(("127.0.0.1", port))
                other.listen()
                raise BdqmError("address already in use")
            return "started"

        first = free_port("127.0.0.1")
        port, process = servers._on_a_free_port([first], start)  # type: ignore[arg-type, return-value]
    assert (tried[0], process) == (first, "started")
    assert port == tried[1] != first


def test_what_does_not_start_for_another_reason_is_told_at_once(servers: Servers) -> None:
    tried: list[int] = []

    def start(port: int) -> psutil.Popen:
        tried.append(port)
        raise BdqmError("out of memory")

    with pytest.raises(BdqmError, match="out of memory"):
        servers._on_a_free_port([], start)
    assert len(tried) == 1


def test_ports_are_not_tried_for_ever(servers: Servers) -> None:
    taken: list[socket.socket] = []

    def start(port: int) -> psutil.Popen:
        taken.append(socket.create_server(("127.0.0.1", port)))
        raise BdqmError("address already in use")

    with pytest.raises(BdqmError, match="address already in use"):
        servers._on_a_free_port([], start)
    assert len(taken) == PORTS_TRIED
    for one in taken:
        one.close()


def test_a_server_listens_itself_or_what_it_started_does(listener: psutil.Popen) -> None:
    assert listener.stdout is not None
    port = int(listener.stdout.readline())
    assert listens(listener, port)
    assert not listens(listener, free_port("127.0.0.1"))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        assert not listens(psutil.Process(stranger.pid), port)  # type: ignore[arg-type]
    assert listens(psutil.Process(), port), "of a child"  # type: ignore[arg-type]
