"""New passwords and certificates: by command while workers work, and by themselves before the old ones end."""

import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest
import requests
import yaml
from optuna.trial import TrialState
from sqlalchemy import make_url

from bdqm_tune.mlflow_server.certificates import expiry, make_certificates
from bdqm_tune.mlflow_server.checks import check_servers
from bdqm_tune.mlflow_server.database import connect
from bdqm_tune.mlflow_server.passwords import load_passwords
from bdqm_tune.mlflow_server.paths import ServerPaths
from bdqm_tune.mlflow_server.settings import Choices
from bdqm_tune.mlflow_server.supervisor import Servers as Supervised
from bdqm_tune.services.connection import Connection, Stores
from bdqm_tune.services.diagnostics import WARNING
from bdqm_tune.study.study import load_study
from bdqm_tune.tracking.client import tracking_client
from tests.conftest import find_faketime
from tests.servers import Servers
from tests.waiting import eventually

PROJECT = Path(__file__).parents[2]
HOSTS = ["127.0.0.1", "localhost"]
TRIALS = 8
# `bdqm-tune` whose epochs take a while, and which sleeps in another way, as libfaketime fails in time.sleep. What it
# starts has the clock of the machine.
HURRIED = """
import os, select, time
os.environ.pop("LD_PRELOAD", None)
time.sleep = lambda seconds: select.select([], [], [], seconds)[3:]
from bdqm_tune.cli.main import main
from bdqm_tune.learning.fit import Fit
epoch = Fit._run
Fit._run = lambda *arguments: (time.sleep(0.2), epoch(*arguments))[1]
main()
"""


