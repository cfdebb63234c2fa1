"""How long and how often a database that does not answer is asked again."""

import time
from concurrent.futures import ThreadPoolExecutor

import pymysql
import pytest

from bdqm_tune.progress import told_to_end
from bdqm_tune.storage.retry import Retry


def test_the_end_of_patience(caplog: pytest.LogCaptureFixture) -> None:
    attempts: list[float] = []

    def fail() -> None:
        attempts.append(time.monotonic())
        raise pymysql.OperationalError(2003, "Can't connect to MySQL server on 'node7'")

    with pytest.raises(pymysql.OperationalError, match="node7"):
        Retry(1.5, lambda: "the database")(fail)
    assert attempts[1] - attempts[0] < 0.1
    assert 1.4 < attempts[-1] - attempts[0] < 2.5
    assert 5 < len(attempts) < 15
    assert [record.getMessage() for record in caplog.records] == [
        "the database does not answer (Can't connect to MySQL server on 'node7'); waiting up to 2 s"
    ]


@pytest.mark.parametrize(
    "error", [pymysql.OperationalError(1045, "denied"), pymysql.ProgrammingError(1146, "no table")]
)
def test_what_waiting_does_not_mend_is_told_at_once(error: pymysql.MySQLError) -> None:
    def fail() -> None:
        raise error

    begin = time.monotonic()
    with pytest.raises(pymysql.MySQLError):
        Retry(10, lambda: "")(fail)
    assert time.monotonic() - begin < 0.5


def test_a_call_within_a_call_does_not_wait_for_itself() -> None:
    patience, calls = Retry(0.3, lambda: ""), []

    def inner() -> None:
        calls.append(time.monotonic())
        raise pymysql.OperationalError(2013, "lost")

    with pytest.raises(pymysql.OperationalError):
        patience(lambda: patience(inner))
    assert calls[-1] - calls[0] < 0.4


def test_a_process_that_was_told_to_end_does_not_wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of its threads it is that waits."""
    monkeypatch.setattr("bdqm_tune.storage.retry.HURRY", 0.3)

    def fail() -> None:
        raise pymysql.OperationalError(2003, "refused")

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Retry(600, lambda: "the database"), fail)
        time.sleep(1)
        assert not waiting.done()
        told_to_end.set()
        try:
            assert isinstance(waiting.exception(5), pymysql.OperationalError)
        finally:
            told_to_end.clear()
