"""The tables of Optuna, MLflow and MLflow's accounts: made once, never by a program that is too old, upgraded after a
backup.
"""

import json
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy
from alembic import command
from sqlalchemy import Engine, text

from bdqm_tune.mlflow_server.database import await_database, own_database, start_database
from bdqm_tune.mlflow_server.migrate import TABLES
from bdqm_tune.mlflow_server.processes import free_port, stop
from bdqm_tune.mlflow_server.programs import find_programs
from tests.mariadb import MariaDb
from tests.servers import Servers

SCHEMA = "CREATE DATABASE `{}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


def engine_of(servers: Servers, schema: str) -> Engine:
    """For the administrator, at the socket."""
    return sqlalchemy.create_engine(own_database(servers.places, "", 0).admin.set(database=schema))


def execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def revision(servers: Servers, schema: str) -> str:
    return TABLES[schema](engine_of(servers, schema)).revision()


@contextmanager
def database_alone(servers: Servers) -> Iterator[None]:
    """The database of servers that are down, without MLflow, as whoever mends something has it."""
    servers.places.claim_socket()
    database = own_database(servers.places, "127.0.0.1", free_port("127.0.0.1"))
    process = start_database(servers.places, find_programs(), database, "127.0.0.1")
    await_database(servers.places, database, process)
    try:
        yield
    finally:
        stop([process], 20)


def with_database_alone(servers: Servers, schema: str, statement: str) -> None:
    with database_alone(servers):
        execute(engine_of(servers, schema), statement)


def make_older_mlflow(servers: Servers) -> str:
    """MLflow's schema as an earlier version left it, with an experiment in it; its revision."""
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    engine = engine_of(servers, "mlflow")
    execute(engine, "DROP DATABASE mlflow", SCHEMA.format("mlflow"))
    engine.dispose()  # so that the next connection is in the new schema
    revisions = [one.revision for one in TABLES["mlflow"](engine).script().walk_revisions()]
    Base.metadata.create_all(engine)
    config = _get_alembic_config(engine.url.render_as_string())
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revisions[3])
    execute(
        engine,
        "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
        "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (0, 'Default', 'active')",
        "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (77, 'kept', 'active')",
    )
    return revisions[3]


def make_older_optuna(servers: Servers) -> str:
    """Optuna's schema as version 3.0 left it, with a study in it."""
    execute(
        engine_of(servers, "optuna"),
        "UPDATE alembic_version SET version_num = 'v3.0.0.d'",
        "INSERT INTO studies (study_name) VALUES ('kept')",
    )
    return "v3.0.0.d"


def contents(servers: Servers) -> tuple[str, str]:
    with engine_of(servers, "mlflow").connect() as connection:
        experiment = connection.scalar(text("SELECT name FROM mlflow.experiments WHERE experiment_id = 77"))
        study = connection.scalar(text("SELECT study_name FROM optuna.studies"))
    return experiment, study


@pytest.mark.endurance
def test_older_tables_are_backed_up_and_upgraded_and_it_can_be_undone(own_servers: Servers) -> None:
    own_servers.services("up")
    newest = {schema: revision(own_servers, schema) for schema in ("mlflow", "optuna")}
    older = {"mlflow": make_older_mlflow(own_servers), "optuna": make_older_optuna(own_servers)}
    assert older["mlflow"] != newest["mlflow"]
    own_servers.services("down")

    done = own_servers.services("up")
    assert {schema: revision(own_servers, schema) for schema in older} == newest
    assert contents(own_servers) == ("kept", "kept")
    said = re.search(r"to undo it: pip install mlflow==\S+ optuna==\S+; (.*); (.*)$", done.stderr, re.MULTILINE)
    assert said is not None, done.stderr
    for line in said.groups():
        own_servers.services(*shlex.split(line)[2:])
    with database_alone(own_servers):
        assert {schema: revision(own_servers, schema) for schema in older} == older
        assert contents(own_servers) == ("kept", "kept")
    own_servers.services("up")
    assert {schema: revision(own_servers, schema) for schema in older} == newest


