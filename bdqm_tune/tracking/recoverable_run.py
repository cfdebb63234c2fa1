"""An MLflow run that is created again, with all that was logged to it, if somebody deletes it."""

import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from bdqm_tune.tracking.client import TrackingFailed, http_status, is_passing

# Idempotent, as an answer may get lost; one HTTP request each, as the claim is checked before every one.
RunRequest = Callable[[MlflowClient, Run], Any]


class RecoverableRun:
    """Requests about one run, in their order; a run that was deleted gets a successor, to which all are sent again.

    Args:
        send: sends a request after those before it.
        run: an existing run, or a function that returns it when the first request is sent.
        renew: returns an idempotent function that creates the successor of a run, or restores it.
        holds_claim: whether this process may still log to the run; requests after it may not are dropped.
    """

    def __init__(
        self,
        send: Callable[[Callable[[MlflowClient], Any]], Future[Any]],
        run: Run | Callable[[MlflowClient], Run],
        renew: Callable[[Run], Callable[[MlflowClient], Run]],
        holds_claim: Callable[[], bool] = lambda: True,
    ) -> None:
        self._send_request, self._renew, self._holds_claim = send, renew, holds_claim
        self._open = None if isinstance(run, Run) else run
        self._run = run if isinstance(run, Run) else None
        self._requests: list[RunRequest] = []
        self._n_sent = 0  # of these, to the run as it is now
        self._lock = threading.Lock()  # requests come from several threads, and go out from one
        self._successor: Callable[[MlflowClient], Run] | None = None  # that is being made
        self._folders: list[tempfile.TemporaryDirectory[str]] = []

    @property
    def run(self) -> Run:
        """The run as it was when it was opened. Not before the first request was sent."""
        assert self._run is not None
        return self._run

    def send(self, request: RunRequest) -> Future[Any]:
        """Send a request. Raises TrackingFailed if one before it failed."""
        with self._lock:
            self._requests.append(request)
            n = len(self._requests)
            return self._send_request(lambda client: self._catch_up(client, n))

    def upload(self, write: Callable[[Path], Any]) -> None:
        """Upload the files that `write` puts into a temporary folder.

        Raises:
            TrackingFailed: they cannot be written, for want of space for example; or something before cannot be sent.
        """
        try:
            folder = tempfile.TemporaryDirectory(prefix="bdqm-")
            self._folders.append(folder)
            write(Path(folder.name))
        except OSError as error:
            where = f"{tempfile.gettempdir()} (TMPDIR names another folder)"
            raise TrackingFailed(f"artifacts cannot be written to {where}: {error.strerror or error}") from error

        for file in sorted(path for path in Path(folder.name).rglob("*") if path.is_file()):
            self.send(partial(_upload, file=file, folder=file.parent.relative_to(folder.name).as_posix()))

    def end(self, status: str, ended: int | None = None) -> Future[Any]:
        """Set the run's final status, after all requests before; the future is done when all is sent.

        Args:
            ended: time of the end, ms; None: now.
        """

        def request(client: MlflowClient, run: Run) -> None:
            client.set_terminated(run.info.run_id, status, ended)
            self.clean()

        return self.send(request)

    def clean(self) -> None:
        """Remove the copies of files that were sent."""
        for folder in self._folders:
            folder.cleanup()

    def start_again(self) -> None:
        """Called when a deleted run was replaced by another one."""

    def _catch_up(self, client: MlflowClient, n: int) -> Any:
        """Send those of the first `n` requests that the run does not have yet."""
        answer = None
        while self._n_sent < n and self._holds_claim():
            if self._run is None:
                assert self._open is not None
                self._run = self._open(client)
                continue  # which may have taken long
            try:
                answer = self._requests[self._n_sent](client, self._run)
            except Exception as error:
                if not _says_deleted(client, self._run.info.run_id, error):
                    raise
                self._replace(client, self._run)
            else:
                self._n_sent += 1
        return answer

    def _replace(self, client: MlflowClient, deleted: Run) -> None:
        self._successor = self._successor or self._renew(deleted)
        self._run = self._successor(client)
        self._successor = None
        if self._run.info.run_id != deleted.info.run_id:
            self._n_sent = 0
            self.start_again()


def _upload(client: MlflowClient, run: Run, file: Path, folder: str) -> None:
    # The client would fetch the run first, and keep the address that its server had then.
    repository = get_artifact_repository(run.info.artifact_uri, client.tracking_uri)
    repository.log_artifact(str(file), None if folder == "." else folder)


def active_run(client: MlflowClient, run_id: str) -> Run | None:
    """The run of an id; None if it was deleted, restorable or for good."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if http_status(error) == 404:
            return None
        raise
    return run if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None


def _says_deleted(client: MlflowClient, run_id: str, error: Exception) -> bool:
    """Whether a request about a run failed because the run was deleted."""
    return http_status(error) in (400, 404) and not is_passing(error) and active_run(client, run_id) is None


def say(message: str) -> None:
    """Print a line for the user."""
    print(f"bdqm-tune: {message}", file=sys.stderr, flush=True)
