"""A worker's lease on its trials: it counts while it lives, and takes over from those that no longer do."""

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

# A machine that was asleep did not count, and others know it: Linux's monotonic clock does not.
SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_log = logging.getLogger(__name__)


def seconds_since_boot() -> float:
    """By a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(SINCE_BOOT)


class Heartbeat(threading.Thread):
    """Counts for this worker in a thread of its own, which outlives whatever happens to the database, and watches."""

    def __init__(
        self,
        storage: RetryingStorage,
        study_id: int,
        description: Mapping[str, str],
        lost: Callable[[Worker, str], None] = lambda worker, why: None,
        requeued: Callable[[FrozenTrial], None] = lambda trial: None,
        clock: Callable[[], float] = seconds_since_boot,
    ) -> None:
        """
        Args:
            description: of this worker, for the others and for people.
            lost, requeued, clock: as `FailureDetector` has them.

        Raises:
            BdqmError: it cannot be entered among the workers.
        """
        super().__init__(name="lease", daemon=True)
        self._storage, self._description = storage, dict(description)
        self._workers = Workers(storage.engine, storage.patience, study_id)
        self._lost, self._requeued, self._clock = lost, requeued, clock
        self._watch = FailureDetector(storage, study_id, self._say_lost, self._say_requeued, clock)
        self._ended, self._is_left = threading.Event(), False
        self._enter()
        storage.counts = self._counts

    def describe(self, key: str, value: str) -> None:
        """Change the description of this worker."""
        if self._description.get(key) != value:
            self._description[key] = value
            self._workers.describe(self.worker, self._description)

    def _enter(self) -> None:
        name, begun = uuid4().hex, self._clock()
        self._workers.add(name, self._description)
        self._counted = begun
        # Not before: whoever takes a trial and is not among the workers has it taken back.
        self._storage.worker = self.worker = name

    def _counts(self) -> bool:
        """Whether nobody can have thought this worker dead, with as much time again for what is on its way by then."""
        return self._clock() - self._counted < DEAD_AFTER / 2

    def _say_lost(self, worker: Worker, why: str) -> None:
        _log.warning("worker %s is lost: %s", who(worker), why)
        self._lost(worker, why)

    def _say_requeued(self, trial: FrozenTrial) -> None:
        _log.warning("trial %d, whose worker is lost: %s", trial.number, trial.state.name.lower())
        self._requeued(trial)

    def run(self) -> None:
        while True:
            try:
                self.look()
            except Exception as error:
                _log.warning("the lease of this worker could not be renewed, and will be tried again: %s", error)
            if self._ended.wait(HEARTBEAT_SECONDS):
                return

    def leave_to_others(self) -> None:
        """Be taken for dead after the end, so that others end in MLflow what this one could not."""
        self._is_left = True

    def close(self) -> None:
        """Work no more; what still runs is no longer this worker's."""
        self._ended.set()
        if self._is_left:
            return
        with suppress(StorageInternalError):  # others will notice
            self._workers.end(self.worker)

    def look(self) -> None:
        """Count, and see to those who do not."""
        begun = self._clock()
        if self._workers.count(self.worker):
            self._counted = begun
        elif not self._ended.is_set():
            self._storage.lose()
            self._enter()
        self._watch.look(self.worker)
