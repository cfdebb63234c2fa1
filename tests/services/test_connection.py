"""Where the stores are: what is given, what runs, what is embedded; looked up anew each time."""

import json
import shlex
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services import connection
from bdqm_tune.services.connection import (
    Connection,
    Stores,
    connection_text,
    find_stores,
    read_connection,
    same_database,
)
from bdqm_tune.services.secrets import without_secrets

SERVERS = Connection(
    "node7",
    "2026-11-24T12:00:00+00:00",
    "mysql+pymysql://bdqm_optuna:s3cret@node7:3307/optuna?ssl_ca=/ca.pem",
    "https://node7:5000",
    "bdqm",
    "t0psecret",
    "/ca.pem",
    ("https://node6:5001",),
)


@pytest.fixture
def environ(workdir: Path) -> dict[str, str]:
    """Variables of a user whose servers run."""
    (workdir / "connection.json").write_text(connection_text(SERVERS))
    return {"BDQM_SERVICES": str(workdir)}


def test_without_servers_the_stores_are_embedded(workdir: Path) -> None:
    stores = find_stores({"BDQM_SERVICES": str(workdir / "none")})
    assert stores.home == workdir / ".bdqm"
    assert stores.storage_url == f"sqlite:///{workdir}/.bdqm/optuna.db"
    assert (stores.tracking_uri, stores.tracking_environment, stores.notes) == (None, {}, ())


def test_running_servers_are_followed(workdir: Path, environ: dict[str, str]) -> None:
    stores = find_stores(environ)
    assert (stores.storage_url, stores.tracking_uri) == (SERVERS.storage_url, SERVERS.tracking_uri)
    assert stores.tracking_environment == {
        "MLFLOW_TRACKING_URI": "https://node7:5000",
        "MLFLOW_TRACKING_USERNAME": "bdqm",
        "MLFLOW_TRACKING_PASSWORD": "t0psecret",
        "MLFLOW_TRACKING_SERVER_CERT_PATH": "/ca.pem",
    }
    moved = replace(SERVERS, tracking_uri="https://node8:5002", storage_url="mysql+pymysql://u:p@node8:3308/optuna")
    (workdir / "connection.json").write_text(connection_text(moved))
    assert (stores.storage_url, stores.tracking_uri) == (moved.storage_url, moved.tracking_uri)
    (workdir / "connection.json").unlink()
    with pytest.raises(BdqmError, match="the servers are down; `bdqm-tune services up` starts them"):
        _ = stores.storage_url


@pytest.mark.parametrize("uri", ["https://node7:5000", "https://node7:5000/", "https://node6:5001"])
def test_the_servers_own_address_in_the_environment_is_followed_too(environ: dict[str, str], uri: str) -> None:
    stores = find_stores(environ | {"MLFLOW_TRACKING_URI": uri})
    assert (stores.tracking, stores.tracking_uri, stores.notes) == (None, SERVERS.tracking_uri, ())


def test_what_is_given_wins_and_the_user_is_told(environ: dict[str, str]) -> None:
    given = {"BDQM_STORAGE": "sqlite:////x.db", "MLFLOW_TRACKING_URI": "http://u:pw@other:80", "BDQM_HOME": "/h"}
    stores = find_stores(environ | given)
    assert (stores.storage_url, stores.tracking_uri, stores.home) == (
        given["BDQM_STORAGE"],
        given["MLFLOW_TRACKING_URI"],
        Path("/h"),
    )
    (note,) = stores.notes
    assert note.startswith("runs go to http://u:***@other:80, which MLFLOW_TRACKING_URI names, not to the server that")
    assert 'eval "$(bdqm-tune services env)"' in note


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("mysql+pymysql://a:b@h:3306/d?charset=utf8mb4", "mysql://c@H/d", True),
        ("mysql+pymysql://a@localhost/d", "mariadb+pymysql://a@127.0.0.1:3306/d", True),
        ("mysql+pymysql://a@h/d", "mysql+pymysql://a@h/e", False),
        ("mysql+pymysql://a@h:3307/d", "mysql+pymysql://a@h/d", False),
        ("mysql+pymysql://a@localhost/d?unix_socket=/s", "mysql+pymysql://a@localhost/d?unix_socket=/t", False),
        ("sqlite:///mlflow.db", "sqlite:///./mlflow.db", True),
        ("sqlite:///a.db", "sqlite:///b.db", False),
        ("sqlite://", "sqlite://", False),
        ("http://h/d", "http://h/d", False),
        ("postgresql://h/d", "mysql://h/d", False),
        ("no url", "no url", False),
    ],
)
def test_two_urls_of_one_database_are_seen(workdir: Path, one: str, other: str, same: bool) -> None:
    assert same_database(one, other) == same_database(other, one) == same


