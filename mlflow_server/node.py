"""On which node the servers run; others may share their folder."""

from bdqm_tune.services.connection import read_connection
from mlflow_server.places import Places
from mlflow_server.processes import holder, last_holder


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
