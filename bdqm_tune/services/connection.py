"""Where the stores are: given by the environment, else those that `services up` started, else embedded in the folder.

A user who has servers gets no embedded stores while they are down: a second study of the same name would begin there.
Servers may come back on another host or port. What follows them reads the connection file at each connect, not once.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from bdqm_tune.errors import BadInput, BdqmError, one_line
from bdqm_tune.services.database_urls import parse_storage_url, sqlite_url
from bdqm_tune.services.secrets import check_address, without_secrets
from bdqm_tune.user import expanded, user_home

FORMAT = 1
RESTART = 120.0  # seconds in which servers that restart are up again
POLL = 0.5  # seconds between two checks


@dataclass(frozen=True)
class Connection:
    """What the connection file holds while the servers run; `services up` writes it, mode 0600."""

    host: str  # where the servers run
    since: str  # ISO 8601
    storage_url: str = field(repr=False)  # of Optuna's storage, with its password
    tracking_uri: str
    tracking_username: str = ""  # empty: the server needs none, or the user's environment has it
    tracking_password: str = field(default="", repr=False)
    tracking_ca: str = ""  # file with the certificate to verify https by
    earlier_tracking_uris: tuple[str, ...] = ()  # of the same server, before it came back elsewhere

    def tracking_environment(self) -> dict[str, str]:
        """The variables by which MLflow's clients find the server and log in."""
        variables = {
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "MLFLOW_TRACKING_USERNAME": self.tracking_username,
            "MLFLOW_TRACKING_PASSWORD": self.tracking_password,
            "MLFLOW_TRACKING_SERVER_CERT_PATH": self.tracking_ca,
        }
        return {name: value for name, value in variables.items() if value}


@dataclass(frozen=True)
class Stores:
    """The places that a command reads and writes."""

    home: Path  # feature cache, test splits, embedded study database
    storage: str | None = field(default=None, repr=False)  # given SQLAlchemy URL of Optuna's storage
    tracking: str | None = None  # given tracking URI of MLflow
    connection_file: Path | None = None  # of the servers that run; it answers for what is not given
    notes: tuple[str, ...] = ()  # what the user should know about this choice

    @property
    def storage_url(self) -> str:
        """SQLAlchemy URL of Optuna's storage as it is now. Raises BdqmError if the servers that have it are down."""
        if self.storage is None and self.connection_file is not None:
            return read_connection(self.connection_file).storage_url
        return self.storage or sqlite_url(self.home / "optuna.db")

    @property
    def tracking_uri(self) -> str | None:
        """MLflow's tracking URI as it is now; None: MLflow's own default, a SQLite file in the working folder."""
        if self.tracking is None and self.connection_file is not None:
            return read_connection(self.connection_file).tracking_uri
        return self.tracking

    @property
    def tracking_environment(self) -> dict[str, str]:
        """Variables for MLflow's clients; empty where the tracking URI is given or embedded."""
        if self.tracking is None and self.connection_file is not None:
            return read_connection(self.connection_file).tracking_environment()
        return {}


def services_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the servers keep their data and secrets: `BDQM_SERVICES`, else `~/.bdqm-tune`."""
    return expanded(environ.get("BDQM_SERVICES") or str(user_home() / ".bdqm-tune")).absolute()


def has_servers(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the user has had servers up, which then hold the studies, also while they are down."""
    return (services_folder(environ) / "settings.json").exists()


