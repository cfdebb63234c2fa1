"""Servers that the user has: only what is missing is started, and only the schemas are made on them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from bdqm_tune.mlflow_server.processes import leftovers
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.study import load_study
from tests.forked import run
from tests.mariadb import MariaDb
from tests.servers import Servers


def tune(servers: Servers, configure: Callable[..., Any], folder: Path, **variables: str) -> None:
    config = configure(study={"name": "given", "n_trials": 2, "pruner": "none"}, training={"epochs": 2})
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    done = run(["-m", "bdqm_tune", "tune", "--config", "config.yaml"], servers.environ | variables)
    assert done.returncode == 0, done.stderr
    study = load_study(Stores(folder / ".bdqm", connection_file=servers.places.connection), "given")
    assert len(study.get_trials()) == 2


@pytest.mark.endurance
def test_on_a_database_that_the_user_has_only_mlflow_is_started(
    new_servers: Servers, mariadb: MariaDb, workdir: Path, configure: Callable[..., Any]
) -> None:
    url = mariadb.url("me_")
    new_servers.services("up", BDQM_MYSQL_URL=url)
    assert make_url(new_servers.connection.storage_url).database == "me_optuna"
    assert not new_servers.places.data.exists()
    assert not [process for process in leftovers(new_servers.folder) if "mariadbd" in process.name()]
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW DATABASES LIKE 'me\\_%'")
        assert {name for (name,) in cursor.fetchall()} == {"me_optuna", "me_mlflow", "me_mlflow_auth"}
    tune(new_servers, configure, workdir)
    file = workdir / "backup.tar.gz"
    new_servers.services("backup", "--out", str(file), BDQM_MYSQL_URL=url)
    again = new_servers.services("up", BDQM_MYSQL_URL=url)
    assert mariadb.password not in again.stdout + again.stderr
    new_servers.services("down")

    own = Servers(workdir / "own")
    own.services("restore", str(file))
    own.services("up")
    try:
        assert make_url(own.connection.storage_url).database == "optuna"
        study = load_study(Stores(workdir / ".bdqm", connection_file=own.places.connection), "given")
        assert len(study.get_trials()) == 2
    finally:
        own.services("down")


@pytest.mark.endurance
def test_with_both_given_nothing_is_started(
    new_servers: Servers, mariadb: MariaDb, server: Any, workdir: Path, configure: Callable[..., Any]
) -> None:
    tracking = {
        "MLFLOW_TRACKING_URI": server.uri,
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": server.password,
    }
    for _ in range(2):
        new_servers.services("up", BDQM_MYSQL_URL=mariadb.url("both_"), **tracking)
    assert leftovers(new_servers.folder) == []
    assert new_servers.connection.tracking_uri == server.uri
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW TABLES IN both_optuna")
        assert ("trials",) in cursor.fetchall()
        cursor.execute("SHOW TABLES IN both_mlflow")
        assert cursor.fetchall() == ()
    assert new_servers.services("status").stdout.startswith("servers       up")
    tune(new_servers, configure, workdir, **tracking)


def test_with_mlflow_given_only_the_database_is_started(new_servers: Servers, server: Any) -> None:
    new_servers.services("up", MLFLOW_TRACKING_URI=server.uri)
    names = {process.name() for process in leftovers(new_servers.folder)}
    assert names == {"mariadbd"}
    assert new_servers.connection.tracking_uri == server.uri


def test_one_database_for_optuna_and_mlflow_is_refused(workdir: Path) -> None:
    same = "mysql+pymysql://me:secret@db.example/both"
    variables = {"BDQM_STORAGE": same, "MLFLOW_TRACKING_URI": f"{same}?charset=utf8mb4"}
    done = run(["-m", "bdqm_tune", "tune", "--n-trials", "1"], os.environ | variables)
    assert done.returncode == 2
    assert "are the same database, mysql+pymysql://me:***@db.example/both" in done.stderr
    assert "secret" not in done.stderr
    assert list(workdir.iterdir()) == []
