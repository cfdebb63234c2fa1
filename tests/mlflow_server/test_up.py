"""`services up`, `status`, `down`: the real servers, started, found running, killed and repaired."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pymysql
import pytest
from sqlalchemy import make_url

from bdqm_tune.mlflow_server.database import connect
from bdqm_tune.mlflow_server.processes import family, free_port, holder, leftovers
from bdqm_tune.mlflow_server.settings import Settings, load_settings, save_settings
from bdqm_tune.mlflow_server.tracking import answers
from bdqm_tune.services.connection import Connection, Stores
from bdqm_tune.tracking.client import tracking_client
from tests.servers import Servers
from tests.waiting import eventually


def database_answers(connection: Connection) -> bool:
    try:
        connect(make_url(connection.storage_url)).close()
    except pymysql.MySQLError:
        return False
    return True


def process_of(servers: Servers, part: str) -> psutil.Process:
    """The oldest server process whose command line has `part`."""
    found = [one for one in leftovers(servers.folder) if any(part in word for word in one.cmdline())]
    return min(found, key=lambda one: one.create_time())


@pytest.mark.endurance
def test_up_again_status_and_down(new_servers: Servers) -> None:
    new_servers.places.make()  # with a port outside the usual range, which other tests' servers do not take meanwhile
    save_settings(new_servers.places.settings, Settings(tracking_port=free_port("127.0.0.1")))
    first = new_servers.services("up")
    connection = new_servers.connection
    assert connection.tracking_uri in first.stdout
    assert "ssh -N -L" in first.stdout
    assert database_answers(connection)
    assert answers(connection.tracking_uri, Path(connection.tracking_ca))

    again = new_servers.services("up")
    assert again.stdout == first.stdout
    assert new_servers.connection == connection

    found = json.loads(new_servers.services("status", "--json").stdout)
    assert (found["state"], found["tracking"]) == ("up", connection.tracking_uri)
    assert "MLflow" in new_servers.services("status").stdout

    socket = new_servers.places.socket
    new_servers.services("down")
    assert not database_answers(connection)
    assert leftovers(new_servers.folder) == []
    assert not socket.parent.exists()
    assert new_servers.services("status", status=1).stdout.startswith("servers       down")
    assert "not up" in new_servers.services("down").stdout
    assert "services up" in new_servers.services("url", status=1).stderr

    new_servers.services("up")
    assert new_servers.connection.tracking_uri == connection.tracking_uri
    assert new_servers.connection.storage_url == connection.storage_url


@pytest.mark.endurance
def test_in_the_foreground_it_stays_and_ends_cleanly_at_sigterm(up_servers: Servers) -> None:
    up_servers.services("down")
    before = up_servers.places.log("database").read_text()
    command = [sys.executable, "-m", "bdqm_tune", "services", "up", "--foreground"]
    process = subprocess.Popen(command, env=up_servers.environ, stdout=subprocess.PIPE, text=True)
    eventually(up_servers.places.connection.exists)
    assert database_answers(up_servers.connection)
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    assert process.wait(timeout=60) == 0
    assert time.monotonic() - start < 30
    assert leftovers(up_servers.folder) == []
    assert not up_servers.places.connection.exists()
    log = up_servers.places.log("database").read_text()
    assert "Shutdown complete" in log.removeprefix(before)
    up_servers.services("up")
    assert "recovery" not in up_servers.places.log("database").read_text().removeprefix(log)


@pytest.mark.endurance
def test_a_server_that_dies_is_started_again(up_servers: Servers) -> None:
    for part in ("mariadbd", "mlflow"):
        before = up_servers.connection
        killed = process_of(up_servers, part)
        everyone = family(killed)
        killed.kill()
        _, alive = psutil.wait_procs(everyone, timeout=60)
        assert alive == [], "what it had started is stopped"
        eventually(lambda: up_servers.services("status", status=None).returncode == 0)
        assert database_answers(up_servers.connection)
        assert answers(up_servers.connection.tracking_uri, up_servers.places.ca)
        assert up_servers.connection.tracking_uri == before.tracking_uri, "on the same ports"
        assert up_servers.connection.storage_url == before.storage_url


@pytest.mark.endurance
def test_what_the_supervisor_leaves_when_it_is_killed_is_mended_by_the_next_up(up_servers: Servers) -> None:
    supervisor = holder(up_servers.places.lock)
    assert supervisor is not None
    assert supervisor.here
    os.kill(supervisor.pid, signal.SIGKILL)
    eventually(lambda: holder(up_servers.places.lock) is None)
    before = {process.pid for process in leftovers(up_servers.folder)}
    assert before, "the servers themselves go on"
    up_servers.services("up")
    assert up_servers.services("status").returncode == 0
    assert before.isdisjoint(process.pid for process in leftovers(up_servers.folder))
    supervisor, socket_folder = holder(up_servers.places.lock), up_servers.places.socket.parent
    assert supervisor is not None
    assert socket_folder.is_dir()
    os.kill(supervisor.pid, signal.SIGKILL)
    eventually(lambda: holder(up_servers.places.lock) is None)
    up_servers.services("down")
    assert leftovers(up_servers.folder) == []
    assert not socket_folder.exists()


@pytest.mark.soak
@pytest.mark.parametrize(
    "moment", ["making the data directory", "starting on port", "making or checking", "MLflow: starting"]
)
def test_an_up_that_is_killed_at_any_step_is_finished_by_the_next(new_servers: Servers, moment: str) -> None:
    command = [sys.executable, "-m", "bdqm_tune", "services", "up", "--foreground"]
    process = subprocess.Popen(command, env=new_servers.environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any(moment in line for line in process.stdout), moment
    time.sleep(3.0 if "checking" in moment else 0.3)  # the former: amid the tables of MLflow
    process.kill()
    process.wait()
    new_servers.services("up")
    assert database_answers(new_servers.connection)
    assert answers(new_servers.connection.tracking_uri, new_servers.places.ca)


@pytest.mark.endurance
def test_two_at_once_start_one(new_servers: Servers) -> None:
    command = [sys.executable, "-m", "bdqm_tune", "services", "up"]
    both = [subprocess.Popen(command, env=new_servers.environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0] == outputs[1]
    servers = [process for process in leftovers(new_servers.folder) if "mariadbd" in process.name()]
    assert len(servers) == 1


@pytest.mark.soak
def test_servers_of_two_folders_that_begin_at_once_with_one_port_both_come_up(
    own_servers: Servers, servers_that_ran: Servers, tmp_path: Path
) -> None:
    """The second to listen takes another port, and does not take the answers of the first for its own."""
    both = [own_servers, servers_that_ran.copy(tmp_path / "other")]
    port = load_settings(own_servers.places.settings).tracking_port
    settings = load_settings(both[1].places.settings)
    save_settings(both[1].places.settings, replace(settings, tracking_port=port))
    command = [sys.executable, "-m", "bdqm_tune", "services", "up"]
    started = [subprocess.Popen(command, env=one.environ, stderr=subprocess.PIPE, text=True) for one in both]
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
        assert [process.returncode for process in started] == [0, 0], errors
        ports = [make_url(one.connection.tracking_uri).port for one in both]
        assert ports[0] != ports[1]
        clients = [tracking_client(Stores(tmp_path, connection_file=one.places.connection)) for one in both]
        clients[0].create_experiment("of the first")
        assert clients[1].get_experiment_by_name("of the first") is None
    finally:
        both[1].services("down")


@pytest.mark.soak
def test_a_port_that_was_taken_meanwhile_is_no_obstacle(up_servers: Servers) -> None:
    url = make_url(up_servers.connection.storage_url)
    up_servers.services("down")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", url.port or 0))
        other.listen()
        up_servers.services("up")
    assert make_url(up_servers.connection.storage_url).port != url.port
    assert database_answers(up_servers.connection)


def test_what_cannot_be_used_is_refused_before_anything_is_made(new_servers: Servers, tmp_path: Path) -> None:
    refused = {
        "no name or address": new_servers.services("up", "--host", "no.such.host.invalid", status=2),
        "is no server": new_servers.services("up", status=2, MLFLOW_TRACKING_URI="sqlite:///mlflow.db"),
        "names no account": new_servers.services("up", status=2, BDQM_MYSQL_URL="mysql://localhost"),
        "is no URL": new_servers.services("up", status=2, BDQM_MYSQL_URL="localhost"),
    }
    for message, done in refused.items():
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not new_servers.folder.exists()
    file = tmp_path / "file"
    file.touch()
    assert "no place for the servers" in new_servers.services("up", status=2, BDQM_SERVICES=str(file)).stderr


def test_without_a_database_the_message_says_how_to_get_one(
    new_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bdqm_tune.errors import BdqmError
    from bdqm_tune.mlflow_server import programs

    monkeypatch.setattr(programs, "SYSTEM_FOLDERS", ())
    with pytest.raises(BdqmError, match=r"apt-get install(.|\n)*conda install(.|\n)*module load"):
        programs.find_programs({"PATH": "/nowhere"})


@pytest.mark.parametrize("variable", ["PATH", "CONDA_PREFIX", "EBROOTMARIADB"])
def test_programs_are_found_in_an_environment_or_module(
    tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bdqm_tune.mlflow_server import programs

    monkeypatch.setattr(programs, "SYSTEM_FOLDERS", ())
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("mysqld", "mysql"):
        (folder / name).write_text("#!/bin/sh\necho 'mysqld  Ver 10.11-MariaDB'\n")
        (folder / name).chmod(0o755)
    found = programs.find_programs({variable: str(folder if variable == "PATH" else tmp_path)})
    assert (found.server, found.mariadb, found.find("mariadb", "mysql")) == (folder / "mysqld", True, folder / "mysql")
