"""Opening the database of studies: its current address, its tables, and locks on a study."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import pymysql
import sqlalchemy
from alembic.runtime.migration import MigrationContext

from bdqm_tune.errors import BdqmError
from bdqm_tune.files import locked
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.database_lock import DatabaseLock, PostgreSqlLock
from bdqm_tune.services.database_urls import parse_storage_url
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.storage.cache import Cache
from bdqm_tune.storage.retry import Retry, database_errors, reason
from bdqm_tune.storage.retrying_storage import RetryingStorage

SERVERS_TIMEOUT, OTHER_TIMEOUT = 30.0, 5.0  # retry timeouts (s) when a database is opened: ours, and a given one
# Seconds that a driver waits for a connection and for an answer. Of PostgreSQL, after which a server whose machine does
# not answer any more is given up: 30 s of silence and three probes, or data without a receipt, this in ms.
MYSQL_OPTIONS = {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60}
POSTGRESQL_OPTIONS = {
    "client_encoding": "utf8",  # whatever the database is in: a driver that encodes for it fails with a traceback
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
NO_LOCKS_REMEDY = "set BDQM_HOME to a folder on another one, or let `bdqm-tune services up` start servers"
RECYCLE = 1800  # seconds after which a connection is replaced
LOCK_SECONDS = 600  # seconds to wait for a lock, and for a connection where the server has none left


class StudyDatabase:
    """Where the studies are: a file, a given database, or that of the servers, which is looked up at each connect."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self.follows = stores.storage is None and stores.connection_file is not None

    def __str__(self) -> str:
        """Its address without a password or options."""
        try:
            return f"the study database {without_secrets(self.url().set(query={}).render_as_string())}"
        except pymysql.OperationalError:
            return "the study database of the servers"

    def url(self) -> sqlalchemy.URL:
        """Its address now.

        Raises:
            BadInput: what was given is no such address, or of a database that is not supported.
            pymysql.OperationalError: the servers are down.
        """
        try:
            text = self._stores.storage_url
        except BdqmError as error:
            raise pymysql.OperationalError(pymysql.constants.CR.CR_CONN_HOST_ERROR, str(error)) from None
        return parse_storage_url(text)

    @property
    def is_server(self) -> bool:
        """Whether it is a server, and not SQLite."""
        return self.follows or self.url().get_backend_name() != "sqlite"

    @property
    def is_postgresql(self) -> bool:
        """Whether it is PostgreSQL, and not MySQL or MariaDB, as that of the servers always is."""
        return not self.follows and self.url().get_backend_name() == "postgresql"

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database."""
        return None if self.follows else sqlite_file(self.url())

    def engine_options(self) -> dict[str, Any]:
        """How SQLAlchemy connects to it."""
        if not self.is_server:
            return {}
        # Two connections: the training thread's, and one for all others, which write little.
        return {
            "creator": self.connect,
            "pool_size": 1,
            "max_overflow": 1,
            "pool_pre_ping": False,  # a connection that broke is noticed when it is used, and the use repeated
            "pool_recycle": RECYCLE,
            "pool_reset_on_return": None,  # Optuna ends every transaction; one more rollback would be one more wait
        }

    def connect(self) -> Any:
        """A new connection of the driver, to a server."""
        url = self.url()
        dialect = url.get_dialect()
        arguments, options = dialect().create_connect_args(url)
        defaults = POSTGRESQL_OPTIONS if self.is_postgresql else MYSQL_OPTIONS
        return dialect.import_dbapi().connect(*arguments, **{**defaults, **options})

    def retry(self, seconds: float, full: float = 0.0) -> Retry:
        """How calls to it are retried: timeouts in s; `full` while it has no connection left."""
        return Retry(seconds, self.__str__, self.follows, full)

    @property
    def retry_on_open(self) -> Retry:
        """The same when it is opened; one that was given and cannot be reached is wrong, more likely than late."""
        return self.retry(SERVERS_TIMEOUT if self.follows else OTHER_TIMEOUT, LOCK_SECONDS)


def sqlite_file(url: sqlalchemy.URL) -> Path | None:
    """The file of a SQLite database; None: it is in memory, or another database."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


_OWN_REVISION: list[str] = []  # once it is known


def open_storage(stores: Stores, retry_timeout: float = OTHER_TIMEOUT) -> Cache:
    """Connect to the database of studies, making its tables if it has none.

    Args:
        retry_timeout: seconds for which an operation is retried while the database does not answer.

    Raises:
        BadInput: not the URL of a database.
        BdqmError: the database cannot be reached, or belongs to another version of Optuna.
    """
    database = StudyDatabase(stores)
    with _explained(database):
        storage = database.retry_on_open(lambda: _open(database, database.retry(retry_timeout)))
        _check_version(storage, database)
    return Cache(storage)


