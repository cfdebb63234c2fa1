"""Watching the workers of a study: those that do not count any more are lost, and their trials go to others."""

import time
from collections.abc import Callable, Mapping

from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.storage.queries import Held
from bdqm_tune.storage.retrying_storage import RetryingStorage
from bdqm_tune.study.study import LOSSES, RESULT
from bdqm_tune.workers.registry import LOST, RUNNING, Worker, Workers

HEARTBEAT_SECONDS = 10.0  # seconds between two counts
DEAD_AFTER = 80.0  # seconds without a count; a worker is noticed at most two beats later
# Seconds without a look after which what was seen before says nothing: others may have been cut off as this one was.
BLIND_AFTER = 4 * HEARTBEAT_SECONDS
LOSSES_THAT_FAIL = 3


class FailureDetector:
    """Sees to the workers of a study that do not count any more.

    They are lost when their process is gone, or when their counts have stood still for so long by this one's clock:
    no clock of another machine is asked, and none that can be set. Their trials wait again, or have failed if that
    happens too often.
    """

    def __init__(
        self,
        storage: RetryingStorage,
        study_id: int,
        lost: Callable[[Worker, str], None],
        requeued: Callable[[FrozenTrial], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            lost: called with every worker that was lost, and why it was.
            requeued: called with every trial of such a one, as it is afterwards: waiting or failed, or running again
                where another worker was quick.
            clock: seconds.
        """
        self._storage, self._study_id = storage, study_id
        self._lost, self._requeued, self._clock = lost, requeued, clock
        self._workers = Workers(storage.engine, storage.patience, study_id)
        self._seen: dict[str, tuple[int, float]] = {}  # a worker's count, and when it was first seen
        self._here: dict[str, Worker] = {}  # those of this machine, whose processes can be looked for
        self._latest = clock()  # look

    def look(self, own: str = "") -> None:
        """See to all of them once, which every worker does at each beat: of a thousand, it takes 6 ms.

        Args:
            own: name of the worker that looks, if it is one.
        """
        now = self._clock()
        if now - self._latest > BLIND_AFTER:
            self._seen.clear()
        self._latest = now
        trials = self._storage.running(self._study_id)  # before the workers, who enter before they take one
        working = self._workers.beats()
        self._meet(working)
        suspects = {name for name, worker in self._here.items() if worker.is_gone}
        suspects |= {name for name, beats in working.items() if self._stands_still(name, beats, now)}
        suspects.discard(own)
        for worker in self._workers.all(RUNNING, names=suspects) if suspects else []:
            note = "its process was gone" if worker.is_gone else f"not heard of for {DEAD_AFTER:.0f} s"
            if self._workers.end(worker.name, LOST, note, working.pop(worker.name)):
                self._lost(worker, note)
        for trial in trials:
            if trial.worker and trial.worker not in working:
                self._take_back(trial)

    def _meet(self, working: Mapping[str, int]) -> None:
        """Learn which of the workers are on this machine; the others are read by their counts alone."""
        self._here = {name: worker for name, worker in self._here.items() if name in working}
        self._seen = {name: seen for name, seen in self._seen.items() if name in working}
        if new := working.keys() - self._seen.keys():
            self._here |= {worker.name: worker for worker in self._workers.all(names=new) if worker.is_here}

    def _stands_still(self, name: str, beats: int, now: float) -> bool:
        before, since = self._seen.get(name, (-1, now))
        if beats != before:
            self._seen[name] = (beats, now)
        return beats == before and now - since >= DEAD_AFTER

    def _take_back(self, held: Held) -> None:
        losses = int(self._storage.get_trial(held.trial_id).user_attrs.get(LOSSES, 0)) + 1
        state = TrialState.FAIL if losses >= LOSSES_THAT_FAIL else TrialState.WAITING
        reason = {RESULT: {"reason": f"its worker was lost {losses} times"}} if state == TrialState.FAIL else {}
        if self._storage.requeue(held, state, {LOSSES: losses, **reason}):
            self._requeued(self._storage.get_trial(held.trial_id))
