"""`services up`, `status`, `down`: the real servers, started, found running, killed and repaired."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pymysql
import pytest
from sqlalchemy import make_url

from bdqm_tune.services.connection import Connection
from mlflow_server.database import connect
from mlflow_server.processes import holder, leftovers
from mlflow_server.tracking import answers
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


def test_up_again_status_and_down(new_servers: Servers) -> None:
    start = time.monotonic()
    first = new_servers.services("up")
    assert time.monotonic() - start < 60
    connection = new_servers.connection
    assert connection.tracking_uri in first.stdout
    assert "ssh -N -L" in first.stdout
    assert database_answers(connection)
    assert answers(connection.tracking_uri)

    again = new_servers.services("up")
    assert again.stdout == first.stdout
    assert new_servers.connection == connection

    found = json.loads(new_servers.services("status", "--json").stdout)
    assert (found["state"], found["tracking"]) == ("up", connection.tracking_uri)
    assert "MLflow" in new_servers.services("status").stdout

    new_servers.services("down")
    assert not database_answers(connection)
    assert leftovers(new_servers.folder) == []
    assert new_servers.services("status", status=1).stdout.startswith("servers       down")
    assert "not up" in new_servers.services("down").stdout
    assert "services up" in new_servers.services("url", status=1).stderr

    start = time.monotonic()
    new_servers.services("up")
    assert time.monotonic() - start < 20
    assert new_servers.connection.tracking_uri == connection.tracking_uri
    assert new_servers.connection.storage_url == connection.storage_url


@pytest.mark.slow
def test_in_the_foreground_it_stays_and_ends_cleanly_at_sigterm(new_servers: Servers) -> None:
    command = [sys.executable, "-m", "bdqm_tune", "services", "up", "--foreground"]
    process = subprocess.Popen(command, env=new_servers.environ, stdout=subprocess.PIPE, text=True)
    eventually(new_servers.places.connection.exists)
    assert database_answers(new_servers.connection)
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    assert process.wait(timeout=60) == 0
    assert time.monotonic() - start < 30
    assert leftovers(new_servers.folder) == []
    assert not new_servers.places.connection.exists()
    log = new_servers.places.log("database").read_text()
    assert "Shutdown complete" in log
    new_servers.services("up")
    assert "recovery" not in new_servers.places.log("database").read_text().removeprefix(log)


@pytest.mark.slow
def test_a_server_that_dies_is_started_again(new_servers: Servers) -> None:
    new_servers.services("up")
    for part in ("mariadbd", "mlflow"):
        killed = process_of(new_servers, part)
        killed.kill()
        psutil.wait_procs([killed], timeout=10)
        eventually(lambda: new_servers.services("status", status=None).returncode == 0)
        assert database_answers(new_servers.connection)
        assert answers(new_servers.connection.tracking_uri)


@pytest.mark.slow
def test_what_the_supervisor_leaves_when_it_is_killed_is_mended_by_the_next_up(new_servers: Servers) -> None:
    new_servers.services("up")
    supervisor = holder(new_servers.places.lock)
    assert supervisor is not None
    assert supervisor.here
    os.kill(supervisor.pid, signal.SIGKILL)
    eventually(lambda: holder(new_servers.places.lock) is None)
    before = {process.pid for process in leftovers(new_servers.folder)}
    assert before, "the servers themselves go on"
    new_servers.services("up")
    assert new_servers.services("status").returncode == 0
    assert before.isdisjoint(process.pid for process in leftovers(new_servers.folder))
    new_servers.services("down")
    assert leftovers(new_servers.folder) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", ["making the data directory", "starting on port", "making or checking", "MLflow: starting"]
)
def test_an_up_that_is_killed_at_any_step_is_finished_by_the_next(new_servers: Servers, moment: str) -> None:
    command = [sys.executable, "-m", "bdqm_tune", "services", "up", "--foreground"]
    process = subprocess.Popen(command, env=new_servers.environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if moment in line:
            time.sleep(3.0 if "checking" in moment else 0.3)  # the former: amid the tables of MLflow
            break
    process.kill()
    process.wait()
    new_servers.services("up")
    assert database_answers(new_servers.connection)
    assert answers(new_servers.connection.tracking_uri)


@pytest.mark.slow
def test_two_at_once_start_one(new_servers: Servers) -> None:
    command = [sys.executable, "-m", "bdqm_tune", "services", "up"]
    both = [subprocess.Popen(command, env=new_servers.environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0] == outputs[1]
    servers = [process for process in leftovers(new_servers.folder) if "mariadbd" in process.name()]
    assert len(servers) == 1


@pytest.mark.slow
def test_a_port_that_was_taken_meanwhile_is_no_obstacle(new_servers: Servers) -> None:
    new_servers.services("up")
    url = make_url(new_servers.connection.storage_url)
    new_servers.services("down")
    with socket.socket() as other:
        other.bind(("127.0.0.1", url.port or 0))
        other.listen()
        new_servers.services("up")
    assert make_url(new_servers.connection.storage_url).port != url.port
    assert database_answers(new_servers.connection)


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
    from mlflow_server import programs

    monkeypatch.setattr(programs, "SYSTEM_FOLDERS", ())
    with pytest.raises(BdqmError, match=r"apt-get install(.|\n)*conda install(.|\n)*module load"):
        programs.find_programs({"PATH": "/nowhere"})


@pytest.mark.parametrize("variable", ["PATH", "CONDA_PREFIX", "EBROOTMARIADB"])
def test_programs_are_found_in_an_environment_or_module(
    tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow_server import programs

    monkeypatch.setattr(programs, "SYSTEM_FOLDERS", ())
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("mysqld", "mysql"):
        (folder / name).write_text("#!/bin/sh\necho 'mysqld  Ver 10.11-MariaDB'\n")
        (folder / name).chmod(0o755)
    found = programs.find_programs({variable: str(folder if variable == "PATH" else tmp_path)})
    assert (found.server, found.mariadb, found.find("mariadb", "mysql")) == (folder / "mysqld", True, folder / "mysql")
