"""Failure detection: workers without a recent heartbeat are declared dead and their trials requeued."""

import time
from collections.abc import Callable, Mapping

from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.storage.queries import Claim
from bdqm_tune.storage.retrying_storage import RetryingStorage
from bdqm_tune.study.study import LOSSES, RESULT
from bdqm_tune.workers.registry import DEAD, RUNNING, Worker, Workers

HEARTBEAT_SECONDS = 10.0  # seconds between two heartbeats
DEAD_AFTER = 80.0  # seconds without a heartbeat; a dead worker is noticed at most two heartbeats later
# Seconds without a check after which the heartbeats seen before say nothing: others may have been cut off as well.
BLIND_AFTER = 4 * HEARTBEAT_SECONDS
LOSSES_THAT_FAIL = 3


class FailureDetector:
    """Declares workers of a study dead and requeues their trials.

    A worker is dead if its process is gone, or if its heartbeat counter has stood still for `DEAD_AFTER` seconds of
    this process's monotonic clock: clocks of different machines are never compared. A trial fails after
    `LOSSES_THAT_FAIL` dead workers.
    """

    def __init__(
        self,
        storage: RetryingStorage,
        study_id: int,
        on_dead: Callable[[Worker, str], None],
        on_requeued: Callable[[FrozenTrial], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            on_dead: called with every worker that is declared dead, and why.
            on_requeued: called with every trial of such a worker, as it is afterwards: waiting or failed, or running
                again where another worker was quick.
            clock: seconds.
        """
        self._storage, self._study_id = storage, study_id
        self._on_dead, self._on_requeued, self._clock = on_dead, on_requeued, clock
        self._workers = Workers(storage.engine, storage.retry, study_id)
        self._seen: dict[str, tuple[int, float]] = {}  # a worker's heartbeat counter, and when it was first seen
        self._here: dict[str, Worker] = {}  # those of this machine, whose processes can be checked
        self._latest = clock()  # check

    def check(self, own: str = "") -> None:
        """Check all workers once, which every worker does at each heartbeat: 6 ms for a thousand workers.

        Args:
            own: name of the worker that checks, if it is one.
        """
        now = self._clock()
        if now - self._latest > BLIND_AFTER:
            self._seen.clear()
        self._latest = now
        trials = self._storage.running(self._study_id)  # before the workers, which register before they claim one
        running = self._workers.heartbeats()
        self._meet(running)
        suspects = {name for name, worker in self._here.items() if worker.is_gone}
        suspects |= {name for name, count in running.items() if self._is_stale(name, count, now)}
        suspects.discard(own)
        for worker in self._workers.all(RUNNING, names=suspects) if suspects else []:
            note = "its process was gone" if worker.is_gone else f"no heartbeat for {DEAD_AFTER:.0f} s"
            if self._workers.end(worker.name, DEAD, note, running.pop(worker.name)):
                self._on_dead(worker, note)
        for trial in trials:
            if trial.worker and trial.worker not in running:
                self._requeue(trial)

    def _meet(self, running: Mapping[str, int]) -> None:
        """Learn which of the workers are on this machine; the others are judged by their heartbeats alone."""
        self._here = {name: worker for name, worker in self._here.items() if name in running}
        self._seen = {name: seen for name, seen in self._seen.items() if name in running}
        if new := running.keys() - self._seen.keys():
            self._here |= {worker.name: worker for worker in self._workers.all(names=new) if worker.is_here}

    def _is_stale(self, name: str, count: int, now: float) -> bool:
        before, since = self._seen.get(name, (-1, now))
        if count != before:
            self._seen[name] = (count, now)
        return count == before and now - since >= DEAD_AFTER

    def _requeue(self, claim: Claim) -> None:
        losses = int(self._storage.get_trial(claim.trial_id).user_attrs.get(LOSSES, 0)) + 1
        state = TrialState.FAIL if losses >= LOSSES_THAT_FAIL else TrialState.WAITING
        reason = {RESULT: {"reason": f"its worker died {losses} times"}} if state == TrialState.FAIL else {}
        if self._storage.requeue(claim, state, {LOSSES: losses, **reason}):
            self._on_requeued(self._storage.get_trial(claim.trial_id))
