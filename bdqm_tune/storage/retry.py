"""Retries with back-off while a database does not answer: which errors are transient, and what is logged."""

import logging
import sqlite3
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import pymysql
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError, TimeoutError

from bdqm_tune.backoff import pauses
from bdqm_tune.errors import DISK_FULL, is_disk_full, one_line
from bdqm_tune.progress import told_to_end
from bdqm_tune.services.secrets import without_secrets

Answer = TypeVar("Answer")

# MySQL's numbers for: too many connections, and more of them, or of queries in an hour, than an account may have.
FULL = {1040, 1203, 1226}
POSTGRES_DRIVERS = ("psycopg2", "psycopg")
POSTGRES_FULL = "53300"
# For: serialisation failure, deadlock, disk full, lock not available, shutting down, crashed, starting up.
POSTGRES_PASSING = {"40001", "40P01", "53100", POSTGRES_FULL, "55P03", "57P01", "57P02", "57P03"}
POSTGRES_CONNECTION = "08"  # the class of the codes of broken connections
# PostgreSQL's words where it refuses a connection, for which drivers give no number.
POSTGRES_SAYS = ("too many clients", "too many connections for", "remaining connection slots are reserved")
# How MySQL and MariaDB say that a column lacks a character: when it is compared, and when it is written.
SAY_CHARACTERS = ("Illegal mix of collations", "Incorrect string value", "Cannot convert string")
UTF8MB4 = (
    "the tables are not in utf8mb4, and lack a character of this text: take a new database, made by `CREATE DATABASE "
    "name CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`, or a name without that character"
)
POSTGRES_SAYS_CHARACTERS = "has no equivalent in encoding"
UTF8 = (
    "the database is not in UTF8, and lacks a character of this text: take a new one, made by `CREATE DATABASE name "
    "ENCODING 'UTF8' TEMPLATE template0`, or a name without that character"
)
FEWER = "a worker has up to three connections: let fewer run at once, or let the limit be raised"
# For: a row that changed since the transaction read it, shutting down, lock wait timeout, deadlock, connection killed,
# no server at the socket or the address, connection lost before and during a query.
PASSING = {1020, 1053, 1205, 1213, 1927, 2002, 2003, 2006, 2013} | FULL
WRONG_PASSWORD = 1045
FIRST_WAIT, LONGEST_WAIT = 0.02, 10.0  # seconds between two attempts
HURRY = 5.0  # retry timeout (s), at most, of a process that is about to end
WARN_AFTER = 0.3  # seconds; a deadlock is over before

_log = logging.getLogger(__name__)


@dataclass
class Retry:
    """Retries a function with exponential back-off while its database does not answer.

    The function must be idempotent: it is called again after an answer that was lost on its way.
    """

    seconds: float  # retry timeout: from the first failure of a call to its last
    name: Callable[[], str]  # what is waited for, without a password; it may move
    follows: bool = False  # the password may change too, and is read again for every connection
    full: float = 0.0  # retry timeout (s), if longer, while the server answers that it has no connection left
    _warned: bool = field(default=False, init=False)
    _thread: threading.local = field(default_factory=threading.local, init=False)

    def __call__(self, call: Callable[[], Answer]) -> Answer:
        """The result of the call. Raises the error of the last attempt after the retry timeout."""
        if getattr(self._thread, "busy", False):  # a call within a call, which is the one to be repeated
            return call()
        self._thread.busy = True
        try:
            return self._call(call)
        finally:
            self._thread.busy = False

    def hurry(self) -> None:
        """Shorten the retry timeout to a few seconds."""
        self.seconds = min(self.seconds, HURRY)

    def _call(self, call: Callable[[], Answer]) -> Answer:
        start, waits = 0.0, pauses(FIRST_WAIT, LONGEST_WAIT)
        while True:
            try:
                answer = call()
            except database_errors() as error:
                now = time.monotonic()
                start = start or now
                problem = passing(error, self.follows)
                seconds = max(self.seconds, self.full) if is_full(error) else self.seconds
                if told_to_end.is_set():
                    seconds = min(seconds, HURRY)
                if problem is None or now - start >= seconds:
                    raise
            else:
                if start and self._warned:
                    self._warned = False
                    _log.warning("%s answers again after %.0f s", self.name(), time.monotonic() - start)
                return answer
            if now - start > WARN_AFTER and not self._warned:
                self._warned = True
                trouble = f": {DISK_FULL}" if problem == DISK_FULL else f" does not answer ({problem})"
                _log.warning("%s%s; waiting %s", self.name(), trouble, duration(seconds))
            pause = min(next(waits), start + seconds - now)
            if told_to_end.is_set():
                time.sleep(pause)
            else:
                told_to_end.wait(pause)


