"""Who gets in: TLS and passwords at the database, passwords, hosts and origins at the MLflow server."""

import base64
import hashlib
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql
import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from pymysql.constants import CLIENT
from sqlalchemy import URL, make_url

from bdqm_tune.mlflow_server.certificates import make_certificates
from bdqm_tune.mlflow_server.database import connect, own_database
from bdqm_tune.mlflow_server.passwords import load_passwords
from bdqm_tune.mlflow_server.processes import leftovers
from bdqm_tune.mlflow_server.tracking import answers
from bdqm_tune.services.connection import Stores, connection_text
from bdqm_tune.storage.database import StudyDatabase
from bdqm_tune.tracking.client import tracking_client
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
    options: dict[str, Any] = {"auth": password, "headers": headers, "verify": connection.tracking_ca, "timeout": 30}
    return requests.get(connection.tracking_uri + path, **options).status_code


class Listener:
    """Another user's program at a port where a server was: what clients say to it, deciphered where it can."""

    def __init__(self, answer: bytes = b"", tls: Path | None = None, greeting: bytes = b"") -> None:
        """
        Args:
            answer: to whatever is said.
            tls: folder with its certificate, of an authority of its own.
        """
        self.heard = b""
        self._answer, self._greeting = answer, greeting
        self._context = None
        if tls is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(tls / "server.pem", tls / "server.key")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                self._serve(self._socket.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            client.settimeout(5)
            end = self._context.wrap_socket(client, server_side=True) if self._context else client
            end.sendall(self._greeting)
            while data := end.recv(65536):
                self.heard += data
                end.sendall(self._answer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def packet(content: bytes, number: int) -> bytes:
    """What a database sends."""
    return len(content).to_bytes(3, "little") + bytes([number]) + content


# The greeting of one that offers no TLS, and then asks for the password in the clear.
FLAGS = CLIENT.CAPABILITIES & ~CLIENT.SSL | CLIENT.PLUGIN_AUTH
GREETING = (
    b"\x0a8.0.0\0\1\0\0\0abcdefgh\0"
    + (FLAGS & 0xFFFF).to_bytes(2, "little")
    + b"\x21\2\0"
    + (FLAGS >> 16).to_bytes(2, "little")
    + b"\x15"
    + bytes(10)
    + b"ijklmnopqrst\0mysql_native_password\0"
)
IN_THE_CLEAR = b"\xfemysql_clear_password\0"
UNAUTHORIZED = b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="mlflow"\r\nContent-Length: 0\r\n\r\n'


def test_the_listener_of_these_tests_does_get_the_password_of_who_asks_for_no_tls() -> None:
    database = Listener(packet(IN_THE_CLEAR, 2), greeting=packet(GREETING, 0))
    with pytest.raises(pymysql.MySQLError):
        pymysql.connect(host="127.0.0.1", port=database.port, user="u", password="t0ps3cret", read_timeout=5)
    assert b"t0ps3cret" in database.heard
    web = Listener(UNAUTHORIZED)
    requests.get(f"http://127.0.0.1:{web.port}/", auth=("u", "t0ps3cret"), timeout=10)
    assert b"Authorization: Basic" in web.heard


@pytest.mark.parametrize("how", ["plain", "with a certificate of its own"])
def test_whoever_takes_the_port_of_a_server_that_died_gets_no_password(
    how: str, servers: Servers, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On loopback too, where every user of the node may: clients see whom they talk to before they say anything."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    tls = None
    if how != "plain":
        tls = workdir / "tls"
        tls.mkdir()
        make_certificates(tls, ["127.0.0.1", "localhost"])
    web = Listener(UNAUTHORIZED, tls)
    database = Listener(tls=tls) if tls else Listener(packet(IN_THE_CLEAR, 2), greeting=packet(GREETING, 0))
    before = servers.connection
    there = make_url(before.tracking_uri).set(port=web.port).render_as_string()
    storage = make_url(before.storage_url).set(port=database.port)
    moved = replace(before, tracking_uri=there, storage_url=storage.render_as_string(hide_password=False))
    file = workdir / "connection.json"
    file.write_text(connection_text(moved))
    stores = Stores(workdir / ".bdqm", connection_file=file)

    with pytest.raises(MlflowException):
        tracking_client(stores).search_experiments()
    assert not answers(there, Path(before.tracking_ca))
    for reach in (lambda: StudyDatabase(stores).connect(), lambda: connect(storage)):
        with pytest.raises(pymysql.MySQLError):
            reach()
    web.close()
    database.close()
    heard = web.heard + database.heard
    assert heard or tls, "they came"
    given = base64.b64encode(f"{before.tracking_username}:{before.tracking_password}".encode())
    for secret in (before.tracking_password.encode(), given, b"Authorization", str(storage.password).encode()):
        assert secret not in heard


def test_nothing_is_said_in_the_clear_to_mlflow_on_loopback(servers: Servers) -> None:
    connection = servers.connection
    url = make_url(connection.tracking_uri)
    assert (url.drivername, url.host) == ("https", "127.0.0.1")
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{url.port}/health", timeout=30)
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{connection.tracking_uri}/health", timeout=30)
    for host in ("127.0.0.1", "localhost"):  # of a client on the node, and at the end of a tunnel
        assert requests.get(f"https://{host}:{url.port}/health", verify=connection.tracking_ca, timeout=30).ok
    variables = connection.tracking_environment()
    assert variables["MLFLOW_TRACKING_SERVER_CERT_PATH"] == str(servers.places.ca)
    assert f"MLFLOW_TRACKING_SERVER_CERT_PATH={servers.places.ca}" in servers.services("env").stdout.replace("'", "")
    shown = servers.services("url").stdout
    assert f"https://localhost:{url.port} in its browser, which warns of the certificate" in shown
    seen = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", url.port or 0)))
    assert hashlib.sha256(seen).hexdigest().upper() in shown.replace(":", "")


def test_a_request_needs_the_password(servers: Servers) -> None:
    uri, passwords = servers.connection.tracking_uri, load_passwords(servers.places.passwords)
    options: dict[str, Any] = {"verify": servers.connection.tracking_ca, "timeout": 30}
    assert status(servers) == 200
    for path in (SEARCH, "/", "/ajax-api/2.0/mlflow/users/current", "/api/2.0/mlflow-artifacts/artifacts"):
        assert status(servers, path, auth=False) == 401, path
    for user, password in (("bdqm", "wrong"), ("admin", "password1234"), ("admin", passwords.tracking_user)):
        assert requests.get(uri + SEARCH, auth=(user, password), **options).status_code == 401
    assert requests.get(uri + SEARCH, auth=("admin", passwords.tracking_admin), **options).status_code == 200
    assert status(servers, "/health", auth=False) == 200, "which says nothing"


def test_a_request_needs_a_known_host_and_origin(servers: Servers) -> None:
    port = make_url(servers.connection.tracking_uri).port
    for host in ("localhost:9999", f"127.0.0.1:{port}", f"{socket.gethostname()}:{port}", socket.gethostname()):
        assert status(servers, Host=host) == 200, host
    for host in ("evil.example", f"evil.example:{port}", f"{socket.gethostname()}.evil.example:{port}"):
        assert status(servers, Host=host) == 403, host
    create = servers.connection.tracking_uri + "/api/2.0/mlflow/experiments/create"
    auth = (servers.connection.tracking_username, servers.connection.tracking_password)
    for origin, code in (("https://evil.example", 403), (f"https://localhost:{port}", 200)):
        options: dict[str, Any] = {"auth": auth, "verify": servers.connection.tracking_ca, "timeout": 30}
        sent = requests.post(create, json={"name": origin}, headers={"Origin": origin}, **options)
        assert sent.status_code == code, origin


def test_others_may_look_and_not_touch(servers: Servers, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tracking_client(stores)
    experiment = ours.create_experiment("ours")
    run = ours.create_run(experiment).info.run_id
    users = f"{servers.connection.tracking_uri}/api/2.0/mlflow/users/create"
    admin = ("admin", load_passwords(servers.places.passwords).tracking_admin)
    new = {"username": "guest", "password": "a guest's password"}
    options: dict[str, Any] = {"json": new, "verify": servers.connection.tracking_ca, "timeout": 30}
    assert requests.post(users, auth=admin, **options).status_code == 200
    forbidden = requests.post(users, auth=("guest", new["password"]), **options)
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
