"""A worker's lease on its trials: it counts while it lives, and takes over from those that no longer do."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from uuid import uuid4

import pymysql
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from bdqm_tune.experiment.patient_storage import Held, PatientStorage
from bdqm_tune.experiment.study import LOSSES, RESULT
from bdqm_tune.experiment.workers import LOST, RUNNING, Worker, Workers

BEAT = 10.0  # seconds between two counts
LOST_AFTER = 80.0  # seconds without a count; a worker is noticed at most two beats later
# Seconds without a look after which what was seen before says nothing: others may have been cut off as this one was.
BLIND_AFTER = 4 * BEAT
LOSSES_THAT_FAIL = 3

_log = logging.getLogger(__name__)


class Lease(threading.Thread):
    """Counts for this worker in a thread of its own, which outlives whatever happens to the database.

    Other workers are lost when their counts have stood still for so long by this one's clock: no clock of another
    machine is asked, and none that can be set. Their trials wait again, or have failed if that happens too often.
    """

    def __init__(
        self,
        storage: PatientStorage,
        study_id: int,
        description: Mapping[str, str],
        lost: Callable[[Worker], None] = lambda worker: None,
        taken_back: Callable[[FrozenTrial], None] = lambda trial: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            description: of this worker, for the others and for people.
            lost: called with every worker that was lost.
            taken_back: called with every trial of such a one, as it is afterwards: waiting or failed.
            clock: seconds.
        """
        super().__init__(name="lease", daemon=True)
        self._storage, self._study_id, self._description = storage, study_id, dict(description)
        self._lost, self._taken_back, self._clock = lost, taken_back, clock
        self._workers = Workers(storage.engine, storage.patience, study_id)
        self._seen: dict[str, tuple[int, float]] = {}  # a worker's count, and when it was first seen
        self._looked, self._ended = clock(), threading.Event()
        self._enter()

    def _enter(self) -> None:
        self._storage.worker = self.worker = uuid4().hex
        self._workers.add(self.worker, self._description)

    def run(self) -> None:
        while True:
            try:
                self.look()
            except Exception as error:
                _log.warning("the lease of this worker could not be renewed, and will be tried again: %s", error)
            if self._ended.wait(BEAT):
                return

    def close(self) -> None:
        """Work no more; what still runs is no longer this worker's."""
        self._ended.set()
        with suppress(StorageInternalError, SQLAlchemyError, pymysql.MySQLError):  # others will notice
            self._workers.end(self.worker)

    def look(self) -> None:
        """Count, and see to those who do not."""
        if not self._workers.count(self.worker) and not self._ended.is_set():
            self._storage.lose()
            self._enter()
        now = self._clock()
        if now - self._looked > BLIND_AFTER:
            self._seen.clear()
        self._looked = now
        trials = self._storage.running(self._study_id)  # before the workers, who enter before they take one
        working = {worker.name: worker for worker in self._workers.all(RUNNING)}
        for worker in list(working.values()):
            if worker.name != self.worker and self._stands_still(worker, now):
                del working[worker.name]
                note = "its process was gone" if worker.is_gone else f"not heard of for {LOST_AFTER:.0f} s"
                if self._workers.end(worker.name, LOST, note, worker.beats):
                    _log.warning("worker %s is lost: %s", _who(worker), note)
                    self._lost(worker)
        for trial in trials:
            if trial.worker and trial.worker not in working:
                self._take_back(trial)

    def _stands_still(self, worker: Worker, now: float) -> bool:
        beats, since = self._seen.get(worker.name, (-1, now))
        if worker.beats != beats:
            self._seen[worker.name] = (worker.beats, now)
        return worker.is_gone or (worker.beats == beats and now - since >= LOST_AFTER)

    def _take_back(self, held: Held) -> None:
        losses = int(self._storage.get_trial(held.trial_id).user_attrs.get(LOSSES, 0)) + 1
        state = TrialState.FAIL if losses >= LOSSES_THAT_FAIL else TrialState.WAITING
        reason = {RESULT: {"reason": f"its worker was lost {losses} times"}} if state == TrialState.FAIL else {}
        if self._storage.take_back(held, state, {LOSSES: losses, **reason}):
            trial = self._storage.get_trial(held.trial_id)
            _log.warning("trial %d, whose worker is lost: %s", trial.number, state.name.lower())
            self._taken_back(trial)


def _who(worker: Worker) -> str:
    described = worker.description
    return f"{described.get('pid', '?')} on {described.get('host', '?')}"
