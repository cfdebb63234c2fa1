"""Commands called on another node than the servers', or with another temporary folder."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from bdqm_tune.errors import BadInput
from bdqm_tune.mlflow_server.control import down, status
from bdqm_tune.mlflow_server.messages import status_lines
from bdqm_tune.mlflow_server.node import elsewhere, servers_process
from bdqm_tune.mlflow_server.paths import ServerPaths, write_private
from bdqm_tune.mlflow_server.processes import held
from bdqm_tune.mlflow_server.supervisor import AlreadyRunning, running_database
from bdqm_tune.mlflow_server.tracking import answers
from bdqm_tune.services.connection import Connection, connection_text
from tests.servers import Servers

URL = "mysql+pymysql://u:p@127.0.0.1:9/optuna"


@pytest.fixture
def places(tmp_path: Path) -> ServerPaths:
    """Of servers that are up on node7 without --host, and whose lock is not seen here."""
    places = ServerPaths(tmp_path / "services")
    places.make()
    places.lock.write_text("node7 4711\n")
    write_private(places.connection, connection_text(Connection("node7", "then", URL, "http://127.0.0.1:9")))
    return places


@pytest.fixture
def stranger() -> Iterator[tuple[int, list[socket.socket]]]:
    """The port of another user's program, which speaks no HTTP, and who connected to it."""
    came: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            while True:
                try:
                    came.append(listening.accept()[0])
                except OSError:
                    return
                came[-1].sendall(b"220 mail ready\r\n")
                came[-1].close()

        threading.Thread(target=answer, daemon=True).start()
        yield int(listening.getsockname()[1]), came
        listening.shutdown(socket.SHUT_RDWR)


def test_a_backup_is_sent_to_the_servers_node(places: ServerPaths) -> None:
    with pytest.raises(BadInput, match=r"the servers run on node7: there, the same command \(if node7 is gone"):
        running_database(places, make_url(URL), {})


def test_down_is_sent_there_too_and_leaves_their_connection(places: ServerPaths) -> None:
    with pytest.raises(BadInput, match="the servers run on node7: there, bdqm-tune services down"):
        down(places)
    assert places.connection.exists()


def test_status_says_where_they_are_and_calls_no_stranger(
    places: ServerPaths, stranger: tuple[int, list[socket.socket]]
) -> None:
    port, came = stranger
    url = URL.replace(":9/", f":{port}/")
    write_private(places.connection, connection_text(Connection("node7", "then", url, f"http://127.0.0.1:{port}")))
    found = status(places)
    assert (found.state, found.host) == ("elsewhere", "node7")
    assert any("on node7: bdqm-tune services status" in line for line in status_lines(found))
    assert came == []


def test_another_program_at_the_port_is_no_mlflow_server(stranger: tuple[int, list[socket.socket]]) -> None:
    port, _ = stranger
    assert not answers(f"http://127.0.0.1:{port}")


def test_a_node_is_known_by_its_name_whatever_clients_call_it(places: ServerPaths) -> None:
    with held(places.lock, AlreadyRunning):
        assert (running := servers_process(places)) is not None
        assert running.host == os.uname().nodename
        assert elsewhere(places) is None
    assert elsewhere(places) is None, "they have ended here; the connection file is a leftover"


def test_the_callers_temporary_folder_does_not_matter(servers: Servers, tmp_path: Path) -> None:
    own = tmp_path / "tmp"
    own.mkdir()
    for number, folder in enumerate((str(own), "/nonexistent")):
        assert servers.services("status", TMPDIR=folder).stdout.startswith("servers       up")
        file = tmp_path / f"{number}.tar.gz"
        servers.services("backup", "--out", str(file), TMPDIR=folder)
        assert file.exists()
    assert list(own.iterdir()) == []
    lock = servers.places.lock.read_text()
    servers.places.lock.write_text("node7 4711\n")
    try:
        refused = servers.services("backup", "--out", str(tmp_path / "2.tar.gz"), status=2)
    finally:
        servers.places.lock.write_text(lock)
    assert refused.stderr.startswith("bdqm-tune: the servers run on node7: there, the same command")
    assert len(refused.stderr.splitlines()) == 1