def home_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where features, embedded studies and records of jobs are: `BDQM_HOME`, else `.bdqm` in the working folder."""
    return Path(environ.get("BDQM_HOME") or ".bdqm").absolute()


def find_stores(environ: Mapping[str, str] = os.environ, wait: bool = True) -> Stores:
    """The stores that `BDQM_HOME`, `BDQM_STORAGE` and `MLFLOW_TRACKING_URI` name, those of the user's servers, or the
    embedded ones of a user who has none.

    Args:
        wait: for servers that are not up, as they may restart.

    Raises:
        BadInput: Optuna and MLflow would share one database, `BDQM_STORAGE` is none that is supported, or a password is
            not written as URLs have it.
        BdqmError: the servers are not up, or the connection file cannot be read.
    """
    home = home_folder(environ)
    storage, tracking = environ.get("BDQM_STORAGE") or None, environ.get("MLFLOW_TRACKING_URI") or None
    for name in ("BDQM_STORAGE", "MLFLOW_TRACKING_URI"):
        check_address(name, environ.get(name) or "")
    folder = services_folder(environ)
    file: Path | None = folder / "connection.json"
    notes: tuple[str, ...] = ()
    if (storage is None or tracking is None) and has_servers(environ):
        _await_servers(folder / "connection.json", home, RESTART if wait else 0.0)
    if file is not None and not file.exists():
        file = None
    if file is not None and tracking is not None:
        servers = read_connection(file)
        if tracking.rstrip("/") in (servers.tracking_uri, *servers.earlier_tracking_uris):
            tracking = None  # so that it is followed
        else:
            notes = (
                f"runs go to {without_secrets(tracking)}, which MLFLOW_TRACKING_URI names, not to the server that is "
                f'up at {servers.tracking_uri}; for that one, eval "$(bdqm-tune services env)" before `mlflow run`',
            )
    stores = Stores(home, storage, tracking, file, notes)
    if same_database(stores.storage_url, stores.tracking_uri or "sqlite:///mlflow.db"):
        raise BadInput(
            f"BDQM_STORAGE and MLflow's tracking URI are the same database, {without_secrets(stores.storage_url)}; "
            "each needs one of its own, as both keep a table alembic_version there"
        )
    if storage is not None:
        parse_storage_url(storage)
    return stores


def file_stores(environ: Mapping[str, str] = os.environ) -> Stores:
    """What `BDQM_STORAGE` and `MLFLOW_TRACKING_URI` name, unless it is the user's servers, else the embedded stores."""
    home, file = home_folder(environ), services_folder(environ) / "connection.json"
    storage, tracking = environ.get("BDQM_STORAGE") or None, environ.get("MLFLOW_TRACKING_URI") or None
    if tracking is not None and file.exists():
        servers = read_connection(file)
        if tracking.rstrip("/") in (servers.tracking_uri, *servers.earlier_tracking_uris):
            tracking = None
    if storage is not None:
        parse_storage_url(storage)
    # Not left to MLflow, which would read the variable.
    return Stores(home, storage, tracking or sqlite_url(Path("mlflow.db").absolute()))


def server_stores(environ: Mapping[str, str] = os.environ, wait: bool = True) -> Stores:
    """Those of the user's servers, whatever else is given. Raises BdqmError if they are not up."""
    folder = services_folder(environ)
    if not has_servers(environ):
        raise BdqmError(f"no servers have ever been up in {folder}: `bdqm-tune services up` starts them")
    _await_servers(folder / "connection.json", home_folder(environ), RESTART if wait else 0.0)
    return Stores(home_folder(environ), connection_file=folder / "connection.json")


def _await_servers(file: Path, home: Path, seconds: float) -> None:
    """Wait until servers have written their connection file. Raises BdqmError if they do not."""
    deadline, announced = time.monotonic() + seconds, False
    while not file.exists():
        if (left := deadline - time.monotonic()) <= 0:
            files = {"BDQM_STORAGE": home / "optuna.db", "MLFLOW_TRACKING_URI": Path("mlflow.db").absolute()}
            choice = " ".join(f"{name}={shlex.quote(sqlite_url(path))}" for name, path in files.items())
            raise BdqmError(
                f"the servers of {file.parent} are not up: `bdqm-tune services up` starts them; "
                f"to use files of this folder in their place, `export {choice}`"
            )
        if not announced:
            announced = True
            wait = f"waiting for them, {seconds:.0f} s at most"
            print(f"bdqm-tune: the servers of {file.parent} are not up; {wait}", file=sys.stderr, flush=True)
        time.sleep(min(POLL, left))


def read_connection(path: Path) -> Connection:
    """The connection file.

    Raises:
        BdqmError: there is none, so the servers are down; or it is not what `services up` writes.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError(f"format is not {FORMAT}")
        content["earlier_tracking_uris"] = tuple(content["earlier_tracking_uris"])
        return Connection(**content)
    except FileNotFoundError:
        raise BdqmError("the servers are down; `bdqm-tune services up` starts them") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        known = ", ".join(one.name for one in fields(Connection))
        raise BdqmError(
            f"{path} is no connection file with {known} ({one_line(error)}); `bdqm-tune services up` writes it again"
        ) from None


def connection_text(connection: Connection) -> str:
    """What the connection file says, JSON."""
    return json.dumps({"format": FORMAT, **asdict(connection)}, indent=1) + "\n"


def same_database(one: str, other: str) -> bool:
    """Whether two URLs name one database, whatever the driver, user and options; what is no such URL does not."""
    places = [_place(url) for url in (one, other)]
    return places[0] is not None and places[0] == places[1]


def _place(text: str) -> tuple[str, ...] | None:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
        backend, database = url.get_backend_name(), url.database or ""
        if backend == "sqlite":
            return (backend, str(Path(database).resolve())) if database not in ("", ":memory:") else None
    except (ArgumentError, ValueError):
        return None
    if backend not in ("mysql", "mariadb", "postgresql", "mssql"):
        return None
    kind = "mysql" if backend == "mariadb" else backend
    port = url.port or {"mysql": 3306, "postgresql": 5432, "mssql": 1433}[kind]
    host = "127.0.0.1" if url.host in (None, "localhost", "::1") else str(url.host).lower()
    return (kind, host, str(port), str(url.query.get("unix_socket", "")), database)
