"""A database with fewer connections than workers want: they wait for one, and say what would help."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import pymysql
import pytest
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError

from bdqm_tune.config.config import Config
from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import Stores
from bdqm_tune.storage import database as opening
from bdqm_tune.storage.database import open_storage
from bdqm_tune.storage.retry import FEWER, is_full, passing, reason
from bdqm_tune.study.study import load_study
from bdqm_tune.tuning.tune import tune
from tests.mariadb import MariaDb
from tests.places import Place
from tests.storage.test_database import assert_all_done, new_study, run_trial

LIMIT = {  # what limits the connections to the number that follows; a server has ten at least
    "account": "ALTER USER few@'%' WITH MAX_USER_CONNECTIONS ",
    "hour": "ALTER USER few@'%' WITH MAX_CONNECTIONS_PER_HOUR ",
    "accounts": "SET GLOBAL max_user_connections = ",
    "server": "SET GLOBAL max_connections = ",
}
SAID = {
    "account": "has exceeded the 'max_user_connections' resource",
    "hour": "has exceeded the 'max_connections_per_hour' resource",
    "accounts": "has more than 'max_user_connections' active connections",
    "server": "Too many connections",
}


@pytest.fixture
def account(mariadb_place: Place, mariadb: MariaDb) -> Stores:
    """A database that is given, with its tables, and an account that can be limited."""
    open_storage(mariadb_place.stores).backend.close()
    for number in connections(mariadb, "few"):  # that tests before left to the garbage collector
        with suppress(pymysql.MySQLError):  # it has just ended
            mariadb.execute(f"KILL {number}")
    mariadb.execute(
        "CREATE OR REPLACE USER few@'%' IDENTIFIED BY 'p' REQUIRE SSL",
        f"GRANT ALL ON {mariadb_place.schema}.* TO few@'%'",
    )
    url = mariadb.url(mariadb_place.schema).replace(f"worker:{mariadb.password}", "few:p")
    return replace(mariadb_place.stores, storage=url)


class Limit:
    """No connection is left for the account, until the limit is raised."""

    def __init__(self, mariadb: MariaDb, kind: str) -> None:
        self._mariadb, self.kind = mariadb, kind
        self._administrator = mariadb.connect()  # who may not get in any more later on
        self._held: list[Any] = []

    def begin(self) -> None:
        self._administrator.cursor().execute(f"{LIMIT[self.kind]}1")
        where = {"host": "127.0.0.1", "port": self._mariadb.port, "ssl": {"ca": f"{self._mariadb.folder}/ca.pem"}}
        with pytest.raises(pymysql.OperationalError, match=SAID[self.kind]):
            for _ in range(20):
                self._held.append(pymysql.connect(user="few", password="p", **where))

    def end(self) -> None:
        for connection in self._held:
            connection.close()
        self._held.clear()
        self._administrator.cursor().execute(f"{LIMIT[self.kind]}1000")


@pytest.fixture(params=LIMIT)
def limit(request: pytest.FixtureRequest, account: Stores, mariadb: MariaDb) -> Iterator[Limit]:
    limit = Limit(mariadb, request.param)
    yield limit
    limit.end()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("bdqm_tune")]


def test_opening_waits_until_there_is_a_connection(
    account: Stores, limit: Limit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Longer than for a database that is not there, which is wrong more likely than late."""
    monkeypatch.setattr(opening, "OTHER_TIMEOUT", 0.2)
    limit.begin()
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(open_storage, account)
        time.sleep(1.5)
        assert not opened.done()
        limit.end()
        opened.result(30).backend.close()
    waits, again = said(caplog)
    assert SAID[limit.kind] in waits
    assert waits.endswith("; waiting up to 10 min")
    assert "answers again" in again


@pytest.mark.parametrize("limit", ["account"], indirect=True)
def test_a_worker_waits_until_there_is_a_connection_again(account: Stores, limit: Limit, mariadb: MariaDb) -> None:
    study = new_study(open_storage(account, retry_timeout=60), 1)
    mariadb.execute(*(f"KILL {number}" for number in connections(mariadb, "few")))
    limit.begin()
    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(run_trial, study)
        time.sleep(1.0)
        assert not worker.done()
        limit.end()
        assert worker.result(30)
    assert_all_done(account, 1)


def connections(mariadb: MariaDb, user: str) -> list[int]:
    with closing(mariadb.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE user = %s", (user,))
        return [row[0] for row in cursor.fetchall()]


@pytest.mark.parametrize("limit", ["account"], indirect=True)
def test_who_waits_in_vain_is_told_what_helps(account: Stores, limit: Limit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LOCK_SECONDS", 1)
    monkeypatch.setattr(opening, "OTHER_TIMEOUT", 0.2)
    limit.begin()
    with pytest.raises(BdqmError, match=f"^cannot open the study database .*{SAID[limit.kind]}.*; {FEWER}$"):
        open_storage(account)


def test_three_connections_are_enough_for_a_worker(
    account: Stores, mariadb: MariaDb, configure: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    """As the message says; four trials are trained at once."""
    mariadb.execute("ALTER USER few@'%' WITH MAX_USER_CONNECTIONS 3")
    config = configure(
        study={"name": "s", "n_trials": 4, "pruner": "none"}, training={"epochs": 3}, **{"": {"cohort": 4}}
    )
    tune(prepare(config, account.home), config, account)
    assert [trial.state for trial in load_study(account, "s").trials] == [TrialState.COMPLETE] * 4
    assert said(caplog) == []


@pytest.mark.parametrize(
    "text",
    [
        "FATAL:  sorry, too many clients already",
        'FATAL:  too many connections for role "few"',
        'FATAL:  too many connections for database "studies"',
        "FATAL:  remaining connection slots are reserved for non-replication superuser connections",
    ],
)
def test_postgresql_says_the_same_in_words(text: str) -> None:
    error = DBAPIError("", {}, Exception(f'connection to server at "node7", port 5432 failed: {text}'))
    assert is_full(error)
    assert text.split()[-1] in str(passing(error))
    assert reason(error).endswith(f"; {FEWER}")


@pytest.mark.parametrize("name", ["sqlstate", "pgcode"])
def test_postgresql_says_the_same_by_a_code(name: str) -> None:
    refused = type("Refused", (Exception,), {name: "53300"})("no")
    assert is_full(DBAPIError("", {}, refused))
    assert not is_full(DBAPIError("", {}, type("Refused", (Exception,), {name: "28P01"})("no")))
