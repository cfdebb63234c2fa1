"""Optuna's cache in front of a patient storage, which is what studies are given."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.storages._cached_storage import _CachedStorage

from bdqm_tune.experiment.patient_storage import PatientStorage

HURRY = 5.0  # seconds


class Cache(_CachedStorage):
    """Optuna's cache in front of a patient storage, with less left to ask for: a trial is a hundred questions."""

    _backend: PatientStorage

    def __init__(self, backend: PatientStorage) -> None:
        super().__init__(backend)
        self._study_ids: dict[str, int] = {}

    @property
    def backend(self) -> PatientStorage:
        """The storage itself."""
        return self._backend

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name not in self._study_ids:
            self._study_ids[study_name] = super().get_study_id_from_name(study_name)
        return self._study_ids[study_name]

    def delete_study(self, study_id: int) -> None:
        self._study_ids.clear()
        super().delete_study(study_id)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        return self._backend.get_trial_system_attrs(trial_id)  # Optuna would read all else of the trial, too

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if self._backend.news_wanted():
            super()._read_trials_from_remote_storage(study_id)


def together(trial: optuna.Trial) -> AbstractContextManager[None]:
    """Write the hyperparameters that are suggested in the block in one transaction, where the storage can."""
    return trial.storage.backend.together() if isinstance(trial.storage, Cache) else nullcontext()


def hurry(storage: BaseStorage) -> None:
    """Wait for the database a few seconds at most from now on: the process is about to end."""
    if isinstance(storage, Cache):
        patience = storage.backend.patience
        patience.seconds = min(patience.seconds, HURRY)
