"""Which databases can hold the studies, by which drivers, and how their URLs are written."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bdqm_tune.errors import BadInput
from bdqm_tune.services.secrets import ENCODE

if TYPE_CHECKING:
    import sqlalchemy

# By SQLAlchemy's name of a database, the drivers whose errors are understood; the module of each, and the package.
DRIVERS = {
    "sqlite": {"pysqlite": ("sqlite3", "")},
    "mysql": {"pymysql": ("pymysql", "pymysql")},
    "mariadb": {"pymysql": ("pymysql", "pymysql")},
    "postgresql": {"psycopg2": ("psycopg2", "psycopg2-binary"), "psycopg": ("psycopg", "psycopg[binary]")},
}
SUPPORTED = (
    "SQLite (sqlite:////path/optuna.db), MySQL and MariaDB (mysql+pymysql://), and PostgreSQL (postgresql+psycopg2://) "
    "can; `bdqm-tune services up` starts a MariaDB"
)


def sqlite_url(file: Path) -> str:
    """SQLAlchemy's URL of a SQLite file, whatever characters its path has."""
    import sqlalchemy

    return sqlalchemy.URL.create("sqlite", database=str(file)).render_as_string()


def parse_storage_url(text: str) -> "sqlalchemy.URL":
    """The URL of a study database that was given.

    Raises:
        BadInput: it is none, or of a database or a driver that is not supported; the message has no password.
    """
    import sqlalchemy

    try:
        url = sqlalchemy.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise BadInput(
            f"BDQM_STORAGE is no SQLAlchemy URL; an example: sqlite:////scratch/me/optuna.db; {ENCODE}"
        ) from None
    backend = url.get_backend_name()
    if backend not in DRIVERS:
        raise BadInput(f"BDQM_STORAGE: {backend}:// cannot hold studies; {SUPPORTED}")
    if url.database in (None, "", ":memory:"):
        what = "name a file" if backend == "sqlite" else "name a database"
        example = "sqlite:////scratch/me/optuna.db" if backend == "sqlite" else f"{url.drivername}://USER@HOST/DATABASE"
        raise BadInput(f"BDQM_STORAGE: {what}, as in {example}")
    try:
        driver = url.get_driver_name()
    except sqlalchemy.exc.NoSuchModuleError:
        driver = url.drivername.partition("+")[2]
    drivers = DRIVERS[backend]
    installed = [name for name, (module, _) in drivers.items() if find_spec(module) is not None]
    if driver not in installed:
        install = "" if installed else f"`pip install {next(iter(drivers.values()))[1]}`, and "
        name = (installed or list(drivers))[0]
        reason = "is not installed" if driver in drivers else "is not supported"
        raise BadInput(f"BDQM_STORAGE: the driver {driver} {reason}; {install}write {backend}+{name}://")
    return url
