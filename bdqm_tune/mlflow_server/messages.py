"""What `services` prints: the ssh line of the tunnel, variables for a shell, the status."""

import os
from collections.abc import Mapping
from pathlib import Path

from bdqm_tune.mlflow_server.certificates import fingerprint
from bdqm_tune.mlflow_server.control import Status
from bdqm_tune.mlflow_server.settings import LOOPBACK
from bdqm_tune.services.connection import Connection
from bdqm_tune.units import bytes_text
from bdqm_tune.user import user_name

# Where a job was submitted: the machine through which its node is reached.
LOGIN_VARIABLES = ("BDQM_LOGIN_HOST", "SLURM_SUBMIT_HOST", "PBS_O_HOST")


def tunnel(connection: Connection, here: str, environ: Mapping[str, str] = os.environ) -> str:
    """The command that opens MLflow's page on a laptop.

    Args:
        here: name of this machine; through it the way goes to servers on another, unless the environment names a
            login node.
    """
    from sqlalchemy import make_url

    url = make_url(connection.tracking_uri)
    login = next((environ[name] for name in LOGIN_VARIABLES if environ.get(name)), here)
    target = f"{user_name()}@{connection.host}"
    jump = "" if login == connection.host else f" -J {user_name()}@{login}"
    end = "localhost" if url.host in LOOPBACK else url.host
    return f"ssh -N -L {url.port}:{end}:{url.port}{jump} {target}"


def address(connection: Connection, here: str, password: bool, environ: Mapping[str, str] = os.environ) -> str:
    """What `services url` prints."""
    from sqlalchemy import make_url

    url = make_url(connection.tracking_uri)
    page = f"{url.drivername}://localhost:{url.port}"
    lines = [f"MLflow        {connection.tracking_uri}"]
    if connection.tracking_username:
        shown = connection.tracking_password if password else "bdqm-tune services url --show-password"
        lines += [f"user          {connection.tracking_username}", f"password      {shown}"]
        lines += [
            f"on a laptop   {tunnel(connection, here, environ)}",
            f"              then {page} in its browser, which warns of the certificate",
        ]
    if found := fingerprint(Path(connection.tracking_ca).with_name("server.pem")) if connection.tracking_ca else "":
        lines.append(f"certificate   SHA-256 {found}")
    return "\n".join(lines)


def status_lines(status: Status) -> list[str]:
    """What `services status` prints."""
    lines = [f"servers       {status.state}", f"folder        {status.folder}"]
    if status.state in ("up", "failing"):
        lines += [
            f"host          {status.host}, since {status.since}",
            f"database      {status.database or 'does not answer'}",
            f"MLflow        {status.tracking or 'does not answer'}",
        ]
    if status.state == "elsewhere":
        lines += [
            f"host          {status.host}, since {status.since}; up without --host, which no other node reaches",
            f"next          on {status.host}: bdqm-tune services status; if it is gone, here: bdqm-tune services up",
        ]
    if status.restore:
        lines.append(f"restore       {status.restore}")
    database, artifacts = bytes_text(status.database_bytes), bytes_text(status.artifacts_bytes)
    lines.append(f"disk          database {database}, artifacts {artifacts}")
    if status.certificates_warning:
        lines.append(f"warning       {status.certificates_warning}; bdqm-tune services renew-certificates")
    if status.state in ("down", "failing"):
        lines.append(
            "next          bdqm-tune services up" + ("" if status.state == "down" else "; bdqm-tune services logs")
        )
    return lines
