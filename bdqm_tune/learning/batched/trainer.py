"""Batches the epochs of concurrent trials: the caller that trains one needs to know nothing of the others."""

import threading
import time
from weakref import WeakValueDictionary

from bdqm_tune.learning.batched.epoch_schedule import Data
from bdqm_tune.learning.batched.group import Group
from bdqm_tune.learning.batched.slots import Job, State
from bdqm_tune.learning.batches import SplitTensors
from bdqm_tune.progress import GRACE, check

PAUSE = 5e-5  # seconds, while the device is busy
POLL = 0.5  # seconds between checks for an interrupt
Key = tuple[Data, str, bool, int]


class BatchedTrainer:
    """Runs jobs, an epoch of a trial each, in groups of those that can be batched.

    While there are jobs, a thread takes steps of the groups one after the other; on a GPU it only queues them, and the
    groups' steps run concurrently.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new: list[tuple[Key, Job]] = []
        self._groups: dict[Key, Group] = {}
        self._data = WeakValueDictionary[tuple[int, int], Data]()  # by the splits, which it holds
        self._thread: threading.Thread | None = None

    def data(self, train: SplitTensors, validation: SplitTensors) -> Data:
        """The data of these splits, the same object for all trials on them."""
        with self._lock:
            key = id(train), id(validation)
            if (data := self._data.get(key)) is None:
                self._data[key] = data = Data(train, validation)
            return data

    def run(self, key: Key, job: Job) -> tuple[list[float], State]:
        """Run an epoch, and return its sums and the state of the network after it.

        Raises:
            KeyboardInterrupt: the process is to end, see `progress.check`; the epoch is cancelled.
        """
        with self._lock:
            self._new.append((key, job))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="batched-trainer")
                self._thread.start()
        while True:
            try:
                return job.ended.result(timeout=POLL)
            except TimeoutError:
                try:
                    check(GRACE)
                except KeyboardInterrupt:
                    job.ended.cancel()
                    raise

    def _work(self) -> None:
        while True:
            with self._lock:
                new, self._new = self._new, []
                if not new and not any(group.is_busy for group in self._groups.values()):
                    self._thread = None
                    return
            for key, job in new:
                try:
                    if key not in self._groups:
                        self._groups[key] = Group(*key)
                    self._groups[key].waiting.append(job)
                except Exception as error:  # raised where the jobs are waited for
                    job.ended.set_exception(error)
            stepped = [self._advance(key) for key in list(self._groups)]
            if not any(stepped):
                time.sleep(PAUSE)

    def _advance(self, key: Key) -> bool:
        """Whether there was a step in this group."""
        group, steps = self._groups[key], False
        try:
            steps = group.advance()
        except Exception as error:
            group.fail(error)
        if group.is_over:
            del self._groups[key]
        return steps
