"""Who gets in: TLS and passwords at the database, passwords, hosts and origins at the MLflow server."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql
import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy import URL, make_url

from bdqm_tune.experiment.tracking_client import tracking_client
from bdqm_tune.services.connection import Stores
from mlflow_server.database import connect, own_database
from mlflow_server.passwords import load_passwords
from mlflow_server.processes import leftovers
from tests.servers import Servers

PROJECT = Path(__file__).parents[2]
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"


@pytest.fixture
def storage(servers: Servers) -> URL:
    """Optuna's URL as workers have it."""
    return make_url(servers.connection.storage_url)


@pytest.fixture
def stores(servers: Servers, workdir: Path) -> Stores:
    return Stores(workdir / ".bdqm", connection_file=servers.places.connection)


@pytest.fixture
def admin(servers: Servers, storage: URL) -> Iterator[Any]:
    """A cursor of the database's administrator, who is at its socket."""
    database = own_database(servers.places, "127.0.0.1", storage.port or 0)
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        yield cursor


def refused(url: URL, **options: Any) -> str:
    """What the database says to somebody whom it does not let in."""
    with pytest.raises(pymysql.MySQLError) as raised:
        pymysql.connect(
            host=url.host or "",
            port=url.port or 0,
            **{"user": url.username, "password": url.password, "ssl": {"ca": url.query["ssl_ca"]}} | options,
        )
    return str(raised.value)


