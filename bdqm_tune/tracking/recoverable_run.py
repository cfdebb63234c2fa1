"""A run of MLflow that is made again, with all that was sent to it, where somebody deletes it."""

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

# Safe to repeat, as an answer may get lost; one of HTTP each, as the claim is looked at before every one.
RunRequest = Callable[[MlflowClient, Run], Any]


class RecoverableRun:
    """Requests about one run, in their order; a run that was deleted gets a successor, to which all are sent again.

    Args:
        send: sends a request after those before it.
        run: that is there, or what gives it when the first request is sent.
        renew: gives a function that makes the successor of a run, or restores it, and that may be repeated.
        holds_claim: whether this process may still send to the run; what comes after it may not is dropped.
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
        """The run as it was when it was opened; it must have been."""
        assert self._run is not None
        return self._run

    def send(self, request: RunRequest) -> Future[Any]:
        """Send a request. Raises TrackingFailed if one before it failed."""
        with self._lock:
            self._requests.append(request)
            n = len(self._requests)
            return self._send_request(lambda client: self._catch_up(client, n))

    def upload(self, write: Callable[[Path], Any]) -> None:
        """Send the files that `write` puts into the folder it is given.

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
        """Send the end of the run, which is answered when all is sent.

        Args:
            ended: when it was, ms; None: now.
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
        """Called when another run takes the place of a deleted one."""

    def _catch_up(self, client: MlflowClient, n: int) -> Any:
        """Send the first `n` requests, but for those that the run has."""
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
    # The client would ask for the run first, and go on using the address that its server had then.
    repository = get_artifact_repository(run.info.artifact_uri, client.tracking_uri)
    repository.log_artifact(str(file), None if folder == "." else folder)


def active_run(client: MlflowClient, run_id: str) -> Run | None:
    """The run of an id; None: it was deleted, in a way that it can be restored or for good."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if http_status(error) == 404:
            return None
        raise
    return run if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None


def _says_deleted(client: MlflowClient, run_id: str, error: Exception) -> bool:
    """Whether it is for this reason that a request about a run failed."""
    return http_status(error) in (400, 404) and not is_passing(error) and active_run(client, run_id) is None


def say(message: str) -> None:
    """Tell the user."""
    print(f"bdqm-tune: {message}", file=sys.stderr, flush=True)
