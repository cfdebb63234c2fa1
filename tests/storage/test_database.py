"""The database of studies under trouble: a server that is killed and moves, lost answers, locks, and many workers."""

import inspect
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pymysql
import pytest
import sqlalchemy
import yaml
from optuna.storages import BaseStorage, RDBStorage
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from bdqm_tune.config.config import Config
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.optuna_private import CachedStorage
from bdqm_tune.storage import database as opening
from bdqm_tune.storage.cache import hurry
from bdqm_tune.storage.database import open_storage, opened, study_lock
from bdqm_tune.storage.queries import CLAIM_TOKEN
from bdqm_tune.storage.retrying_storage import RetryingStorage
from bdqm_tune.study.study import (
    SIGNATURE,
    add_trials,
    certainly_holds_claim,
    check_study,
    load_study,
    next_trial,
    open_study,
    requeued_on_error,
)
from bdqm_tune.tracking.client import tracking_client
from tests.forked import run
from tests.mariadb import MariaDb
from tests.marks import few
from tests.places import Place


@pytest.fixture
def served(mariadb_place: Place) -> Place:
    """A database of the servers, which the connection file names."""
    return mariadb_place


def new_study(storage: BaseStorage, n_trials: int = 0) -> optuna.Study:
    study = optuna.create_study(storage=storage, study_name="s", sampler=optuna.samplers.RandomSampler(seed=0))
    add_trials(study, n_trials)
    return study


def run_trial(study: optuna.Study) -> bool:
    """All that a worker does in a trial; False where none waits."""
    trial = next_trial(study)
    if trial is None:
        return False
    for name in "abc":
        trial.suggest_float(name, 0, 1)
    trial.report(0.5, 1)
    trial.set_user_attr("run", "id")
    trial.storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    study.tell(trial, 0.5)
    return True


def assert_all_done(stores: Stores, n_trials: int) -> None:
    trials = load_study(stores, "s").get_trials()
    assert [trial.number for trial in trials] == list(range(n_trials))
    for trial in trials:
        assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.5)
        assert trial.params.keys() == {"a", "b", "c"}
        assert (trial.intermediate_values, trial.user_attrs) == ({1: 0.5}, {"run": "id"})
        assert CLAIM_TOKEN not in trial.system_attrs


class TestConformance(StorageTestCase):
    """What Optuna expects of every storage."""

    @pytest.fixture
    def storage(self, workdir: Path) -> Iterator[BaseStorage]:
        with opening.opened(Stores(workdir)) as storage:
            yield storage

    # Neither is used here: pickled, or with other storages' ids.
    test_pickle_storage = None


def test_every_operation_of_a_storage_is_patient() -> None:
    asked = set(re.findall(r"self\._backend\.(\w+)", inspect.getsource(CachedStorage)))
    impatient = {name for name in asked if getattr(RetryingStorage, name) is getattr(RDBStorage, name)}
    assert impatient == {"get_heartbeat_interval", "get_heartbeat_stale_trial_callback"}  # no questions to the database
    assert len(asked) > 20


def test_a_study_is_run_on_every_kind_of_database(place: Place) -> None:
    study = new_study(open_storage(place.stores), 3)
    while run_trial(study):
        pass
    assert_all_done(place.stores, 3)


