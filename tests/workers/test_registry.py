"""The table of workers: who is in it, who counts, who ended whom; and whether a process is gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import optuna
import pytest
import sqlalchemy

from bdqm_tune.errors import BdqmError
from bdqm_tune.mlflow_server.migrate import Request, migrate
from bdqm_tune.process import process_identity
from bdqm_tune.services.tables import WORKERS, has_tables
from bdqm_tune.storage.database import open_storage
from bdqm_tune.storage.retry import Retry
from bdqm_tune.storage.retrying_storage import RetryingStorage
from bdqm_tune.workers.registry import DEAD, ENDED, RUNNING, Worker, Workers, describe_process
from tests.mariadb import MariaDb
from tests.places import Place


@pytest.fixture
def storage(place: Place) -> Iterator[RetryingStorage]:
    backend = open_storage(place.stores).backend
    yield backend
    backend.close()


@pytest.fixture
def workers(storage: RetryingStorage) -> Workers:
    return Workers(storage.engine, storage.retry, 1)


def names(workers: Workers, *states: str) -> list[str]:
    return sorted(worker.name for worker in workers.all(*states))


def test_a_worker_is_entered_once_and_counts(workers: Workers) -> None:
    before = datetime.now(UTC)
    description = {"host": "node", "pid": "7"}
    for _ in range(2):  # the answer of the first was lost
        workers.add("a", description)
    workers.add("b", {})
    assert [workers.heartbeat("a") for _ in range(3)] == [True] * 3
    a, b = sorted(workers.all(), key=lambda worker: worker.name)
    assert (a.name, a.state, a.heartbeats, a.description, a.note) == ("a", RUNNING, 3, description, "")
    assert b.heartbeats == 0
    for moment in (a.since, a.seen, b.since):
        assert abs(moment - before) < timedelta(minutes=1)
    assert not workers.heartbeat("nobody")


def test_workers_of_another_study_are_not_seen(storage: RetryingStorage, workers: Workers) -> None:
    other = Workers(storage.engine, storage.retry, 2)
    workers.add("a", {})
    other.add("b", {})
    assert (names(workers), names(other)) == (["a"], ["b"])
    workers.forget()
    assert (names(workers), names(other)) == ([], ["b"])


def test_a_worker_ends_once_and_then_does_not_count(workers: Workers) -> None:
    for name in "abc":
        workers.add(name, {})
    assert workers.end("a")
    assert not workers.end("a", DEAD, "too late")
    assert not workers.heartbeat("a")
    workers.add("a", {})  # no way back in
    assert workers.end("b", DEAD, "gone")
    assert (names(workers, RUNNING), names(workers, ENDED), names(workers, DEAD)) == (["c"], ["a"], ["b"])
    assert [worker.note for worker in workers.all(ENDED, DEAD)] == ["", "gone"]


def test_a_worker_that_has_counted_on_is_not_ended(workers: Workers) -> None:
    workers.add("a", {})
    workers.heartbeat("a")
    assert not workers.end("a", DEAD, heartbeats=0)
    assert workers.heartbeat("a")
    assert workers.end("a", DEAD, heartbeats=2)


def test_looking_makes_no_table(storage: RetryingStorage, workers: Workers) -> None:
    assert workers.all() == []
    workers.forget()
    assert not has_tables(storage.engine)
    workers.add("a", {})
    assert has_tables(storage.engine)


def test_a_hundred_enter_an_empty_database_at_once(storage: RetryingStorage, place: Place) -> None:
    patience = Retry(60, lambda: "the database")
    with ExitStack() as stack, ThreadPoolExecutor(100) as pool:
        entering = []
        for i in range(100):
            engine = sqlalchemy.create_engine(storage.url, pool_size=1, max_overflow=0)
            stack.callback(engine.dispose)
            entering.append(pool.submit(Workers(engine, patience, 1).add, f"{i:03d}", {"host": "node"}))
        for worker in entering:
            worker.result(60)
    assert names(Workers(storage.engine, storage.retry, 1)) == [f"{i:03d}" for i in range(100)]


def test_an_account_that_may_make_no_tables_does_with_those_of_the_servers(
    mariadb_place: Place, mariadb: MariaDb
) -> None:
    """`services up` makes the table, also beside Optuna's of an older bdqm-tune."""
    open_storage(mariadb_place.stores).backend.close()
    mariadb.execute(
        "CREATE OR REPLACE USER modest@'%' IDENTIFIED BY 't0ps3cret' REQUIRE SSL",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {mariadb_place.schema}.* TO modest@'%'",
    )
    url = mariadb.url(mariadb_place.schema)
    modest = url.replace(f"worker:{mariadb.password}", "modest:t0ps3cret")
    storage = open_storage(replace(mariadb_place.stores, storage=modest)).backend
    workers = Workers(storage.engine, storage.retry, 1)
    with pytest.raises(BdqmError, match=r"lacks the table bdqm_workers, .*`bdqm-tune services up` make it") as raised:
        workers.add("a", {})
    assert "t0ps3cret" not in str(raised.value)
    assert [schema.state for schema in migrate(Request({"optuna": url}, "", "", upgrade=False))] == ["current"]
    workers.add("a", {})
    assert names(workers) == ["a"]


def test_new_servers_have_the_table(mariadb_place: Place, mariadb: MariaDb) -> None:
    url = mariadb.url(mariadb_place.schema)
    assert [schema.state for schema in migrate(Request({"optuna": url}, "", "", upgrade=False))] == ["made"]
    engine = sqlalchemy.create_engine(url)
    assert has_tables(engine)
    columns = {column["name"] for column in sqlalchemy.inspect(engine).get_columns(WORKERS.name)}
    assert columns == set(WORKERS.columns.keys())
    engine.dispose()
    storage = optuna.storages.RDBStorage(url)
    assert storage.get_current_version() == storage.get_head_version()
    storage.engine.dispose()


def worker_of(process: str) -> Worker:
    now = datetime.now(UTC)
    return Worker("a", RUNNING, 0, now, now, {"process": process}, "")


def test_this_process_describes_itself() -> None:
    found = describe_process()
    assert found["pid"] == str(os.getpid())
    assert found["process"] == process_identity() == process_identity()
    assert not worker_of(found["process"]).is_gone


def test_a_job_describes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "job" not in describe_process()
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert describe_process()["job"] == "4711"


def test_a_killed_process_of_this_machine_is_gone() -> None:
    code = "from bdqm_tune.process import process_identity; print(process_identity(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        worker = worker_of(process.stdout.readline().strip())
        assert not worker.is_gone
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert worker.is_gone, "it has ended, though nobody has asked for its status yet"
        process.wait()
        assert worker.is_gone


def test_of_other_machines_users_and_namespaces_nothing_is_known() -> None:
    machine, _, rest = process_identity().rpartition("/")
    boot, space, user = machine.split()
    pid, _, start = rest.partition("@")
    dead = f"{pid}@{int(start) - 1}"  # the same number, started earlier
    assert worker_of(f"{machine}/{dead}").is_gone
    for other in (f"other {space} {user}", f"{boot} pid:[1] {user}", f"{boot} {space} {int(user) + 1}"):
        assert not worker_of(f"{other}/{dead}").is_gone
    assert not worker_of("").is_gone
    assert not Worker("a", RUNNING, 0, datetime.now(UTC), datetime.now(UTC), {}, "").is_gone
