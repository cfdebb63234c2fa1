"""A queue of requests to MLflow: sent in order, off the training loop, retried with back-off while it is away."""

import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from mlflow.tracking import MlflowClient
from optuna.exceptions import StorageInternalError

from bdqm_tune.backoff import pauses
from bdqm_tune.errors import DISK_FULL, is_disk_full
from bdqm_tune.progress import note
from bdqm_tune.services.secrets import without_secrets
from bdqm_tune.tracking.client import TrackingFailed, is_passing, reason

FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between two attempts; they double
HURRY = 10.0  # retry timeout (s) of an interrupted process
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"

Answer = TypeVar("Answer")
Request = Callable[[MlflowClient], Any]


class Sender(threading.Thread):
    """Sends requests in their order; each must be idempotent, as an answer may get lost.

    Args:
        connect: returns a client for the server's current address; called for every attempt.
        retry_timeout: seconds from the first failure of a request to giving up.
    """

    def __init__(self, connect: Callable[[], MlflowClient], retry_timeout: float) -> None:
        super().__init__(name="mlflow", daemon=True)
        self._connect, self._retry_timeout = connect, retry_timeout
        self._requests: queue.Queue[tuple[Request, Future[Any]] | None] = queue.Queue()
        self._error: Exception | None = None
        self._deadline = math.inf  # by time.monotonic
        self._wake = threading.Event()
        self._where = ""  # the server's last known address
        self.start()

    def send(self, request: Request) -> Future[Any]:
        """Queue a request. Raises TrackingFailed if an earlier one failed."""
        self.check()
        done: Future[Any] = Future()
        self._requests.put((request, done))
        return done

    def check(self) -> None:
        """Raise the error that sending ended with, if it did."""
        if self._error is not None:
            raise self._error

    def hurry(self) -> None:
        """Give up within ten seconds, however long the retry timeout is."""
        self._deadline = min(self._deadline, time.monotonic() + HURRY)
        self._wake.set()

    @property
    def seconds_left(self) -> float | None:
        """How long to wait for an answer; None: as long as it takes."""
        return None if self._deadline == math.inf else max(self._deadline - time.monotonic(), 0.0)

    def close(self) -> None:
        """Wait until all is sent, and end. Raises TrackingFailed if something could not be."""
        self._requests.put(None)
        self.join(self.seconds_left)
        self.check()
        if self.is_alive():
            raise TrackingFailed(f"the MLflow tracking store {self._where} does not answer; what waits is not sent")

    def run(self) -> None:
        with one_attempt_each():
            while (entry := self._requests.get()) is not None:
                request, done = entry
                try:
                    self.check()
                    done.set_result(self._send(request))
                except Exception as error:
                    self._error = error
                    done.set_exception(error)

    def _send(self, request: Request) -> Any:
        def attempt() -> Any:
            client = self._connect()
            self._where = without_secrets(client.tracking_uri)
            return request(client)

        try:
            meanwhile = "training continues, this waits"
            return with_retries(
                attempt, self._retry_timeout, self._store, meanwhile, lambda: self._deadline, self._pause
            )
        except StorageInternalError:  # of the study's database, which a request may write to
            raise
        except Exception as error:
            raise TrackingFailed(f"{self._store()} failed: {reason(error)}") from error

    def _store(self) -> str:
        return f"the MLflow tracking store {self._where}"

    def _pause(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()


def with_retries(
    attempt: Callable[[], Answer],
    retry_timeout: float,
    name: Callable[[], str],
    meanwhile: str,
    deadline: Callable[[], float] = lambda: math.inf,
    pause: Callable[[float], Any] = time.sleep,
    passes: Callable[[Exception], bool] = is_passing,
) -> Answer:
    """The result of a request to MLflow, retried with back-off; raises what the last attempt raised.

    Args:
        attempt: sends the request; idempotent, as an answer may get lost.
        retry_timeout: seconds from the first failure to giving up.
        name: of the store, for messages, without a password.
        meanwhile: what happens while it does not answer, for the message.
        deadline: when to give up in any case, by time.monotonic; it may come closer.
        pause: waits so many seconds, or less.
        passes: whether an error is transient.
    """
    failures, since, waits = 0, 0.0, pauses(FIRST_WAIT, LONGEST_WAIT)
    while True:
        try:
            answer = attempt()
        except StorageInternalError:
            raise
        except Exception as error:
            now = time.monotonic()
            failures, since = failures + 1, since or now
            left = min(since + retry_timeout, deadline()) - now
            if not passes(error) or left <= 0:
                raise
            if failures == 2:  # one failure alone is not worth a line
                trouble = f": {DISK_FULL}" if is_disk_full(error) else " does not answer"
                note(f"bdqm-tune: {name()}{trouble}; {meanwhile}")
            hurried = math.inf if deadline() == math.inf else 1.0
            pause(min(next(waits), hurried, left))
        else:
            if failures > 1:
                note(f"bdqm-tune: {name()} answers again, after {time.monotonic() - since:.0f} s")
            return answer


@contextmanager
def one_attempt_each() -> Iterator[None]:
    """Turn off MLflow's own retries: they know neither a new address nor that a run was created already."""
    before = os.environ.get(RETRIES)
    os.environ[RETRIES] = "0"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(RETRIES, None)
        else:
            os.environ[RETRIES] = before