def test_a_server_that_is_killed_and_comes_back_elsewhere_is_followed(
    served: Place, mariadb: MariaDb, caplog: pytest.LogCaptureFixture
) -> None:
    study = new_study(open_storage(served.stores, retry_timeout=60), 40)
    passwords = [mariadb.password]

    def work() -> None:
        while run_trial(study):
            pass

    with ThreadPoolExecutor() as pool:
        worker = pool.submit(work)
        time.sleep(0.5)
        mariadb.kill()
        assert served.stores.connection_file is not None
        served.stores.connection_file.unlink()
        time.sleep(1.5)
        mariadb.start()
        served.announce()
        passwords.append(mariadb.password)
        worker.result(timeout=60)
    assert_all_done(served.stores, 40)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("bdqm_tune")]
    assert len(messages) == 2
    assert re.search(r"^the study database .* does not answer \(.+\); waiting up to 60 s$", messages[0])
    assert re.search(rf"127\.0\.0\.1:{mariadb.port}/.* answers again after \d+ s$", messages[1])
    assert not any(password in caplog.text for password in passwords)


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_that_is_lost_does_no_harm(served: Place, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """The connection breaks after four in ten commits are made, before their answer arrives."""
    study = new_study(open_storage(served.stores, retry_timeout=30))
    commit, random, lost = pymysql.connections.Connection.commit, Random(seed), []

    def commit_and_break(self: Any) -> None:
        commit(self)
        if random.random() < 0.4:
            lost.append(self)
            self._force_close()
            raise pymysql.OperationalError(2013, "Lost connection to MySQL server during query")

    monkeypatch.setattr("optuna.storages._rdb.storage.time.sleep", lambda seconds: None)
    monkeypatch.setattr(pymysql.connections.Connection, "commit", commit_and_break)
    add_trials(study, 6, [{"a": 0.25}])
    while run_trial(study):
        pass
    monkeypatch.setattr(pymysql.connections.Connection, "commit", commit)
    assert len(lost) > 15
    assert_all_done(served.stores, 6)
    assert load_study(served.stores, "s").trials[0].params["a"] == 0.25


def test_a_trial_that_another_worker_took_is_not_taken_twice(place: Place) -> None:
    study = new_study(open_storage(place.stores), 1)
    other = open_storage(place.stores)
    trial = next_trial(study)
    assert trial is not None
    assert not other.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
    study.tell(trial, 1.0)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        other.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])


def test_a_claim_is_not_taken_for_held_where_the_connection_broke(served: Place, mariadb: MariaDb) -> None:
    """As of a worker that was suspended while its trial was requeued and the database was started again."""
    study = new_study(open_storage(served.stores, 30), 1)
    trial, backend = next_trial(study), study._storage.backend  # type: ignore[attr-defined]
    assert trial is not None
    backend.certainly_alive = lambda: False
    assert certainly_holds_claim(trial)
    other = open_storage(served.stores, 30)
    (claim,) = other.backend.running(study._study_id)
    assert other.backend.requeue(claim, TrialState.WAITING, {})
    assert other.take_waiting(study._study_id) == trial._trial_id
    connection = backend.engine.raw_connection()
    connection.driver_connection._force_close()
    connection.close()
    assert not certainly_holds_claim(trial)
    backend.retry.seconds = 0.5
    backend._held[trial._trial_id] = "a token"
    mariadb.kill()
    assert not certainly_holds_claim(trial)
    mariadb.start()


def test_a_lock_wait_timeout_is_waited_out(served: Place, mariadb: MariaDb) -> None:
    study = new_study(open_storage(served.stores, retry_timeout=30), 1)
    mariadb.execute("SET GLOBAL innodb_lock_wait_timeout = 1")
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    with closing(mariadb.connect()) as holder, ThreadPoolExecutor() as pool:
        holder.begin()
        holder.cursor().execute(f"SELECT * FROM {served.schema}.trials FOR UPDATE")
        taking = pool.submit(next_trial, study)
        time.sleep(1.5)
        assert not taking.done()
        holder.rollback()
        assert taking.result(timeout=20) is not None
    mariadb.execute("SET GLOBAL innodb_lock_wait_timeout = 50")


