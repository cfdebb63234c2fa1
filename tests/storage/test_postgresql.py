"""Studies in PostgreSQL under trouble: locks that are cut, a server that is killed, and one without connections."""

import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services import database_lock, database_urls
from bdqm_tune.services.connection import Stores, file_stores, find_stores
from bdqm_tune.services.database_lock import LockLost
from bdqm_tune.services.database_urls import parse_storage_url
from bdqm_tune.storage import database as opening
from bdqm_tune.storage.database import open_storage, opened, study_lock
from bdqm_tune.storage.retry import FEWER
from bdqm_tune.study.study import add_trials, next_trial
from tests.places import Place
from tests.postgresql import PostgreSql

LOCKS = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"


def test_a_lock_is_held_by_one_process_after_the_other(
    postgresql_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_lock, "STEP", 1)  # second, after which the other asks for the lock again
    entered: list[float] = []

    def other() -> None:
        with study_lock(postgresql_place.stores, "s"):
            entered.append(time.monotonic())

    with study_lock(postgresql_place.stores, "s") as check:
        with study_lock(postgresql_place.stores, "another study"):
            check()
        waiting = threading.Thread(target=other)
        waiting.start()
        time.sleep(2.5)
        check()
        end = time.monotonic()
    waiting.join(30)
    assert entered[0] >= end


def test_a_database_in_latin_1_is_told_with_the_command_that_makes_a_right_one(
    postgresql: PostgreSql, workdir: Path
) -> None:
    """Letters that latin1 has are none of its problem."""
    schema = f"s{secrets.token_hex(4)}"
    postgresql.execute(f"CREATE DATABASE {schema} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    stores = Stores(workdir / ".bdqm", postgresql.url(schema))
    with opened(stores) as storage:
        optuna.create_study(storage=storage, study_name="Größe")
    with pytest.raises(BdqmError, match="made by `CREATE DATABASE name ENCODING 'UTF8'"), opened(stores) as storage:
        optuna.create_study(storage=storage, study_name="Größe 水")


def test_a_lock_that_is_held_for_too_long_is_reported(postgresql_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with study_lock(postgresql_place.stores, "s"):
        monkeypatch.setattr(opening, "LOCK_SECONDS", 1)
        with (
            pytest.raises(BdqmError, match=r"^another process has been opening the study .* for 1 s; try again$"),
            study_lock(postgresql_place.stores, "s"),
        ):
            pass


def test_a_lock_whose_connection_is_cut_is_noticed(postgresql_place: Place, postgresql: PostgreSql) -> None:
    with study_lock(postgresql_place.stores, "s") as check:
        check()
        ((holder,),) = postgresql.execute(LOCKS, postgresql_place.schema)
        postgresql.execute(f"SELECT pg_terminate_backend({holder})")
        with study_lock(postgresql_place.stores, "s") as others:
            with pytest.raises(LockLost):
                check()
            others()


def test_a_server_that_is_killed_is_waited_for(
    postgresql_place: Place, postgresql: PostgreSql, caplog: pytest.LogCaptureFixture
) -> None:
    storage = open_storage(postgresql_place.stores, retry_timeout=60)
    study = optuna.create_study(storage=storage, study_name="s")
    add_trials(study, 100)

    def work() -> None:
        while (trial := next_trial(study)) is not None:
            trial.report(trial.suggest_float("a", 0, 1), 1)
            study.tell(trial, 0.5)

    with ThreadPoolExecutor() as pool:
        worker = pool.submit(work)
        time.sleep(0.5)
        postgresql.kill()
        time.sleep(1)
        assert not worker.done()
        postgresql.start()
        worker.result(timeout=60)
    trials = study.get_trials()
    assert [(trial.number, trial.state, trial.value) for trial in trials] == [
        (number, TrialState.COMPLETE, 0.5) for number in range(100)
    ]
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("bdqm_tune")]
    assert len(messages) == 2
    assert "does not answer" in messages[0]
    assert "answers again" in messages[1]


def test_a_role_without_a_connection_left_is_explained(
    postgresql_place: Place, postgresql: PostgreSql, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgresql.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 0")
    url = postgresql.url(postgresql_place.schema).replace("postgres@", "few@")
    stores = Stores(postgresql_place.stores.home, storage=url)
    monkeypatch.setattr(opening, "LOCK_SECONDS", 1)
    monkeypatch.setattr(opening, "OTHER_TIMEOUT", 0.2)
    with pytest.raises(BdqmError, match=f"^cannot open the study database .*too many connections.*; {FEWER}$"):
        open_storage(stores)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:s3cret@h/d", "the driver mysqldb is not supported; write mysql+pymysql://"),
        ("mariadb://u:s3cret@h/d", "the driver mysqldb is not supported; write mariadb+pymysql://"),
        ("mysql+mysqlconnector://u:s3cret@h/d", "driver mysqlconnector is not supported; write mysql+pymysql://"),
        ("mysql+nosuch://u:s3cret@h/d", "driver nosuch is not supported; write mysql+pymysql://"),
        ("postgresql+pg8000://u:s3cret@h/d", "driver pg8000 is not supported; "),
        ("postgres://u:s3cret@h/d", "postgres:// cannot hold studies; SQLite"),
        ("mssql+pyodbc://u:s3cret@h/d", "mssql:// cannot hold studies; SQLite"),
        ("oracle://u:s3cret@h/d", "oracle:// cannot hold studies; SQLite"),
        ("redis://:s3cret@h/0", "redis:// cannot hold studies; SQLite"),
        ("./journal.log", "BDQM_STORAGE is no SQLAlchemy URL"),
        ("mysql+pymysql://u:s3cret@h/", "BDQM_STORAGE: name a database, as in mysql+pymysql://USER@HOST/DATABASE"),
        ("mysql+pymysql://u:s3cret@h", "BDQM_STORAGE: name a database"),
        ("sqlite://", "BDQM_STORAGE: name a file, as in sqlite:////scratch/me/optuna.db"),
        ("sqlite:///:memory:", "BDQM_STORAGE: name a file"),
    ],
)
def test_a_database_that_is_not_supported_is_refused_before_anything_is_made(
    workdir: Path, url: str, message: str
) -> None:
    for stores in (find_stores, file_stores):
        with pytest.raises(BadInput) as raised:
            stores({"BDQM_STORAGE": url, "BDQM_SERVICES": "/none"})
        assert message in str(raised.value)
        assert "s3cret" not in str(raised.value)
    assert not list(workdir.iterdir())


@pytest.mark.parametrize(
    ("installed", "url", "message"),
    [
        ("", "postgresql://h/d", "is not installed; `pip install psycopg2-binary`, and write postgresql+psycopg2://"),
        ("psycopg", "postgresql+psycopg2://h/d", "psycopg2 is not installed; write postgresql+psycopg://"),
        ("psycopg2", "postgresql+psycopg://h/d", "psycopg is not installed; write postgresql+psycopg2://"),
        ("psycopg2", "postgresql+psycopg2://h/d", ""),
        ("", "mysql+pymysql://h/d", "pymysql is not installed; `pip install pymysql`, and write mysql+pymysql://"),
        ("sqlite3", "sqlite:////d", ""),
    ],
)
def test_a_driver_that_is_not_installed_is_named_with_one_that_is(
    monkeypatch: pytest.MonkeyPatch, installed: str, url: str, message: str
) -> None:
    monkeypatch.setattr(database_urls, "find_spec", lambda name: object() if name == installed else None)
    if not message:
        assert parse_storage_url(url).render_as_string() == url
        return
    with pytest.raises(BadInput) as raised:
        parse_storage_url(url)
    assert str(raised.value).endswith(message)
