"""On which node the servers run; others may share their folder."""

import os

from sqlalchemy import make_url

from bdqm_tune.services.connection import Connection, read_connection
from mlflow_server.places import Places
from mlflow_server.processes import holder, last_holder
from mlflow_server.settings import LOOPBACK


def elsewhere(places: Places) -> str | None:
    """The node on which the servers run, or are said to, if it is not this one."""
    running = holder(places.lock) or (last_holder(places.lock) if places.connection.exists() else None)
    if running is not None and running.here:  # also where the node has been renamed
        return None
    node = servers_node(places)
    return None if node == os.uname().nodename else node


def closed_to_others(connection: Connection) -> bool:
    """Whether another node than the servers' own reaches nothing of them: `up` without --host."""
    hosts = [make_url(url).host for url in (connection.storage_url, connection.tracking_uri)]
    return any(host in LOOPBACK for host in hosts)


def servers_node(places: Places) -> str | None:
    """The node on which the servers run, or are said to; None where they are down.

    The lock's file says it even where the file system's locks are seen on one node alone. What the connection file
    names is for clients, and may be another of the node's names.
    """
    if (running := holder(places.lock)) is not None:
        return running.host
    if not places.connection.exists():
        return None
    last = last_holder(places.lock)
    return last.host if last is not None else read_connection(places.connection).host
