"""On which node the servers run; others may share their folder."""

from sqlalchemy import make_url

from bdqm_tune.mlflow_server.paths import ServerPaths
from bdqm_tune.mlflow_server.processes import Holder, holder, last_holder
from bdqm_tune.mlflow_server.settings import LOOPBACK
from bdqm_tune.services.connection import Connection, read_connection


def elsewhere(places: ServerPaths) -> str | None:
    """The node on which the servers run, or are said to, if it is not this one, whatever the name of this one was."""
    running = servers_process(places)
    return None if running is None or running.here else running.host


def closed_to_others(connection: Connection) -> bool:
    """Whether another node than the servers' own reaches nothing of them: `up` without --host."""
    hosts = [make_url(url).host for url in (connection.storage_url, connection.tracking_uri)]
    return any(host in LOOPBACK for host in hosts)


def servers_process(places: ServerPaths) -> Holder | None:
    """The process that runs the servers, or is said to; None where they are down.

    The lock's file says it even where the file system's locks are seen on one node alone. What the connection file
    names is for clients, and may be another of the node's names.
    """
    if (running := holder(places.lock)) is not None:
        return running
    if not places.connection.exists():
        return None
    return last_holder(places.lock) or Holder(read_connection(places.connection).host, 0)
