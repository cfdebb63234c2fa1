"""What `bdqm-tune doctor` checks in the folder of the servers; nothing is made, and no password is shown."""

import os
from collections.abc import Iterator
from pathlib import Path

from bdqm_tune.errors import BdqmError
from bdqm_tune.mlflow_server.certificates import warning
from bdqm_tune.mlflow_server.control import status
from bdqm_tune.mlflow_server.passwords import load_passwords
from bdqm_tune.mlflow_server.paths import ServerPaths
from bdqm_tune.services.connection import read_connection
from bdqm_tune.services.diagnostics import ERROR, OK, WARNING, Finding


def check_servers(places: ServerPaths) -> Iterator[Finding]:
    """The folder's permissions, the passwords, and whether what should run does."""
    if not places.folder.exists():
        yield Finding("servers", OK, f"none have been started in {places.folder}; files serve instead")
        return
    if open_to_others := list(_open_to_others(places)):
        names = ", ".join(str(path.relative_to(places.folder.parent)) for path in open_to_others)
        yield Finding("servers", ERROR, f"others may read {names}", f"chmod -R go= {places.folder}")
    try:
        if places.passwords.exists():
            load_passwords(places.passwords)
        yield _running(places)
        if ends := warning(places.tls):
            yield Finding("servers", WARNING, ends, "bdqm-tune services renew-certificates")
    except BdqmError as error:
        yield Finding("servers", ERROR, str(error))


def _open_to_others(places: ServerPaths) -> Iterator[Path]:
    """What only its owner should read; all else lies in the folder, which comes first."""
    private = [places.passwords, places.connection, places.mlflow / "auth.ini", *sorted(places.tls.glob("*.key"))]
    for path in [places.folder, *private]:
        if path.exists() and (path.stat().st_mode & 0o077 or path.stat().st_uid != os.getuid()):
            yield path


def _running(places: ServerPaths) -> Finding:
    found = status(places)
    if found.state == "up":
        return Finding("servers", OK, f"up on {found.host} since {found.since}: MLflow at {found.tracking}")
    if found.state == "starting":
        return Finding("servers", WARNING, "starting", "bdqm-tune services status")
    if found.state == "down":
        return Finding("servers", OK, f"down; their data are in {places.folder}, files serve meanwhile")
    if found.state == "elsewhere":
        return Finding(
            "servers",
            WARNING,
            f"on {found.host} since {found.since}, without --host: no other node reaches them",
            f"on {found.host}: bdqm-tune services status",
        )
    silent = [name for name, answers in (("database", found.database), ("MLflow", found.tracking)) if not answers]
    host = read_connection(places.connection).host
    return Finding(
        "servers",
        ERROR,
        f"said to be up on {host} since {found.since}, but not answering: {', '.join(silent)}",
        "bdqm-tune services up",
    )
