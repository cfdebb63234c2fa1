"""A lock that a MySQL or MariaDB server gives to one connection: kept alive, and checked before it is relied on."""

import threading
import time
from typing import Any

import pymysql

from bdqm_tune.errors import BdqmError

STEP = 10  # seconds that the server waits for the lock in one request
# The server gives the lock to others when its connection is silent for so many seconds: where a node was switched off,
# soon; where servers allow less silence, not while the process lives.
SILENCE = 120
PING = 5.0  # seconds between two signs of life


class LockLost(BdqmError):
    """The connection that held a lock was cut, and another process may have got it."""


class DatabaseLock:
    """Waits for the lock and holds it until it is closed; owns the connection.

    Args:
        connection: of the driver, used by nobody else.
        name: at most 64 characters.
        seconds: to wait for the lock.
        doing: what its holder does, for the message where it holds it longer.

    Raises:
        BdqmError: another process has the lock for longer.
        pymysql.MySQLError: the server does not answer.
    """

    def __init__(self, connection: Any, name: str, seconds: int, doing: str) -> None:
        self._connection, self._name = connection, name
        self._using = threading.Lock()  # the connection
        self._closed = threading.Event()
        try:
            self._query("SET SESSION wait_timeout = %s", SILENCE)
            begin = time.monotonic()  # a server may cut each wait short
            while not self._query("SELECT GET_LOCK(%s, %s)", name, min(STEP, seconds)):
                if time.monotonic() - begin >= seconds:
                    raise BdqmError(f"another process has been {doing} for {seconds} s; try again")
        except BaseException:
            connection.close()
            raise
        threading.Thread(target=self._keep_alive, name="lock", daemon=True).start()

    def check(self) -> None:
        """Check that the lock is still held, before doing what it protects.

        Raises:
            LockLost: it is not.
        """
        try:
            held = self._query("SELECT IS_USED_LOCK(%s) = CONNECTION_ID()", self._name)
        except (pymysql.MySQLError, OSError):
            held = None
        if not held:
            raise LockLost(
                "the database cut the connection that held this command's lock; start the same command again"
            )

    def close(self) -> None:
        """Release the lock, and close the connection."""
        self._closed.set()
        with self._using:
            self._connection.close()

    def _query(self, statement: str, *arguments: object) -> Any:
        """The first column of the first row, if there is one."""
        with self._using, self._connection.cursor() as cursor:
            cursor.execute(statement, arguments)
            row = cursor.fetchone()
        return row[0] if row else None

    def _keep_alive(self) -> None:
        while not self._closed.wait(PING):
            try:
                self._query("SELECT 1")
            except (pymysql.MySQLError, OSError):  # `check` will say so
                return
