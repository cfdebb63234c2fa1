"""The MLflow server: its command, its environment, and whether it answers."""

import http.client
import os
import shlex
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import URL

from bdqm_tune.errors import BdqmError
from bdqm_tune.mlflow_server import app
from bdqm_tune.mlflow_server.database import Database
from bdqm_tune.mlflow_server.passwords import Passwords
from bdqm_tune.mlflow_server.paths import ServerPaths, write_private
from bdqm_tune.mlflow_server.processes import listens, start, stop, tail_of_start, wait_for
from bdqm_tune.mlflow_server.schemas import AUTH, MLFLOW, account

USER = "bdqm"  # MLflow's account of workers and of people at the page; `admin` manages accounts
START_SECONDS = 90.0
# The server answers 40 requests at a time, and each takes a connection. MLflow's own default, 5 and 10 more, makes the
# others wait 30 s and then fail with status 400, which its clients do not repeat: metrics are lost.
POOL, OVERFLOW = 20, 60


@dataclass(frozen=True)
class Address:
    """Where the MLflow server is."""

    bind: str  # the address it listens at
    host: str  # the name that clients use
    port: int

    @property
    def uri(self) -> str:
        return f"https://{_bracketed(self.host)}:{self.port}"


def command(places: ServerPaths, address: Address, names: Sequence[str], processes: int) -> list[str | Path]:
    """The command line of the server, without any secret.

    Args:
        names: host names and addresses by which clients may call it, those of a tunnel's end among them.
        processes: that answer; each has use for one core.
    """
    allowed = [entry for name in names for entry in (_bracketed(name), f"{_pattern(name)}:*")]
    options: list[str | Path] = [
        *("--host", address.bind, "--port", str(address.port), "--workers", str(processes), "--app-name", app.NAME),
        *("--artifacts-destination", places.artifacts, "--allowed-hosts", ",".join(allowed)),
    ]
    options += ["--cors-allowed-origins", ",".join(f"https://{_bracketed(name)}:{address.port}" for name in names)]
    uvicorn = ["--no-access-log"]  # a line for each request fills a disk
    # On loopback too: a port there is whose process takes it first, and clients send their password to it.
    uvicorn += [f"--ssl-keyfile={places.tls / 'server.key'}", f"--ssl-certfile={places.tls / 'server.pem'}"]
    options += ["--uvicorn-opts", shlex.join(uvicorn)]
    return [sys.executable, "-m", "mlflow", "server", *options]


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _pattern(name: str) -> str:
    """A name as MLflow's patterns of hosts want it, where a bracket opens a set of characters."""
    return f"[[]{name}]" if ":" in name else name


def environment(places: ServerPaths, database: Database, passwords: Passwords) -> dict[str, str]:
    """The server's variables; those that hold a password are seen by its owner alone."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "BDQM_"))}
    return inherited | {
        "MLFLOW_BACKEND_STORE_URI": _url(database, MLFLOW, passwords.mlflow).render_as_string(hide_password=False),
        "MLFLOW_AUTH_CONFIG_PATH": str(places.mlflow / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": passwords.flask_key,
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(POOL),
        "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": str(OVERFLOW),
        "MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE": "1800",
        # For agents and language models: a dozen processes and 2 GB that nobody here uses.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
    }


def auth_configuration(database: Database, passwords: Passwords) -> str:
    """The text of MLflow's configuration of accounts."""
    url = _url(database, AUTH, passwords.mlflow_auth).render_as_string(hide_password=False)
    lines = [
        "[mlflow]",
        f"database_uri = {url.replace('%', '%%')}",
        "admin_username = admin",
        "default_permission = READ",  # of what is not one's own
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds = 60",  # else the password is hashed at every request, a quarter of a second
    ]
    return "\n".join([*lines, ""])


def _url(database: Database, schema: str, password: str) -> URL:
    url = database.local.set(database=database.schema(schema))
    return url.set(username=account(schema), password=password) if database.own else url


def start_tracking(
    places: ServerPaths,
    database: Database,
    passwords: Passwords,
    address: Address,
    names: Sequence[str],
    processes: int,
) -> psutil.Popen:
    """Start the MLflow server; the arguments are those of `command`. `await_tracking` waits for it."""
    write_private(places.mlflow / "auth.ini", auth_configuration(database, passwords))
    variables = environment(places, database, passwords)
    return start(command(places, address, names, processes), places.folder, places.log("mlflow"), variables)


def await_tracking(
    places: ServerPaths, address: Address, process: psutil.Popen, needed: Sequence[psutil.Popen]
) -> None:
    """Wait until the MLflow server answers.

    Args:
        needed: processes without which it is of no use, its database's.

    Raises:
        BdqmError: it does not start, or one of those ended, and it was stopped.
    """
    log = places.log("mlflow")

    def ready() -> bool:
        return listens(process, address.port) and answers(address.uri, places.ca)

    if not wait_for(ready, [process, *needed], START_SECONDS):
        ending = process.poll()
        stop([process], 5)
        if any(one.poll() is not None for one in needed):
            raise BdqmError(f"the database ended while MLflow was starting (log: {places.log('database')})")
        silent = "it does not answer" if ending is None else f"it ended with status {ending}"
        raise BdqmError(f"the MLflow server does not start: {' / '.join(tail_of_start(log, 5)) or silent} (log: {log})")


def answers(uri: str, ca: Path | None = None) -> bool:
    """Whether an MLflow server is healthy."""
    try:
        context = ssl.create_default_context(cafile=ca) if uri.startswith("https") and ca and ca.exists() else None
        # The address is our own server's or MLFLOW_TRACKING_URI, which is checked to be http or https.
        with urllib.request.urlopen(f"{uri}/health", timeout=5, context=context) as response:  # nosec B310
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError, http.client.HTTPException):  # the latter of another program at this port
        return False
