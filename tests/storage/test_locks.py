"""Turns on a database that cuts connections: one process after the other, and nothing done in a turn that is lost."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy

from bdqm_tune.admin.deletion import belongings, delete_study
from bdqm_tune.config.config import Config
from bdqm_tune.evaluation import evaluation
from bdqm_tune.evaluation.lockbox import openings
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.mlflow_server import migrate
from bdqm_tune.services import database_lock
from bdqm_tune.services.database_lock import DatabaseLock, LockLost
from bdqm_tune.storage.database import study_lock
from bdqm_tune.study.study import load_study
from bdqm_tune.tuning import tune
from tests.mariadb import MariaDb
from tests.places import Place


@pytest.fixture
def silence(mariadb: MariaDb) -> Iterator[float]:
    """Seconds of silence after which the server cuts a connection."""
    mariadb.execute("SET GLOBAL wait_timeout = 1")
    yield 1.0
    mariadb.execute("SET GLOBAL wait_timeout = DEFAULT")


@pytest.fixture
def cut(mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Cuts all connections that hold locks of ours, as a database does that is restarted, and gives their number."""
    names: set[str] = set()
    begin = DatabaseLock.__init__

    def noted(self: DatabaseLock, connection: Any, name: str, *arguments: Any) -> None:
        names.add(name)
        begin(self, connection, name, *arguments)

    def cut_all() -> int:
        with closing(mariadb.connect()) as connection, connection.cursor() as cursor:
            holders = []
            for name in names:
                cursor.execute("SELECT IS_USED_LOCK(%s)", (name,))
                holders += [row[0] for row in cursor.fetchall() if row[0] is not None]
            for holder in holders:
                cursor.execute("KILL %s", (holder,))
        return len(holders)

    monkeypatch.setattr(DatabaseLock, "__init__", noted)
    return cut_all


def cutting(cut: Callable[[], int], call: Callable[..., Any], times: int = 1) -> Callable[..., Any]:
    """The function, after whose first calls, so many as `times`, the database cuts locks."""
    left = [None] * times

    def cut_after(*arguments: Any, **options: Any) -> Any:
        result = call(*arguments, **options)
        if left:
            left.pop()
            assert cut() == 1
        return result

    return cut_after


def test_a_turn_outlives_the_silence_that_a_server_allows(mariadb_place: Place, silence: float) -> None:
    entered: list[float] = []

    def other() -> None:
        with study_lock(mariadb_place.stores, "s"):
            entered.append(time.monotonic())

    with study_lock(mariadb_place.stores, "s") as check:
        waiting = threading.Thread(target=other)
        waiting.start()
        time.sleep(3 * silence)
        check()
        left = time.monotonic()
    waiting.join(30)
    assert entered[0] >= left


def test_a_connection_says_that_it_lives_more_often_than_it_must(
    mariadb_place: Place, mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a node that is switched off, the server gives the lock to others as soon as this stays out."""
    assert database_lock.PING * 10 < database_lock.SILENCE <= 120
    monkeypatch.setattr(database_lock, "PING", 0.3)
    monkeypatch.setattr(database_lock, "SILENCE", 1)
    with study_lock(mariadb_place.stores, "s") as check:
        time.sleep(3)
        check()
    connection = mariadb.connect()
    monkeypatch.setattr(database_lock, "PING", 60)
    with closing(DatabaseLock(connection, "l", 1, "waiting")) as lock:
        time.sleep(2.5)
        with pytest.raises(LockLost, match="start the same command again"):
            lock.check()


def test_a_turn_that_is_lost_is_noticed(mariadb_place: Place, cut: Callable[[], int]) -> None:
    with study_lock(mariadb_place.stores, "s") as check:
        check()
        assert cut() == 1
        with study_lock(mariadb_place.stores, "s") as others:
            with pytest.raises(LockLost):
                check()
            others()


def test_a_worker_that_loses_its_turn_takes_another_and_adds_its_trials_once(
    mariadb_place: Place, cut: Callable[[], int], configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(study={"name": "s", "n_trials": 3})
    dataset = prepare(config, mariadb_place.stores.home)
    for name in ("check_study", "open_study"):
        monkeypatch.setattr(tune, name, cutting(cut, getattr(tune, name)))
    study = tune._enter(dataset, config, mariadb_place.stores, "0")
    assert len(study.trials) == 3
    monkeypatch.setattr(tune, "open_study", cutting(cut, tune.open_study, tune.LOCK_ATTEMPTS))
    with pytest.raises(LockLost):
        tune._enter(dataset, config, mariadb_place.stores, "0")
    assert len(study.trials) == 3


def test_a_turn_that_is_lost_opens_no_test_split_and_deletes_no_study(
    mariadb_place: Place, cut: Callable[[], int], configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = mariadb_place.stores
    config = configure(study={"name": "s", "n_trials": 1}, training={"epochs": 2})
    tune.tune(prepare(config, stores.home), config, stores)
    monkeypatch.setattr(evaluation, "predict", cutting(cut, evaluation.predict))
    with pytest.raises(LockLost):
        evaluation.evaluate_best(stores, "s")
    assert openings(load_study(stores, "s")) == []
    found = belongings(stores, "s")
    monkeypatch.setattr("bdqm_tune.admin.deletion.idle", lambda *_: cut())
    with pytest.raises(LockLost):
        delete_study(stores, found)
    assert len(load_study(stores, "s").trials) == 1


def test_schemas_are_left_alone_once_the_lock_is_lost(
    mariadb_place: Place, mariadb: MariaDb, cut: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f"{mariadb_place.schema}_b"
    mariadb.execute(f"CREATE DATABASE {other}")
    tables = migrate.OptunaTables
    monkeypatch.setattr(tables, "make", cutting(cut, tables.make))
    monkeypatch.setitem(migrate.TABLES, "second", tables)
    urls = {"optuna": mariadb.url(mariadb_place.schema), "second": mariadb.url(other)}
    with pytest.raises(LockLost):
        migrate.migrate(migrate.Request(urls, "", "", upgrade=False))
    engine = sqlalchemy.create_engine(urls["second"])
    assert sqlalchemy.inspect(engine).get_table_names() == []
    engine.dispose()
    assert [one.state for one in migrate.migrate(migrate.Request(urls, "", "", upgrade=False))] == ["current", "made"]