def test_one_database_for_both_is_refused_without_its_password(workdir: Path) -> None:
    environ = {"BDQM_STORAGE": "mysql://u:secret@h/d", "MLFLOW_TRACKING_URI": "mysql+pymysql://v:other@h:3306/d"}
    with pytest.raises(BadInput, match=r"the same database, mysql://u:\*\*\*@h/d; each needs one of its own") as raised:
        find_stores({**environ, "BDQM_SERVICES": "/none"})
    assert "secret" not in str(raised.value)
    with pytest.raises(BadInput, match=r"mlflow\.db"):
        find_stores({"BDQM_STORAGE": "sqlite:///mlflow.db", "BDQM_SERVICES": "/none"})


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2}', json.dumps(json.loads(connection_text(SERVERS)) | {"more": 1}), "\0"]
)
def test_a_damaged_connection_file_is_named(workdir: Path, text: str) -> None:
    path = workdir / "connection.json"
    path.write_text(text)
    with pytest.raises(BdqmError, match=rf"{path} is no connection file.*services up"):
        read_connection(path)


def test_passwords_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for shown in (repr(SERVERS), str(find_stores({"BDQM_STORAGE": SERVERS.storage_url, "BDQM_SERVICES": "/none"}))):
        assert "secret" not in shown
        assert "s3cret" not in shown
    assert without_secrets("mysql://u:s3cret@h/d") == "mysql://u:***@h/d"
    monkeypatch.setenv("BDQM_STORAGE", "u:s3cret@h")
    assert without_secrets("not a url: u:s3cret@h") == "not a url: u:***@h"


@pytest.fixture
def down(workdir: Path) -> dict[str, str]:
    """Variables of a user whose servers have been up, and are not at the moment."""
    (workdir / "servers").mkdir()
    (workdir / "servers" / "settings.json").write_text("{}")
    return {"BDQM_SERVICES": str(workdir / "servers"), "BDQM_HOME": str(workdir / "a home")}


def test_servers_that_restart_are_waited_for(
    workdir: Path, down: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connection, "POLL", 0.05)
    file = workdir / "servers" / "connection.json"
    threading.Timer(0.5, lambda: file.write_text(connection_text(SERVERS))).start()
    stores = find_stores(down)
    assert (stores.storage_url, stores.tracking_uri) == (SERVERS.storage_url, SERVERS.tracking_uri)
    said = f"bdqm-tune: the servers of {file.parent} are not up; waiting for them, 120 s at most\n"
    assert capsys.readouterr().err == said


def test_where_servers_stay_down_no_files_are_used_in_their_place(
    workdir: Path, down: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "RESTART", 0.2)
    servers = "https://node7:5000"  # as `services env` said when they were up
    for given in ({}, {"BDQM_STORAGE": "sqlite:////x.db"}, {"MLFLOW_TRACKING_URI": servers}):
        with pytest.raises(BdqmError, match="are not up: `bdqm-tune services up` starts them") as refused:
            find_stores(down | given)
        assert refused.value.exit_code == 1  # what a job script does not take for a study that is not there
    command = str(refused.value).rpartition("`export ")[2].removesuffix("`")
    chosen = dict(part.split("=", 1) for part in shlex.split(command))
    stores = find_stores(down | chosen)
    assert stores.storage_url == f"sqlite:///{workdir}/a home/optuna.db"
    assert stores.tracking_uri == f"sqlite:///{workdir}/mlflow.db"
    assert stores.storage_url == Stores(stores.home).storage_url, "where the embedded studies are"
