"""Who uses the data: a restore alone, or the process that runs the servers and backups together."""

from collections.abc import Iterator
from contextlib import contextmanager

from bdqm_tune.errors import BadInput
from bdqm_tune.mlflow_server.paths import ServerPaths
from bdqm_tune.mlflow_server.processes import held, holder


@contextmanager
def data_shared(places: ServerPaths) -> Iterator[None]:
    """Use the data; no restore begins meanwhile. Raises BadInput where one is at work."""
    with held(places.data_lock, lambda: _in_use(places), shared=True):
        yield


@contextmanager
def data_alone(places: ServerPaths) -> Iterator[None]:
    """Change the data as a whole. Raises BadInput where anything else uses them."""
    with held(places.data_lock, lambda: _in_use(places)):
        yield


def refuse_during_restore(places: ServerPaths) -> None:
    """Raise BadInput if a restore is at work."""
    if holder(places.data_lock) is not None:
        raise _in_use(places)


def _in_use(places: ServerPaths) -> BadInput:
    if (running := holder(places.data_lock)) is not None:
        return BadInput(
            f"a restore into {places.folder} is at work (process {running.pid} on {running.host}); "
            "wait until it has ended: bdqm-tune services status"
        )
    if holder(places.lock) is not None:
        return BadInput("the servers are up; first: bdqm-tune services down")
    return BadInput(f"a backup of {places.folder} is being written; wait until it has ended")
