"""Optuna's cache in front of a `RetryingStorage`: the storage of a study."""

import random
from contextlib import suppress

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from bdqm_tune.services.optuna_private import CachedStorage, storage_of
from bdqm_tune.storage.retrying_storage import RetryingStorage

CROWD = 256  # workers that may want a trial at the same moment


class Cache(CachedStorage):
    """Optuna's cache in front of a `RetryingStorage`, with methods that claim waiting trials."""

    _backend: RetryingStorage

    @property
    def backend(self) -> RetryingStorage:
        """The storage itself."""
        return self._backend

    def take_waiting(self, study_id: int) -> int | None:
        """Claim a waiting trial and return its id or None: the first one, unless other workers want it too."""
        most = 1
        while waiting := self._backend.waiting(study_id, most):
            trial_id = random.choice(waiting)
            if self.take(study_id, trial_id):
                return trial_id
            most = min(2 * most, CROWD)  # so that workers which poll at the same time pick different ones
        return None

    def take(self, study_id: int, trial_id: int) -> bool:
        """Claim a trial; False if it does not wait any more."""
        with suppress(UpdateFinishedTrialError):  # another worker claimed it and has finished it
            if self._backend.set_trial_state_values(trial_id, TrialState.RUNNING):
                if trial_id not in self._trial_id_to_study_id_and_number:
                    self.get_all_trials(study_id, deepcopy=False, states=())  # by which the cache knows it
                return True
        return False


def cache_of(study: optuna.Study) -> Cache:
    """The storage of a study that this package opened."""
    storage = storage_of(study)
    assert isinstance(storage, Cache)
    return storage


def is_file(storage: BaseStorage) -> bool:
    """Whether the database is a file, and no server, which may be away."""
    return isinstance(storage, Cache) and storage.backend.engine.name == "sqlite"


def hurry(storage: BaseStorage) -> None:
    """Retry for a few seconds at most from now on: the process is about to end."""
    if isinstance(storage, Cache):
        storage.backend.retry.hurry()