def test_the_database_takes_tls_only_and_proves_who_it_is(storage: URL, tmp_path: Path) -> None:
    with closing(connect(storage)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'Ssl_version'")
        assert cursor.fetchone()[1] in ("TLSv1.2", "TLSv1.3")
    assert "1045" in refused(storage, ssl=None, ssl_disabled=True), "the same password that opens it with TLS"
    other = tmp_path / "tls"
    other.mkdir()
    from mlflow_server.certificates import make_certificates

    make_certificates(other, ["127.0.0.1"])
    assert "certificate verify failed" in refused(storage, ssl={"ca": str(other / "ca.pem")})


def test_temporary_tables_lie_where_no_other_server_clears_up(servers: Servers, admin: Any) -> None:
    admin.execute("CREATE TEMPORARY TABLE optuna.temporary (a INT) ENGINE=MyISAM")
    assert list(servers.places.socket.parent.glob("#sql*"))
    admin.execute("DROP TEMPORARY TABLE optuna.temporary")


def test_nobody_without_a_password_gets_in(storage: URL, admin: Any) -> None:
    for user, password in (("root", ""), ("", ""), (storage.username, ""), (storage.username, "wrong")):
        assert "Access denied" in refused(storage, user=user, password=password)
    admin.execute("SELECT User, Host FROM mysql.user")
    accounts = set(admin.fetchall())
    assert not [user for user, _ in accounts if user == ""]
    assert {(user, host) for user, host in accounts if host != "localhost"} == {("bdqm_optuna", "%")}


def test_an_account_reads_and_writes_its_own_schema_and_no_more(storage: URL, admin: Any) -> None:
    with closing(connect(storage)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM optuna.studies")
        for statement in (
            "SELECT * FROM mlflow.runs",
            "SELECT * FROM mlflow_auth.users",
            "SELECT * FROM mysql.user",
            "CREATE TABLE optuna.more (id INT)",
            "DROP TABLE optuna.studies",
            "SELECT 1 INTO OUTFILE '/tmp/bdqm-out'",
            "CREATE USER x",
        ):
            with pytest.raises(pymysql.MySQLError, match="denied"):
                cursor.execute(statement)
    for account in ("bdqm_optuna@'%'", "bdqm_mlflow@localhost", "bdqm_mlflow_auth@localhost"):
        admin.execute(f"SHOW GRANTS FOR {account}")
        grants = [grant for (grant,) in admin.fetchall()]
        assert len(grants) == 2
        assert grants[0].startswith("GRANT USAGE ON *.* ")
        assert grants[1].startswith("GRANT SELECT, INSERT, UPDATE, DELETE ON ")


def test_the_servers_listen_on_loopback_only(servers: Servers, storage: URL) -> None:
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for process in leftovers(servers.folder)
        for connection in process.net_connections("inet")
        if connection.status == "LISTEN"
    }
    assert {ip for ip, _ in listening} == {"127.0.0.1"}
    assert {port for _, port in listening} == {storage.port, make_url(servers.connection.tracking_uri).port}
    assert servers.places.socket.parent.stat().st_mode & 0o777 == 0o700


def status(servers: Servers, path: str = SEARCH, auth: bool = True, **headers: str) -> int:
    connection = servers.connection
    password = (connection.tracking_username, connection.tracking_password) if auth else None
    return requests.get(connection.tracking_uri + path, auth=password, headers=headers, timeout=30).status_code


def test_a_request_needs_the_password(servers: Servers) -> None:
    uri, passwords = servers.connection.tracking_uri, load_passwords(servers.places.passwords)
    assert status(servers) == 200
    for path in (SEARCH, "/", "/ajax-api/2.0/mlflow/users/current", "/api/2.0/mlflow-artifacts/artifacts"):
        assert status(servers, path, auth=False) == 401, path
    for user, password in (("bdqm", "wrong"), ("admin", "password1234"), ("admin", passwords.tracking_user)):
        assert requests.get(uri + SEARCH, auth=(user, password), timeout=30).status_code == 401
    assert requests.get(uri + SEARCH, auth=("admin", passwords.tracking_admin), timeout=30).status_code == 200
    assert status(servers, "/health", auth=False) == 200, "which says nothing"


def test_a_request_needs_a_known_host_and_origin(servers: Servers) -> None:
    port = make_url(servers.connection.tracking_uri).port
    for host in ("localhost:9999", f"127.0.0.1:{port}", f"{socket.gethostname()}:{port}", socket.gethostname()):
        assert status(servers, Host=host) == 200, host
    for host in ("evil.example", f"evil.example:{port}", f"{socket.gethostname()}.evil.example:{port}"):
        assert status(servers, Host=host) == 403, host
    create = servers.connection.tracking_uri + "/api/2.0/mlflow/experiments/create"
    auth = (servers.connection.tracking_username, servers.connection.tracking_password)
    for origin, code in (("http://evil.example", 403), (f"http://localhost:{port}", 200)):
        sent = requests.post(create, json={"name": origin}, auth=auth, headers={"Origin": origin}, timeout=30)
        assert sent.status_code == code, origin


def test_others_may_look_and_not_touch(servers: Servers, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tracking_client(stores)
    experiment = ours.create_experiment("ours")
    run = ours.create_run(experiment).info.run_id
    users = f"{servers.connection.tracking_uri}/api/2.0/mlflow/users/create"
    admin = ("admin", load_passwords(servers.places.passwords).tracking_admin)
    new = {"username": "guest", "password": "a guest's password"}
    assert requests.post(users, json=new, auth=admin, timeout=30).status_code == 200
    forbidden = requests.post(users, json=new, auth=("guest", new["password"]), timeout=30)
    assert forbidden.status_code == 403, "only the administrator makes accounts"

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "guest")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", new["password"])
    guest = MlflowClient(servers.connection.tracking_uri)
    assert guest.get_run(run).info.run_id == run
    for change in (
        lambda: guest.log_metric(run, "x", 1.0),
        lambda: guest.delete_run(run),
        lambda: guest.log_text(run, "text", "file.txt"),
    ):
        with pytest.raises((MlflowException, requests.HTTPError), match=r"403|Permission denied"):
            change()


def test_a_password_cannot_be_recorded(servers: Servers, stores: Stores, tmp_path: Path) -> None:
    """`mlflow run -P` with one ends before anything runs; nor can another client put one into a run."""
    client = tracking_client(stores)
    url = "mysql+pymysql://me:t0ps3cret@db.example/x"
    run = client.create_run(client.create_experiment("passwords")).info.run_id
    for record in (client.log_param, client.set_tag):
        with pytest.raises(MlflowException, match="holds a URL with a password"):
            record(run, "train", url)
    client.log_param(run, "train", url.replace("t0ps3cret", "***"))
    environ = servers.environ | servers.connection.tracking_environment()
    command = [Path(sys.executable).parent / "mlflow", "run", PROJECT, "--env-manager", "local", "-P", f"train={url}"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "holds a URL with a password" in done.stderr
    assert "tune" not in done.stdout
    everything = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert everything
    assert not [run for run in everything if "t0ps3cret" in str(run.to_dictionary())]


@pytest.mark.endurance
def test_servers_that_other_machines_reach(own_servers: Servers, workdir: Path) -> None:
    """With the node's address everything goes through TLS, MLflow too; names that are not the node's are refused."""
    own_servers.services("up", "--host", "0.0.0.0")
    connection = own_servers.connection
    assert connection.host == socket.gethostname()
    uri, url = make_url(connection.tracking_uri), make_url(connection.storage_url)
    assert (uri.drivername, uri.host, url.host) == ("https", socket.gethostname(), socket.gethostname())
    auth = (connection.tracking_username, connection.tracking_password)
    ca = connection.tracking_ca

    def get(host: str) -> int:
        where = connection.tracking_uri + SEARCH
        return requests.get(where, auth=auth, verify=ca, headers={"Host": host}, timeout=30).status_code

    assert get(f"{uri.host}:{uri.port}") == 200
    assert get("localhost:5000") == 200, "the end of a tunnel"
    assert get("evil.example") == 403
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(connection.tracking_uri + SEARCH, auth=auth, timeout=30)
    connect(url).close()
    assert "1045" in refused(url, ssl=None, ssl_disabled=True)
    stores = Stores(workdir / ".bdqm", connection_file=own_servers.places.connection)
    saved = {name: os.environ.get(name) for name in connection.tracking_environment()}
    try:
        assert tracking_client(stores).create_experiment("through TLS")
    finally:
        for name, value in saved.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    assert f"-L {uri.port}:{uri.host}:{uri.port}" in own_servers.services("url").stdout