def _open(database: StudyDatabase, retry: Retry) -> RetryingStorage:
    url, options = database.url().render_as_string(hide_password=False), database.engine_options()
    if database.file is not None:
        database.file.parent.mkdir(parents=True, exist_ok=True)
    if _has_tables(url, options):
        return RetryingStorage(url, retry, options, make_tables=False)
    with _lock_of(database, "tables"):  # of processes that make tables at the same time, all but one may fail
        return RetryingStorage(url, retry, options, make_tables=True)


def _has_tables(url: str, options: dict[str, Any]) -> bool:
    engine = sqlalchemy.create_engine(url, **{key: options[key] for key in options if key == "creator"})
    try:
        with engine.connect() as connection:
            # Optuna writes the revision last.
            return MigrationContext.configure(connection).get_current_revision() is not None
    finally:
        engine.dispose()


def _own_revision(storage: RetryingStorage) -> str:
    """The revision of the tables that this Optuna makes, for which it reads a folder of scripts: 65 ms."""
    if not _OWN_REVISION:
        _OWN_REVISION.append(storage.get_head_version())
    return _OWN_REVISION[0]


def _check_version(storage: RetryingStorage, database: StudyDatabase) -> None:
    current = storage.get_current_version()
    if current == _own_revision(storage):
        return
    with storage.engine.connect() as connection:
        theirs = connection.scalar(sqlalchemy.text("SELECT library_version FROM version_info"))
    storage.close()
    if current not in storage.get_all_versions():
        raise BdqmError(
            f"{database} is Optuna {theirs}'s, newer than {optuna.__version__} here: `pip install --upgrade optuna`"
        )
    command = "bdqm-tune services up" if database.follows else 'optuna storage upgrade --storage "$BDQM_STORAGE"'
    raise BdqmError(
        f"{database} is Optuna {theirs}'s, older than {optuna.__version__} here; once no worker uses it: `{command}`"
    )


def _failures() -> tuple[type[Exception], ...]:
    """What is raised where a database cannot be opened."""
    return (*database_errors(), ImportError, OSError, ValueError, TypeError)


@contextmanager
def _explained(database: StudyDatabase) -> Iterator[None]:
    """Say in one line which database failed, and how."""
    try:
        yield
    except _failures() as error:
        start = "; `bdqm-tune services up` starts it" if database.follows else ""
        raise BdqmError(f"cannot open {database}: {reason(error)}{start}") from None


@contextmanager
def opened(stores: Stores) -> Iterator[Cache]:
    """The storage, closed after the block. Raises as `open_storage`."""
    storage = open_storage(stores)
    try:
        yield storage
    finally:
        storage.backend.close()


def not_made_yet(stores: Stores) -> bool:
    """Whether the database is a SQLite file which opening would make."""
    file = StudyDatabase(stores).file
    return file is not None and not file.exists()


@contextmanager
def study_lock(stores: Stores, study: str, what: str = "study") -> Iterator[Callable[[], None]]:
    """Lock a study, across all nodes, while the block runs.

    Yields a function to call just before what one process alone may do: it raises LockLost if the lock was lost, as
    the database's server stopped or cut the connection. The lock is released when its process ends. In SQLite all
    studies share one lock.

    Args:
        what: name of the lock; locks of different names do not exclude each other.

    Raises:
        BdqmError: the database cannot be reached, or the lock cannot be acquired in time.
    """
    database = StudyDatabase(stores)
    with ExitStack() as stack:
        with _explained(database):
            check = stack.enter_context(_lock_of(database, what, study))
        yield check


@contextmanager
def _lock_of(database: StudyDatabase, what: str, name: str = "") -> Iterator[Callable[[], None]]:
    if database.file is not None:
        database.file.parent.mkdir(parents=True, exist_ok=True)
        with locked(Path(f"{database.file}.{what}.lock"), NO_LOCKS_REMEDY):
            yield lambda: None
    elif database.is_server:
        with closing(database.retry_on_open(lambda: _lock(database, f"{what} {name}"))) as lock:
            yield lock.check
    else:  # SQLite in memory
        yield lambda: None


def _lock(database: StudyDatabase, name: str) -> DatabaseLock:
    """The server's lock of this name, held by a connection of its own."""
    lock = "bdqm-tune " + hashlib.sha256(f"{database.url().database}/{name}".encode()).hexdigest()[:40]
    kind = PostgreSqlLock if database.is_postgresql else DatabaseLock
    return kind(database.connect(), lock, LOCK_SECONDS, f"opening {database}")
