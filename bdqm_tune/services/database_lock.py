"""A lock that a database server gives to one connection: kept alive, and checked before it is relied on."""

import hashlib
import threading
import time
from contextlib import closing
from typing import Any

from bdqm_tune.errors import BdqmError

STEP = 10  # seconds that the server waits for the lock in one request
# The server gives the lock to others when its connection is silent for so many seconds: where a node was switched off,
# soon; where servers allow less silence, not while the process lives.
SILENCE = 120
LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's code for: waited for as long as `lock_timeout` says
PING = 5.0  # seconds between two signs of life


class LockLost(BdqmError):
    """The connection that held a lock was cut, and another process may have got it."""


class DatabaseLock:
    """Waits for the lock and holds it until it is closed; owns the connection. For MySQL and MariaDB.

    Args:
        connection: of the driver, used by nobody else.
        name: at most 64 characters.
        seconds: to wait for the lock.
        doing: what its holder does, for the message where it holds it longer.

    Raises:
        BdqmError: another process has the lock for longer.
        Exception: the driver's error, the server does not answer.
    """

    def __init__(self, connection: Any, name: str, seconds: int, doing: str) -> None:
        self._connection, self._name = connection, name
        self._using = threading.Lock()  # the connection
        self._closed = threading.Event()
        try:
            self._begin()
            begin = time.monotonic()  # a server may cut each wait short
            while not self._wait(min(STEP, seconds)):
                if time.monotonic() - begin >= seconds:
                    raise BdqmError(f"another process has been {doing} for {seconds} s; try again")
        except BaseException:
            connection.close()
            raise
        threading.Thread(target=self._keep_alive, name="lock", daemon=True).start()

    def _begin(self) -> None:
        """Prepare the connection."""
        self._query("SET SESSION wait_timeout = %s", SILENCE)

    def _wait(self, seconds: float) -> bool:
        """Wait for the lock; False if it is not ours after that number of seconds."""
        return bool(self._query("SELECT GET_LOCK(%s, %s)", self._name, seconds))

    def _is_held(self) -> bool:
        return bool(self._query("SELECT IS_USED_LOCK(%s) = CONNECTION_ID()", self._name))

    def check(self) -> None:
        """Check that the lock is still held, before doing what it protects.

        Raises:
            LockLost: it is not.
        """
        try:
            held = self._is_held()
        except (self._connection.Error, OSError):
            held = False
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
        with self._using, closing(self._connection.cursor()) as cursor:
            cursor.execute(statement, arguments)
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def _keep_alive(self) -> None:
        while not self._closed.wait(PING):
            try:
                self._query("SELECT 1")
            except (self._connection.Error, OSError):  # `check` will say so
                return


class PostgreSqlLock(DatabaseLock):
    """The same for PostgreSQL: an advisory lock of the session, known by a number instead of a name."""

    def _begin(self) -> None:
        self._connection.autocommit = True
        self._key = int.from_bytes(hashlib.sha256(self._name.encode()).digest()[:8], signed=True)
        # The server itself finds out that a node was switched off.
        for setting, value in {"idle": SILENCE // 2, "interval": SILENCE // 12, "count": 6}.items():
            self._query("SELECT set_config(%s, %s, false)", f"tcp_keepalives_{setting}", str(value))

    def _wait(self, seconds: float) -> bool:
        self._query("SELECT set_config('lock_timeout', %s, false)", f"{seconds}s")
        try:
            self._query("SELECT pg_advisory_lock(%s)", self._key)
        except self._connection.OperationalError as error:
            if LOCK_NOT_AVAILABLE in (getattr(error, "sqlstate", None), getattr(error, "pgcode", None)):
                return False
            raise
        return True

    def _is_held(self) -> bool:
        """Whether this session has it, as the only lock of its kind that it ever gets."""
        mine = "locktype = 'advisory' AND granted AND pid = pg_backend_pid()"
        return bool(self._query(f"SELECT count(*) FROM pg_locks WHERE {mine}"))  # nosec B608  # a constant
