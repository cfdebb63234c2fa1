"""A client for the tracking store's current address, and what MLflow's errors mean."""

import errno
import os
import shlex

import mlflow
import requests
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bdqm_tune.errors import DISK_FULL, BadInput, BdqmError, is_disk_full, one_line
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.storage.retry import characters_hint, passing
from bdqm_tune.tracking.embedded import make_tracking_file

# Transient errors of its database that MLflow's server reports with HTTP 400. The last: another run entered
# the same dataset into the experiment at the same time.
PASSING = ("QueuePool limit", "InterfaceError", "INSERT INTO datasets")
ARTIFACTS = "artifacts"  # tag of a run whose artifacts `bdqm-tune gc` removed


class TrackingFailed(BdqmError):
    """Something could not be sent to the tracking store."""


def tracking_client(stores: Stores) -> MlflowClient:
    """A client for the tracking store as it is now; servers that were moved are found again by a new client.

    Raises:
        BadInput: what was given is no address.
        BdqmError: the database or the servers that have it are down.
    """
    # MLflow reads user, password and certificate from here at every request. The address is passed to the client alone,
    # so that what else runs in this process keeps its own.
    os.environ.update({k: v for k, v in stores.tracking_environment.items() if k != "MLFLOW_TRACKING_URI"})
    try:
        make_tracking_file(stores.tracking_uri or mlflow.get_tracking_uri())
        return MlflowClient(stores.tracking_uri)
    # MLflow lets each library's own error through: of a database, of what is no address, of a driver that is not there.
    except (
        UnsupportedModelRegistryStoreURIException,
        SQLAlchemyError,
        ImportError,
        ValueError,
        TypeError,
        OSError,
    ) as error:
        where = without_secrets(stores.tracking_uri or mlflow.get_tracking_uri())
        kind = BdqmError if isinstance(error, DBAPIError | OSError) else BadInput
        remedy = ""
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS):  # in vain, however long it waits
            kind, remedy = BadInput, "; MLFLOW_TRACKING_URI names another place"
        raise kind(f"MLflow cannot use the tracking store {where}: {reason(error)}{remedy}") from error


def gc_command(tracking_uri: str, run_ids: str = "") -> str:
    """The command that removes deleted runs for good, for a message; of a server, which alone has the database, where.

    Args:
        run_ids: of these alone, separated by commas; "": all that were deleted.
    """
    only = f" --run-ids {run_ids}" if run_ids else ""
    if not tracking_uri or tracking_uri.startswith("http"):
        return f"`mlflow gc{only}` where MLflow's server is"
    # It needs both, though they are the same where there is no server.
    store = shlex.quote(tracking_uri)
    return f"`mlflow gc --backend-store-uri {store} --tracking-uri {store}{only}`"


def http_status(error: Exception) -> int | None:
    """The HTTP status that an error of MLflow's clients stands for; None if there is none."""
    if isinstance(error, MlflowException):  # its own errors of connection count as 500
        return error.get_http_status_code()
    if isinstance(error, requests.RequestException):
        return error.response.status_code if error.response is not None else 500
    return None


def is_passing(error: Exception) -> bool:
    """Whether the same request may succeed later: the server is away, restarts, has too much to do, or no room."""
    if is_disk_full(error):
        return True
    if characters_hint(error):  # for MLflow it is a database that is away for a while
        return False
    status = http_status(error)
    if status is None:
        if isinstance(error.__cause__, DBAPIError | OSError):
            return passing(error.__cause__) is not None
        return isinstance(error, BdqmError) and not isinstance(
            error, BadInput
        )  # the servers are down: no file says where
    if status == 400:
        return any(text in str(error) for text in PASSING)
    return status in (408, 429) or (status >= 500 and status != 501)


def is_certificate(error: Exception) -> bool:
    """Whether the server could not prove who it is: a wrong certificate file, more likely than one that comes late."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def reason(error: Exception) -> str:
    """An error of MLflow's clients in one line, with what to do where that is known."""
    if http_status(error) == 401:
        return (
            "it does not accept the user name and password (HTTP 401); "
            'MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD give them, as does eval "$(bdqm-tune services env)"'
        )
    if is_disk_full(error):
        return DISK_FULL
    if http_status(error) == 403:
        return (
            f"{without_secrets(one_line(error))}; what has this name there is another account's: choose another name, "
            "or ask its owner or the administrator for the right to write to it"
        )
    return without_secrets(one_line(error)) + characters_hint(error)
