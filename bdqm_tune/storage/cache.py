"""Optuna's cache in front of a patient storage, which is what studies are given."""

import random
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from bdqm_tune.services.optuna_private import CachedStorage, StudyInfo, storage_of
from bdqm_tune.storage.retrying_storage import RetryingStorage

CROWD = 256  # workers that may want a trial at the same moment


class Cache(CachedStorage):
    """Optuna's cache in front of a patient storage, with less left to ask for: a trial is a hundred questions."""

    _backend: RetryingStorage

    def __init__(self, backend: RetryingStorage) -> None:
        super().__init__(backend)
        self._study_ids: dict[str, int] = {}

    @property
    def backend(self) -> RetryingStorage:
        """The storage itself."""
        return self._backend

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name not in self._study_ids:
            self._study_ids[study_name] = super().get_study_id_from_name(study_name)
        return self._study_ids[study_name]

    def take_waiting(self, study_id: int) -> int | None:
        """Take a waiting trial and give its id; None if there is none. It is the first, unless others want it too."""
        most = 1
        with self._backend.together():  # in one transaction
            while waiting := self._backend.waiting(study_id, most):
                trial_id = random.choice(waiting)
                if self.take(study_id, trial_id):
                    return trial_id
                most = min(2 * most, CROWD)  # so that workers which look at the same time find different ones
        return None

    def take(self, study_id: int, trial_id: int) -> bool:
        """Take a trial, if it waits."""
        with suppress(UpdateFinishedTrialError):  # another worker took it and has come to its end
            if self._backend.set_trial_state_values(trial_id, TrialState.RUNNING):
                self._know(study_id, trial_id)
                return True
        return False

    def _know(self, study_id: int, trial_id: int) -> None:
        if trial_id not in self._trial_id_to_study_id_and_number:
            with self._lock:
                self._studies.setdefault(study_id, StudyInfo())
                self._add_trials_to_cache(study_id, [self._backend.get_trial(trial_id)])

    def delete_study(self, study_id: int) -> None:
        self._study_ids.clear()
        super().delete_study(study_id)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        known = self._trial_id_to_study_id_and_number.get(trial_id)
        if known is None or not self._backend.in_block:
            return self._backend.get_trial_system_attrs(trial_id)  # Optuna would read all else of the trial, too
        study_id, number = known
        self._read_trials_from_remote_storage(study_id)  # which come next anyway
        return self._studies[study_id].trials[number].system_attrs | self._backend.unwritten_system_attrs(trial_id)

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if self._backend.news_wanted():
            super()._read_trials_from_remote_storage(study_id)


def cache_of(study: optuna.Study) -> Cache:
    """The storage of a study that this package opened."""
    storage = storage_of(study)
    assert isinstance(storage, Cache)
    return storage


def together(trial: optuna.Trial) -> AbstractContextManager[None]:
    """Write what is set of trials in the block in one transaction, and read them once, where the storage can."""
    return trial.storage.backend.together() if isinstance(trial.storage, Cache) else nullcontext()


def is_file(storage: BaseStorage) -> bool:
    """Whether the database is a file, and no server, which may be away."""
    return isinstance(storage, Cache) and storage.backend.engine.name == "sqlite"


def hurry(storage: BaseStorage) -> None:
    """Wait for the database a few seconds at most from now on: the process is about to end."""
    if isinstance(storage, Cache):
        storage.backend.patience.hurry()
