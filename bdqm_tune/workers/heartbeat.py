"""The heartbeat of a worker: a thread that sends it, checks the other workers and requeues trials of dead ones."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from uuid import uuid4

from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial

from bdqm_tune.storage.retrying_storage import RetryingStorage
from bdqm_tune.workers.failure_detector import DEAD_AFTER, HEARTBEAT_SECONDS, FailureDetector
from bdqm_tune.workers.registry import Worker, Workers, who

# A machine that was asleep sent no heartbeats, which Linux's monotonic clock does not show.
SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_log = logging.getLogger(__name__)


def seconds_since_boot() -> float:
    """Seconds by a clock that nobody sets, and that runs while the machine sleeps."""
    return time.clock_gettime(SINCE_BOOT)


class Heartbeat(threading.Thread):
    """A thread that sends this worker's heartbeats and runs its failure detector; it outlives database failures."""

    def __init__(
        self,
        storage: RetryingStorage,
        study_id: int,
        description: Mapping[str, str],
        on_dead: Callable[[Worker, str], None] = lambda worker, why: None,
        on_requeued: Callable[[FrozenTrial], None] = lambda trial: None,
        clock: Callable[[], float] = seconds_since_boot,
    ) -> None:
        """
        Args:
            description: of this worker, for the others and for people.
            on_dead, on_requeued, clock: as in `FailureDetector`.

        Raises:
            BdqmError: the worker cannot be registered.
        """
        super().__init__(name="heartbeat", daemon=True)
        self._storage, self._description = storage, dict(description)
        self._workers = Workers(storage.engine, storage.retry, study_id)
        self._on_dead, self._on_requeued, self._clock = on_dead, on_requeued, clock
        self._detector = FailureDetector(storage, study_id, self._report_dead, self._report_requeued, clock)
        self._ended, self._is_left = threading.Event(), False
        self._register()
        storage.certainly_alive = self._certainly_alive

    def describe(self, key: str, value: str) -> None:
        """Change the description of this worker."""
        if self._description.get(key) != value:
            self._description[key] = value
            self._workers.describe(self.worker, self._description)

    def _register(self) -> None:
        name, begun = uuid4().hex, self._clock()
        self._workers.add(name, self._description)
        self._last_sent = begun
        # Not before: a trial that is claimed by an unregistered worker is requeued.
        self._storage.worker = self.worker = name

    def _certainly_alive(self) -> bool:
        """Whether nobody can have declared this worker dead, with as much time again for requests on their way."""
        return self._clock() - self._last_sent < DEAD_AFTER / 2

    def _report_dead(self, worker: Worker, why: str) -> None:
        _log.warning("worker %s is dead: %s", who(worker), why)
        self._on_dead(worker, why)

    def _report_requeued(self, trial: FrozenTrial) -> None:
        _log.warning("trial %d, whose worker is dead: %s", trial.number, trial.state.name.lower())
        self._on_requeued(trial)

    def run(self) -> None:
        while True:
            try:
                self.send()
            except Exception as error:
                _log.warning("the heartbeat of this worker could not be sent, and will be retried: %s", error)
            if self._ended.wait(HEARTBEAT_SECONDS):
                return

    def leave_to_others(self) -> None:
        """Stay registered on close: others declare this worker dead, and end in MLflow what it could not."""
        self._is_left = True

    def close(self) -> None:
        """Stop, and end the worker in the registry, so that its running trials are requeued.

        Raises:
            KeyboardInterrupt: the process was told to end meanwhile; the worker is ended nevertheless.
        """
        self._ended.set()
        if self._is_left:
            return
        with suppress(StorageInternalError):  # others will notice
            try:
                self._workers.end(self.worker)
            except KeyboardInterrupt:  # from now on the database has a few seconds
                self._workers.end(self.worker)
                raise

    def send(self) -> None:
        """Send a heartbeat, and check the other workers. If this one was declared dead, register it again."""
        begun = self._clock()
        if self._workers.heartbeat(self.worker):
            self._last_sent = begun
        elif not self._ended.is_set():
            self._storage.drop_claims()
            self._register()
        self._detector.check(self.worker)