def moved(clock: Path) -> dict[str, str]:
    """Variables of a process whose clock says what is in a file, but for the monotonic one."""
    (library,) = find_faketime()
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@pytest.fixture
def at(require: Callable[[str], None], tmp_path: Path) -> Callable[[str, str], str]:
    """`at("-9y", code)`: what Python code prints whose clock is moved so far; `folder` is one of the test's own."""
    require("faketime")
    (tmp_path / "tls").mkdir()

    def run(shift: str, code: str) -> str:
        (tmp_path / "clock").write_text(shift)
        header = "from pathlib import Path\nfrom bdqm_tune.mlflow_server.certificates import *\nfolder = Path('tls')\n"
        environ = os.environ | moved(tmp_path / "clock") | {"PYTHONPATH": str(PROJECT)}
        command = [sys.executable, "-c", header + code]
        return subprocess.run(command, env=environ, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    return run


MAKE, WARN = f"make_certificates(folder, {HOSTS})", "print(warning(folder), expires(folder))"


def test_certificates_are_kept_while_they_are_valid_and_for_the_same_names(tmp_path: Path) -> None:
    def made(hosts: list[str]) -> dict[str, bytes]:
        make_certificates(tmp_path, hosts)
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    first = made(HOSTS)
    assert made(HOSTS) == first
    other = made([*HOSTS, "node7"])
    assert {name for name in first if first[name] != other[name]} == {"server.pem", "server.key"}
    for name in ("ca.key", "ca.pem", "server.key", "server.pem"):
        for damage in (None, b"", first[name]):  # the last: of another pair, as where writing was cut off between two
            before = made(HOSTS)
            (tmp_path / name).unlink()
            if damage is not None:
                (tmp_path / name).write_bytes(damage)
            after = made(HOSTS)
            assert before["server.key"] != after["server.key"] or damage == before[name]
            context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
            context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")


def test_certificates_are_made_anew_before_their_end_which_is_told(
    at: Callable[[str, str], str], tmp_path: Path
) -> None:
    tls = tmp_path / "tls"
    at("+0", MAKE)
    first = (tls / "ca.pem").read_bytes()
    day = expiry(tls)
    assert day is not None
    assert at("+3500d", WARN) == " False\n"
    assert at("+3600d", WARN) == f"the certificates expire on {day:%Y-%m-%d} False\n"
    assert at("+87588h", WARN) == f"the certificates expire on {day:%Y-%m-%d} True\n"
    assert at("+3651d", WARN) == f"the certificates have expired on {day:%Y-%m-%d} True\n"
    at("+3200d", MAKE)
    assert (tls / "ca.pem").read_bytes() == first
    at("+3400d", MAKE)
    assert (tls / "ca.pem").read_bytes() != first, "less than a year before"
    assert at("+3651d", WARN) == " False\n"


def test_doctor_tells_of_certificates_that_end(at: Callable[[str, str], str], tmp_path: Path) -> None:
    places = ServerPaths(tmp_path / "services")
    places.make()
    load_passwords(places.passwords)
    at("-3600d", MAKE.replace("folder", "Path('services/tls')"))
    _, found = check_servers(places)
    assert (found.state, found.help) == (WARNING, "bdqm-tune services renew-certificates")
    assert re.fullmatch(r"the certificates expire on \d{4}-\d\d-\d\d", found.message)
    status = Servers(places.folder).services("status", status=1).stdout
    assert f"warning       {found.message}; bdqm-tune services renew-certificates" in status


def test_of_servers_that_are_down_the_next_start_makes_new_ones(tmp_path: Path) -> None:
    servers = Servers(tmp_path / "services")
    servers.places.make()
    load_passwords(servers.places.passwords)
    make_certificates(servers.places.tls, HOSTS)
    for command, file in (("change-passwords", "passwords"), ("renew-certificates", "authority")):
        path: Path = getattr(servers.places, file)
        done = servers.services(command)
        assert "the servers are down, and get new ones when they start" in done.stdout
        assert not path.exists()
        assert servers.services(command).returncode == 0


def test_a_disk_that_does_not_answer_ends_no_server(tmp_path: Path) -> None:
    places = ServerPaths(tmp_path / "services")
    places.make()
    servers = Supervised(places, Choices(), print)
    load_passwords(places.passwords)
    make_certificates(places.tls, HOSTS)
    assert servers._outdated()
    servers._made = servers._states()
    assert not servers._outdated()
    places.passwords.unlink()
    assert servers._outdated()
    servers._made = servers._states()
    assert servers._outdated(), "where the file went while they were being started"
    places.passwords.symlink_to(places.passwords)  # which cannot be looked at
    assert not servers._outdated()


def lets_in(connection: Connection, ca: str) -> tuple[bool, bool]:
    """Whether the database and MLflow take the passwords of a connection."""
    auth = (connection.tracking_username, connection.tracking_password)
    try:
        connect(make_url(connection.storage_url).update_query_dict({"ssl_ca": ca})).close()
        database = True
    except pymysql.MySQLError:
        database = False
    where = f"{connection.tracking_uri}/api/2.0/mlflow/users/current"
    try:
        return database, requests.get(where, auth=auth, verify=ca, timeout=30).ok
    except requests.exceptions.SSLError:
        return database, False


@pytest.mark.endurance
@pytest.mark.parametrize("how", ["by command", "by the clock"])
def test_workers_follow_new_passwords_and_certificates(
    how: str,
    own_servers: Servers,
    workdir: Path,
    configure: Callable[..., Any],
    require: Callable[[str], None],
    request: pytest.FixtureRequest,
) -> None:
    clock, variables = workdir / "clock", {"PYTHONPATH": str(PROJECT)}
    (workdir / "hurried.py").write_text(HURRIED)
    if how == "by the clock":
        require("faketime")
        clock.write_text("+0")
        variables |= moved(clock)

    def command(*arguments: str) -> "subprocess.Popen[str]":
        pipe, environ = subprocess.PIPE, own_servers.environ | variables
        call = [sys.executable, "hurried.py", *arguments]
        return subprocess.Popen(call, env=environ, stdout=pipe, stderr=pipe, text=True)

    if how == "by the clock":
        servers = command("services", "up", "--foreground")
        request.addfinalizer(servers.terminate)
        assert servers.stderr is not None
        assert any(line.startswith("up: ") for line in servers.stderr)
    else:
        own_servers.services("up")
    before, authority = own_servers.connection, own_servers.places.ca.read_bytes()
    old_ca = workdir / "old.pem"
    old_ca.write_bytes(authority)
    assert lets_in(before, str(old_ca)) == (True, True)
    study = {"name": "renewed", "n_trials": TRIALS, "pruner": "none"}
    config = configure(study=study, training={"epochs": 20})
    (workdir / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    worker = command("tune", "--config", "config.yaml")
    assert worker.stderr is not None
    said = []

    def until(trial: str) -> None:
        for line in worker.stderr or ():
            said.append(line)
            if line.startswith(trial):
                return
        pytest.fail("".join(said))

    until("trial 001")
    if how == "by command":
        assert "new ones; the servers are up at https://" in own_servers.services("change-passwords").stdout
        between = own_servers.connection
        assert between.tracking_password != before.tracking_password
        assert lets_in(before, str(old_ca)) == (False, False)
        assert lets_in(between, str(old_ca)) == (True, True)
        until("trial 004")
        assert "new ones; the servers are up at https://" in own_servers.services("renew-certificates").stdout
        assert own_servers.connection.tracking_password == between.tracking_password
        assert lets_in(own_servers.connection, str(own_servers.places.ca)) == (True, True)
    else:
        clock.write_text("+87588h")  # half a day before the end; the worker's clock moves too
        eventually(lambda: own_servers.places.ca.read_bytes() != authority)
        eventually(own_servers.places.connection.exists)
    assert own_servers.places.ca.read_bytes() != authority
    assert lets_in(own_servers.connection, str(old_ca)) == (False, False), "they are no more those of the old authority"
    _, errors = worker.communicate(timeout=600)
    assert worker.returncode == 0, "".join(said) + errors
    if how == "by the clock":
        found = json.loads(command("services", "status", "--json").communicate()[0])
        assert (found["state"], found["certificates_warning"]) == ("up", "")
        servers.terminate()
        servers.communicate(timeout=60)
        own_servers.services("up")  # in the present, where those of the future are not valid yet
    stores = Stores(workdir / ".bdqm", connection_file=own_servers.places.connection)
    trials, client = load_study(stores, "renewed").get_trials(), tracking_client(stores)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * TRIALS
    for trial in trials:
        run = client.get_run(trial.user_attrs["mlflow_run_id"])
        assert run.info.status == "FINISHED"
        curve = client.get_metric_history(run.info.run_id, "val_energy_mae")
        assert sorted(value.step for value in curve) == list(range(1, trial.user_attrs["result"]["epochs"] + 1))
    secrets = own_servers.secrets()
    logs = "".join(path.read_text() for path in own_servers.places.logs.glob("*.log"))
    assert not [secret for secret in secrets if secret in logs + "".join(said) + errors]
