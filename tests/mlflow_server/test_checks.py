"""What `doctor` says of the servers' folder."""

import json
import os
import socket
from pathlib import Path

import pytest

from bdqm_tune.mlflow_server.checks import check_servers
from bdqm_tune.mlflow_server.passwords import load_passwords
from bdqm_tune.mlflow_server.paths import ServerPaths, write_private
from bdqm_tune.services.connection import Connection, connection_text
from bdqm_tune.services.diagnostics import ERROR, OK, WARNING
from tests.servers import Servers


@pytest.fixture
def places(tmp_path: Path) -> ServerPaths:
    """Of servers that ran once."""
    places = ServerPaths(tmp_path / "services")
    places.make()
    load_passwords(places.passwords)
    return places


def test_where_none_have_been_none_are_made(tmp_path: Path) -> None:
    (found,) = check_servers(ServerPaths(tmp_path / "services"))
    assert found.state == OK
    assert list(tmp_path.iterdir()) == []


def test_servers_that_are_down_are_no_problem(places: ServerPaths) -> None:
    (found,) = check_servers(places)
    assert (found.state, found.help) == (OK, "")
    assert found.message.startswith("down; ")


def test_what_others_may_read_is_told(places: ServerPaths) -> None:
    places.folder.chmod(0o750)
    places.passwords.chmod(0o644)
    found = next(check_servers(places))
    assert (found.state, found.help) == (ERROR, f"chmod -R go= {places.folder}")
    assert found.message == "others may read services, services/passwords.json"


def test_damaged_passwords_are_told_and_not_shown(places: ServerPaths) -> None:
    write_private(places.passwords, '{"optuna": "t0ps3cret"')
    (found,) = check_servers(places)
    assert (found.state, "passwords.json is damaged" in found.message) == (ERROR, True)
    assert "t0ps3cret" not in found.message + found.help


def test_a_connection_file_without_servers_is_told(places: ServerPaths) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"mysql+pymysql://u:t0ps3cret@127.0.0.1:{free.getsockname()[1]}/optuna"
    connection = Connection(os.uname().nodename, "2026-11-25", url, "http://127.0.0.1:9", "u", "t0ps3cret")
    write_private(places.connection, connection_text(connection))
    (found,) = check_servers(places)
    assert (found.state, found.help) == (ERROR, "bdqm-tune services up")
    assert (
        found.message == f"said to be up on {os.uname().nodename} since 2026-11-25, but not answering: database, MLflow"
    )
    write_private(places.connection, json.dumps({"format": 1, "what": "t0ps3cret"}))
    (found,) = check_servers(places)
    assert (found.state, "is no connection file" in found.message) == (ERROR, True)
    assert "t0ps3cret" not in found.message


def test_servers_of_another_node_which_they_let_no_other_into_are_told(places: ServerPaths) -> None:
    connection = Connection("node7", "2026-11-25", "mysql+pymysql://u:p@127.0.0.1:9/optuna", "http://127.0.0.1:9")
    write_private(places.connection, connection_text(connection))
    (found,) = check_servers(places)
    assert (found.state, found.help) == (WARNING, "on node7: bdqm-tune services status")


def test_servers_that_run(servers: Servers) -> None:
    (found,) = check_servers(servers.places)
    assert found.state == OK
    assert found.message.startswith("up on ")
    assert not [secret for secret in servers.secrets() if secret in found.message]