def test_a_deadlock_is_repeated(served: Place, mariadb: MariaDb) -> None:
    def deadlocks() -> int:
        with closing(mariadb.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
            return int(cursor.fetchone()[1])

    study = new_study(open_storage(served.stores, retry_timeout=30), 1)
    trial, before = next_trial(study), deadlocks()
    assert trial is not None
    with closing(mariadb.connect()) as other, other.cursor() as cursor, ThreadPoolExecutor() as pool:
        cursor.execute(f"USE {served.schema}")
        other.begin()
        # The one that has written more survives.
        cursor.executemany("INSERT INTO studies (study_name) VALUES (%s)", [(f"other {i}",) for i in range(100)])
        cursor.execute("SELECT * FROM trials LOCK IN SHARE MODE")
        telling = pool.submit(study.tell, trial, 0.5)
        time.sleep(0.5)
        cursor.execute("UPDATE trials SET datetime_start = NOW()")
        other.rollback()
        telling.result(timeout=20)
    assert deadlocks() == before + 1
    assert load_study(served.stores, "s").trials[0].state == TrialState.COMPLETE


def test_a_trial_taken_between_a_look_and_the_taking_is_left(place: Place) -> None:
    study = new_study(open_storage(place.stores), 2)
    other, storage = open_storage(place.stores), study._storage
    (first,) = storage.backend.waiting(study._study_id, 1)  # type: ignore[attr-defined]
    assert other.set_trial_state_values(first, TrialState.RUNNING)
    assert not storage.set_trial_state_values(first, TrialState.RUNNING)
    trial = next_trial(study)
    assert trial is not None
    assert trial.number == 1


def test_a_server_that_isolates_snapshots_is_asked_again(
    served: Place, mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses a row that changed since the transaction read it; the default of newer versions."""
    mariadb.execute(
        "SET GLOBAL innodb_snapshot_isolation = ON", "SET GLOBAL TRANSACTION ISOLATION LEVEL REPEATABLE READ"
    )
    try:
        study = new_study(open_storage(served.stores, retry_timeout=30), 1)
        trial, begun = next_trial(study), list[int]()
        assert trial is not None

        def change(session: object) -> None:
            begun.append(1)
            if len(begun) == 1:
                mariadb.execute(f"UPDATE {served.schema}.trials SET datetime_start = '2026-01-01'")

        monkeypatch.setattr(study._storage.backend, "_begin_writing", change)  # type: ignore[attr-defined]
        trial.report(0.5, 1)
    finally:
        mariadb.execute(
            "SET GLOBAL innodb_snapshot_isolation = OFF", "SET GLOBAL TRANSACTION ISOLATION LEVEL READ COMMITTED"
        )
    assert len(begun) == 2
    assert study.trials[0].intermediate_values == {1: 0.5}


def test_a_server_that_cannot_prove_who_it_is_is_refused(served: Place, mariadb: MariaDb) -> None:
    open_storage(replace(served.stores, storage=mariadb.url(served.schema)))
    for url, problem in (
        (mariadb.url(served.schema, ca="other.pem"), "certificate verify failed"),
        (mariadb.url(served.schema, host="localhost"), "certificate is not valid for 'localhost'"),
    ):
        with pytest.raises(BdqmError, match=problem) as raised:
            open_storage(replace(served.stores, storage=url))
        assert mariadb.password not in str(raised.value)


def test_a_database_that_is_not_there_is_told_with_its_address(
    served: Place, mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "SERVERS_TIMEOUT", 0.3)
    monkeypatch.setattr(opening, "OTHER_TIMEOUT", 0.3)
    given = Stores(Path(), "mysql+pymysql://me:secret@127.0.0.1:1/optuna")
    with pytest.raises(BdqmError, match=r"me:\*\*\*@127\.0\.0\.1:1/optuna: .*refused") as raised:
        open_storage(given)
    assert "secret" not in str(raised.value)
    assert "services up" not in str(raised.value)
    assert raised.value.exit_code == 1
    with pytest.raises(BdqmError, match="refused"), study_lock(given, "s"):
        pass

    server = replace(mariadb_at(mariadb, 1), schema=served.schema, stores=served.stores)
    server.announce()
    with pytest.raises(BdqmError, match=r"127\.0\.0\.1:1/.*refused.*`bdqm-tune services up` starts it") as raised:
        open_storage(served.stores)
    assert mariadb.password not in str(raised.value)
    assert served.stores.connection_file is not None
    served.stores.connection_file.unlink()
    with pytest.raises(BdqmError, match="servers are down.*services up"):
        open_storage(served.stores)


def mariadb_at(server: MariaDb, port: int) -> Place:
    moved = object.__new__(MariaDb)
    moved.folder, moved.password, moved.port = server.folder, server.password, port
    return Place(Stores(Path()), moved)


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        ("v99.0.0.a", r"is Optuna 99\.0's, newer than .*`pip install --upgrade optuna`"),
        ("v3.0.0.d", r"is Optuna 99\.0's, older than .*`optuna storage upgrade --storage"),
    ],
)
def test_tables_of_another_version_are_refused(workdir: Path, revision: str, message: str) -> None:
    stores = Stores(workdir)
    open_storage(stores)
    engine = sqlalchemy.create_engine(stores.storage_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
        connection.exec_driver_sql("UPDATE version_info SET library_version = '99.0'")
    with pytest.raises(BdqmError, match=message):
        open_storage(stores)


def test_the_servers_tables_are_upgraded_by_services_up(served: Place, mariadb: MariaDb) -> None:
    open_storage(served.stores)
    mariadb.execute(f"UPDATE {served.schema}.alembic_version SET version_num = 'v3.0.0.d'")
    with pytest.raises(BdqmError, match="older than .*`bdqm-tune services up`"):
        open_storage(served.stores)


def test_what_is_no_url_is_bad_input(workdir: Path) -> None:
    with pytest.raises(BadInput, match="no SQLAlchemy URL"):
        open_storage(Stores(workdir, "secret"))


def test_workers_need_no_right_to_make_tables(served: Place, mariadb: MariaDb) -> None:
    open_storage(served.stores)
    mariadb.execute(
        "CREATE OR REPLACE USER modest@'%' IDENTIFIED BY 'p' REQUIRE SSL",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {served.schema}.* TO modest@'%'",
    )
    url = mariadb.url(served.schema).replace(f"worker:{mariadb.password}", "modest:p")
    stores = replace(served.stores, storage=url)
    with study_lock(stores, "s"):
        study = new_study(open_storage(stores), 1)
    assert run_trial(study)
    assert_all_done(served.stores, 1)


def test_a_worker_holds_two_connections_at_most(served: Place, mariadb: MariaDb) -> None:
    storage, most = open_storage(served.stores), [0]
    study = new_study(storage, 16)
    watched = threading.Event()

    def watch() -> None:
        with closing(mariadb.connect()) as connection, connection.cursor() as cursor:
            while not watched.wait(0.01):
                cursor.execute("SELECT COUNT(*) FROM information_schema.processlist WHERE db = %s", (served.schema,))
                most[0] = max(most[0], cursor.fetchone()[0])

    with ThreadPoolExecutor(9) as pool:
        watching = pool.submit(watch)
        try:
            for worker in [pool.submit(lambda: [run_trial(study) for _ in range(2)]) for _ in range(8)]:
                worker.result(60)
        finally:
            watched.set()
        watching.result(10)
    assert most == [2]
    assert_all_done(served.stores, 16)


# Imports once, and then forks n processes that begin at the same moment; each writes to a file of its own.
FORKS = """
import os, sys, time, traceback
from pathlib import Path
import optuna
from bdqm_tune.config.config import load_config
from bdqm_tune.storage.database import open_storage, study_lock
from bdqm_tune.study.study import next_trial
from bdqm_tune.tuning.tune import tune
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import Stores
stores, children, (waiting, begin) = {stores}, [], os.pipe()
for number in range({n}):
    child = os.fork()
    children.append(child)
    if child == 0:
        status = 1
        try:
            os.close(begin)
            os.dup2(os.open(f"output-{{number}}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            os.read(waiting, 1)  # until all are there
            exec(compile({code!r}, "code", "exec"))
            sys.stdout.flush()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
os.close(begin)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def processes(code: str, n: int, stores: Stores, timeout: float = 120) -> list[str]:
    """What each of n processes prints that run the code, with `stores`, at the same time; all must succeed."""
    file = f"Path({str(stores.connection_file)!r})" if stores.connection_file else None
    shown = f"Stores(Path({str(stores.home)!r}), {stores.storage!r}, None, {file})"
    script = FORKS.format(stores=shown, n=n, code=code)
    done = run(["-c", script], timeout=timeout)
    assert done.returncode == 0, f"{done.returncode} failed\n{done.stderr}"
    return [Path(f"output-{number}").read_text() for number in range(n)]


@pytest.mark.parametrize("n", [8, pytest.param(100, marks=pytest.mark.soak)])
def test_processes_at_an_empty_database_do_no_harm(place: Place, n: int) -> None:
    code = """
storage = open_storage(stores)
with study_lock(stores, "s"):
    study = optuna.create_study(study_name="s", storage=storage, load_if_exists=True)
study.enqueue_trial({})
"""
    processes(code, n, place.stores, timeout=300)
    study = load_study(place.stores, "s")
    assert [trial.number for trial in study.trials] == list(range(n))
    with open_storage(place.stores).backend.engine.connect() as connection:
        for table in ("alembic_version", "version_info", "studies"):
            assert connection.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar() == 1


def test_processes_take_every_trial_once_and_turns_one_after_the_other(place: Place, workdir: Path) -> None:
    new_study(open_storage(place.stores), 20)
    code = """
with study_lock(stores, "s"):
    begin = time.time(); time.sleep(0.1); end = time.time()
study = optuna.load_study(study_name="s", storage=open_storage(stores))
taken = []
while (trial := next_trial(study)) is not None:
    taken.append(trial.number)
    study.tell(trial, 1.0)
print(begin, end, taken)
"""
    outputs = [output.split(maxsplit=2) for output in processes(code, 4, place.stores)]
    turns = sorted((float(begin), float(end)) for begin, end, _ in outputs)
    assert all(turns[i][1] <= turns[i + 1][0] for i in range(3))
    taken = [number for *_, numbers in outputs for number in yaml.safe_load(numbers)]
    assert sorted(taken) == list(range(20))


@pytest.mark.soak
def test_sixty_four_workers_at_once(served: Place) -> None:
    new_study(open_storage(served.stores), 96)
    barrier = threading.Barrier(64)

    def work() -> int:
        storage = open_storage(served.stores, retry_timeout=60)
        barrier.wait()
        study = optuna.load_study(study_name="s", storage=storage, sampler=optuna.samplers.RandomSampler())
        done = 0
        while run_trial(study):
            done += 1
        storage._backend.close()
        return done

    with ThreadPoolExecutor(64) as pool:
        done = [worker.result() for worker in [pool.submit(work) for _ in range(64)]]
    assert sum(done) == 96
    assert_all_done(served.stores, 96)


def test_the_cache_shows_what_is_in_the_database(place: Place) -> None:
    """Trials that did not change are not read again, and yet each change is seen."""
    ours, theirs = open_storage(place.stores), open_storage(place.stores)
    study = new_study(theirs, 4)
    watching = optuna.load_study(study_name="s", storage=ours)

    def assert_same() -> None:
        plain = RDBStorage(theirs._backend.url, theirs._backend.engine_kwargs)
        truth = plain.get_all_trials(study._study_id)
        seen = watching.get_trials()
        assert [(t.number, t.state) for t in seen] == [(t.number, t.state) for t in truth]
        for trial, true in zip(seen, truth, strict=True):
            true._system_attrs.pop(CLAIM_TOKEN, None)
            assert trial == true or true.state == TrialState.WAITING
        plain.engine.dispose()

    assert_same()
    trial = next_trial(study)
    assert trial is not None
    assert_same()
    trial.suggest_float("a", 0, 1)
    assert_same()
    trial.report(0.5, 1)
    assert_same()
    trial.set_user_attr("run", "id")
    assert_same()
    with pytest.raises(RuntimeError), requeued_on_error(trial):
        raise RuntimeError
    assert_same()
    again = next_trial(study)
    assert again is not None
    assert again.params == trial.params
    add_trials(study, 2)
    assert_same()
    study.tell(again, 1.0)
    assert_same()
    while run_trial(study):
        assert_same()


def test_a_trial_of_ten_thousand_is_taken_as_one_of_ten(place: Place) -> None:
    """By as many questions, whose answers are as long."""
    storage = open_storage(place.stores)
    rows: dict[str, list[int]] = {}
    for name, n_trials in (("few", 10), ("many", 10_000)):
        study = optuna.create_study(storage=storage, study_name=name, sampler=optuna.samplers.RandomSampler())
        add_trials(study, n_trials)
        asked = rows[name] = []
        listening = (
            storage.backend.engine,
            "after_cursor_execute",
            lambda c, cursor, *_, a=asked: a.append(cursor.rowcount),
        )
        next_trial(study)
        sqlalchemy.event.listen(*listening)
        trial = next_trial(study)
        sqlalchemy.event.remove(*listening)
        assert trial is not None
        assert trial.number == 1
        assert [trial.number for trial in study.get_trials(deepcopy=False)] == list(range(n_trials))
    assert rows["few"] == rows["many"] != []


def test_workers_that_want_the_same_trial_look_further(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = open_storage(place.stores), open_storage(place.stores)
    study = new_study(ours, 4)
    waiting, looks = ours.backend.waiting, []

    def first_is_taken(study_id: int, most: int) -> list[int]:
        found = waiting(study_id, most)
        looks.append(len(found))
        theirs.take_waiting(study_id)
        return found

    monkeypatch.setattr(ours.backend, "waiting", first_is_taken)
    monkeypatch.setattr("random.choice", lambda found: found[-1])
    trial = next_trial(study)
    assert trial is not None
    assert looks == [1, 2]  # of the second, the other worker took the first
    assert trial.number == 2
    assert [one.state for one in study.get_trials()] == [TrialState.RUNNING] * 3 + [TrialState.WAITING]


def test_a_database_that_stays_away_ends_the_worker_with_one_line(served: Place, mariadb: MariaDb) -> None:
    study = new_study(open_storage(served.stores, retry_timeout=0.5), 1)
    mariadb.kill()
    with pytest.raises(BdqmError, match=rf"worker:\*\*\*@127\.0\.0\.1:{mariadb.port}/.* failed: .*refused") as raised:
        next_trial(study)
    assert isinstance(raised.value, optuna.exceptions.StorageInternalError)
    assert mariadb.password not in str(raised.value)
    mariadb.start()


def test_a_worker_that_ends_does_not_wait_for_a_database_that_is_away(
    served: Place, mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bdqm_tune.storage.retry.HURRY", 0.5)
    study = new_study(open_storage(served.stores, retry_timeout=1000), 1)
    trial = next_trial(study)
    assert trial is not None
    mariadb.kill()
    with pytest.raises(KeyboardInterrupt), requeued_on_error(trial):
        raise KeyboardInterrupt
    assert "trial 0 could not be requeued" in caplog.text
    mariadb.start()


def test_a_locked_file_is_waited_for(workdir: Path) -> None:
    stores = Stores(workdir, f"sqlite:///{workdir}/optuna.db?timeout=0.1")
    study = new_study(open_storage(stores, retry_timeout=30), 1)
    with sqlite3.connect(workdir / "optuna.db", isolation_level=None) as other, ThreadPoolExecutor() as pool:
        other.execute("BEGIN IMMEDIATE")
        taking = pool.submit(next_trial, study)
        time.sleep(0.5)
        assert not taking.done()
        other.rollback()
        assert taking.result(20) is not None


def test_hurrying_shortens_patience_and_never_lengthens_it(workdir: Path) -> None:
    storage = open_storage(Stores(workdir), 100)
    hurry(storage)
    assert storage._backend.retry.seconds == 5
    storage._backend.retry.seconds = 1
    hurry(storage)
    assert storage._backend.retry.seconds == 1
    hurry(optuna.storages.InMemoryStorage())


@pytest.mark.parametrize("place", few(["mariadb"], ["sqlite"]), indirect=True)
def test_four_workers_at_once_make_one_study(place: Place, configure: Callable[..., Config], workdir: Path) -> None:
    config = configure(study={"n_trials": 2, "sampler": "random", "pruner": "none"}, training={"epochs": 2})
    (workdir / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    stores = place.stores
    if place.server is not None:
        stores = replace(stores, storage=place.server.url(place.schema), connection_file=None)
    code = """
config = load_config("config.yaml")
tune(prepare(config, stores.home), config, stores)
"""
    tracking_client(stores).search_experiments()  # so that MLflow's tables are there, whose making is its own affair
    processes(code, 4, stores)
    study = load_study(stores, "small")
    trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 8
    assert ["fixed_params" in trial.system_attrs for trial in trials] == [True] + [False] * 7
    assert study.user_attrs[SIGNATURE]["training"]["epochs"] == 2


def test_a_study_is_there_whole_or_not_at_all(configure: Callable[..., Config], place: Place) -> None:
    config = configure(study={"name": "s"})
    dataset = prepare(config, place.stores.home)
    open_storage(place.stores)
    looks, seen = [False], set[bool]()

    def look(_: sqlalchemy.Connection) -> None:
        if looks[0]:
            return
        looks[0] = True
        check_study(place.stores, config, dataset)  # as another worker does that starts at this moment
        with opened(place.stores) as storage:
            seen.add(bool(storage.get_all_studies()))
        looks[0] = False

    sqlalchemy.event.listen(sqlalchemy.Engine, "begin", look)
    try:
        open_study(place.stores, config, dataset)
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "begin", look)
    assert seen == {False, True}