def passing(error: BaseException | None, follows: bool = False) -> str | None:
    """The message of a transient error, after which a retry may succeed; None for any other.

    Args:
        follows: a wrong password is transient, too.
    """
    while error is not None:
        # A second query of a session whose connection was lost in the first; the next session has a new one.
        if isinstance(error, PendingRollbackError):
            return "connection lost"
        if isinstance(error, TimeoutError):
            return "no connection is free"
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(getattr(cause, "original_exception", None), ssl.SSLError) and not follows:
            return None
        if isinstance(cause, pymysql.MySQLError) and (
            isinstance(cause, pymysql.err.InterfaceError)  # the connection is closed
            or cause.args[0] in PASSING
            or (follows and cause.args[0] == WRONG_PASSWORD)
        ):
            return reason(cause)
        if isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode in (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
            sqlite3.SQLITE_FULL,
        ):
            return reason(cause)
        if is_full(error) or _passes_in_postgresql(cause):
            return reason(error)
        error = error.__cause__
    return None


def database_errors() -> tuple[type[Exception], ...]:
    """What Optuna, SQLAlchemy and those drivers raise that were imported."""
    postgresql = [sys.modules[name].Error for name in POSTGRES_DRIVERS if name in sys.modules]
    return (StorageInternalError, SQLAlchemyError, pymysql.MySQLError, *postgresql)


def postgresql_code(error: BaseException | None) -> str:
    """PostgreSQL's code of an error of its driver; "" if it has none."""
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""


def _passes_in_postgresql(error: BaseException | None) -> bool:
    if type(error).__module__.partition(".")[0] not in POSTGRES_DRIVERS:
        return False
    code = postgresql_code(error)
    if not code:  # no connection, or it broke; drivers do not tell this from one that was refused
        return type(error).__name__ in ("OperationalError", "InterfaceError")
    return code in POSTGRES_PASSING or code.startswith(POSTGRES_CONNECTION)


def is_full(error: BaseException | None) -> bool:
    """Whether the server answered that it, or the account, has no connection left."""
    while error is not None:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, pymysql.MySQLError) and cause.args and cause.args[0] in FULL:
            return True
        if postgresql_code(cause) == POSTGRES_FULL:
            return True
        if isinstance(error, DBAPIError) and any(text in str(cause) for text in POSTGRES_SAYS):
            return True
        error = error.__cause__
    return False


def reason(error: BaseException) -> str:
    """The message of the database or its driver, in one line, and what to do where that is known."""
    if is_disk_full(error):
        return DISK_FULL
    hint = f"; {FEWER}" if is_full(error) else ""
    while error.__cause__ is not None:
        error = error.__cause__
    message = one_line(Exception(error.args[-1]) if isinstance(error, pymysql.MySQLError) else error)
    return without_secrets(message) + (hint or characters_hint(error))


def characters_hint(error: BaseException) -> str:
    """What to do where a database lacks the characters of a text; "" for any other error."""
    if POSTGRES_SAYS_CHARACTERS in str(error):
        return f"; {UTF8}"
    return f"; {UTF8MB4}" if any(text in str(error) for text in SAY_CHARACTERS) else ""


def duration(seconds: float) -> str:
    """A waiting time as text: `up to 30 s`."""
    return f"up to {seconds / 60:.0f} min" if seconds >= 120 else f"up to {seconds:.0f} s"