@pytest.mark.soak
def test_tables_of_a_newer_program_and_half_upgraded_ones_are_refused(own_servers: Servers) -> None:
    own_servers.services("up")
    before = {schema: revision(own_servers, schema) for schema in TABLES}
    own_servers.services("down")
    for schema in ("optuna", "mlflow"):
        with_database_alone(own_servers, schema, "UPDATE alembic_version SET version_num = 'from_the_future'")
        last = own_servers.services("up", status=1).stderr.splitlines()[-1]
        assert re.search(rf"schema {schema} was written by a newer {schema} .*: pip install --upgrade {schema}$", last)
        assert own_servers.services("status", status=1).stdout.startswith("servers       down")
        with_database_alone(own_servers, schema, f"UPDATE alembic_version SET version_num = '{before[schema]}'")
    with_database_alone(own_servers, "mlflow", "CREATE TABLE bdqm_upgrading (id INT)")
    refused = own_servers.services("up", status=1).stderr
    assert "an upgrade of the schema mlflow was cut off" in refused
    assert "services restore" in refused


@pytest.fixture
def request_(mariadb: MariaDb) -> Iterator[dict[str, object]]:
    """What `migrate` reads, for three empty schemas on a server that a user has."""
    prefix = f"m{secrets.token_hex(3)}_"
    mariadb.execute(*(SCHEMA.format(prefix + schema) for schema in TABLES))
    urls = {schema: mariadb.url(prefix + schema) for schema in TABLES}
    yield {"urls": urls, "admin_password": "a" * 20, "user_password": "b" * 20, "upgrade": False}
    mariadb.execute(*(f"DROP DATABASE {prefix}{schema}" for schema in TABLES))


def start_migrate(request: dict[str, object]) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-m", "bdqm_tune.mlflow_server.migrate"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(request))
    process.stdin.close()
    process.stdin = None
    return process


@pytest.mark.soak
def test_eight_at_empty_schemas_do_no_harm(request_: dict[str, object], mariadb: MariaDb) -> None:
    """Also the trap of MLflow's accounts: its own migration of them fails on MariaDB."""
    processes = [start_migrate(request_) for _ in range(8)]
    outputs = [process.communicate(timeout=500) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, outputs
    states = sorted(tuple(schema["state"] for schema in json.loads(output.splitlines()[-1])) for output, _ in outputs)
    assert states == [("current",) * 3] * 7 + [("made",) * 3]
    for schema, url in request_["urls"].items():  # type: ignore[attr-defined]
        tables = TABLES[schema](sqlalchemy.create_engine(url))
        assert tables.revision() == tables.script().get_current_head()
        with tables.engine.connect() as connection:
            assert connection.scalar(text(f"SELECT COUNT(*) FROM {tables.version_table}")) == 1
            if schema == "mlflow_auth":
                names = connection.execute(text("SELECT username, is_admin FROM users")).all()
                assert sorted(names) == [("admin", 1), ("bdqm", 0)]


@pytest.mark.endurance
def test_an_account_without_the_right_to_make_triggers_is_refused_before_anything_is_made(
    request_: dict[str, object], mariadb: MariaDb
) -> None:
    urls: dict[str, str] = request_["urls"]  # type: ignore[assignment]
    schema = sqlalchemy.make_url(urls["mlflow"]).database
    mariadb.execute(
        "CREATE OR REPLACE USER plain@'%' IDENTIFIED BY 'plain' REQUIRE SSL",
        f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, REFERENCES ON `{schema}`.* TO plain@'%'",
    )
    url = urls["mlflow"].replace(f"worker:{mariadb.password}", "plain:plain")
    refused = start_migrate(request_ | {"urls": {"mlflow": url}})
    output, _ = refused.communicate(timeout=60)
    assert refused.returncode == 1
    message = json.loads(output.splitlines()[-1])["error"]
    assert f"may not make triggers in the schema {schema}" in message
    assert f"GRANT TRIGGER ON `{schema}`.*" in message
    assert TABLES["mlflow"](sqlalchemy.create_engine(urls["mlflow"])).names() == []

    mariadb.execute(f"GRANT TRIGGER ON `{schema}`.* TO plain@'%'")
    made = start_migrate(request_ | {"urls": {"mlflow": url}})
    output, errors = made.communicate(timeout=120)
    assert made.returncode == 0, output + errors
