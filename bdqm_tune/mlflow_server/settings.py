"""What is to run where: the choices of one `services up`, and what the last one came to."""

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from bdqm_tune.errors import BadInput
from bdqm_tune.mlflow_server.paths import write_private
from bdqm_tune.services.secrets import ENCODE, check_address, without_secrets

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")  # nosec B104  # compared with, not bound to
KEPT_ADDRESSES = 20
MOST_PROCESSES = 8  # of the MLflow server; the database has connections for so many


@dataclass(frozen=True)
class Choices:
    """What the user chose for one `up`."""

    bind: str = "127.0.0.1"  # the address that both servers listen at
    mysql: URL | None = field(default=None, repr=False)  # of a database server that runs already
    tracking: str | None = None  # of an MLflow server that runs already
    processes: int = 1  # of the MLflow server that is started

    @property
    def public(self) -> bool:
        """Whether other machines can reach the servers."""
        return self.bind not in LOOPBACK

    @property
    def host(self) -> str:
        """The name by which clients reach them."""
        return socket.gethostname() if self.bind in EVERYWHERE else self.bind

    @property
    def names(self) -> list[str]:
        """All names that they answer to: those of this machine, and of a tunnel's end."""
        given = () if self.bind in EVERYWHERE else (self.bind,)
        return list(dict.fromkeys([*LOOPBACK, socket.gethostname(), socket.getfqdn(), *given]))


def choose(bind: str, last: "Settings", environ: Mapping[str, str] = os.environ) -> Choices:
    """Read `BDQM_MYSQL_URL` and `MLFLOW_TRACKING_URI`, which name servers that the user has, and how many processes
    MLflow's is to have, `BDQM_MLFLOW_PROCESSES`.

    Raises:
        BadInput: one of them, or the address to listen at, cannot be used.
    """
    try:
        socket.getaddrinfo(bind, None)
    except (OSError, UnicodeError):
        raise BadInput(
            f"--host {bind!r} is no name or address of this machine; an example: {socket.gethostname()}"
        ) from None
    for name in ("BDQM_MYSQL_URL", "MLFLOW_TRACKING_URI"):
        check_address(name, environ.get(name) or "")
    tracking = (environ.get("MLFLOW_TRACKING_URI") or "").rstrip("/") or None
    if tracking in last.tracking_uris:  # `services env` has put it there
        tracking = None
    if tracking is not None and not tracking.startswith(("http://", "https://")):
        raise BadInput(
            f"MLFLOW_TRACKING_URI={without_secrets(tracking)} is no server (http://…); unset it, and one is started"
        )
    mysql = environ.get("BDQM_MYSQL_URL")
    processes = environ.get("BDQM_MLFLOW_PROCESSES") or "1"
    if not (processes.isdecimal() and 1 <= int(processes) <= MOST_PROCESSES):
        raise BadInput(f"BDQM_MLFLOW_PROCESSES={processes} is no number from 1 to {MOST_PROCESSES}")
    return Choices(bind, _mysql(mysql) if mysql else None, tracking, int(processes))


def _mysql(text: str) -> URL:
    example = "an example: mysql+pymysql://USER:PASSWORD@HOST:3306/PREFIX_?ssl_ca=/path/ca.pem"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise BadInput(f"BDQM_MYSQL_URL is no URL; {example}; {ENCODE}") from None
    if url.get_backend_name() not in ("mysql", "mariadb") or not (url.host and url.username):
        raise BadInput(
            f"BDQM_MYSQL_URL={without_secrets(text)} names no account on a MySQL or MariaDB server; {example}"
        )
    return url.set(drivername="mysql+pymysql", port=url.port or 3306)


@dataclass(frozen=True)
class Settings:
    """What `up` came to, kept so that the next one uses the same ports, and sees that versions have changed."""

    database_port: int | None = None
    tracking_port: int | None = None
    tracking_uris: tuple[str, ...] = ()  # under which the MLflow server has been reached, the latest first
    versions: dict[str, str] = field(default_factory=dict)  # of mlflow and optuna, which wrote the schemas

    def with_tracking(self, uri: str) -> "Settings":
        """With the MLflow server at this address."""
        others = [one for one in self.tracking_uris if one != uri]
        return replace(self, tracking_uris=(uri, *others)[:KEPT_ADDRESSES])


def installed() -> dict[str, str]:
    """The versions of what writes the schemas."""
    return {package: version(package) for package in ("mlflow", "optuna")}


def load_settings(path: Path) -> Settings:
    """The settings in a file; those of a first start if there is none or it is damaged, as nothing depends on them."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Settings(**content | {"tracking_uris": tuple(content["tracking_uris"])})
    except (OSError, ValueError, TypeError, KeyError):
        return Settings()


def save_settings(path: Path, settings: Settings) -> None:
    write_private(path, json.dumps(asdict(settings), indent=1) + "\n")
