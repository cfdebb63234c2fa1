"""Every private name of Optuna that this package uses, and why; nothing else imports one, or reads such an attribute.

But for `storage/`, whose classes are storages of Optuna: they replace and call methods of these, which are listed here.

Optuna's public interface has no way to claim a trial, or to repeat a call whose answer was lost. `BY_NAME`
lists what is used; its test names those that a new version of Optuna lacks.
"""

from typing import Any

from optuna import Study, Trial
from optuna._hypervolume import compute_hypervolume
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.storages._cached_storage import _CachedStorage as CachedStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session as scoped_session
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial

__all__ = [
    "CachedStorage",
    "FrozenStudy",
    "compute_hypervolume",
    "contains",
    "forget_trials",
    "id_of",
    "models",
    "revisions",
    "scoped_session",
    "storage_of",
    "suggest",
    "system_attributes",
    "trial_moments",
]

# By object, the names that are used of it, and why.
BY_NAME = {
    "optuna.storages._rdb.models": (
        "Optuna's tables: claims on trials, our own queries, rows copied as they are",
        (),
    ),
    "optuna.storages._rdb.storage._create_scoped_session": ("a transaction as Optuna's own code has it", ()),
    "optuna.storages._cached_storage._CachedStorage": (
        "the cache that Optuna puts around a database; from ours, workers take trials",
        ("_backend", "_trial_id_to_study_id_and_number"),
    ),
    "optuna.storages.RDBStorage": (
        "operations that Optuna's cache calls, made safe to repeat",
        (
            "_build_frozen_trial_from_trial_model",
            "_create_new_trial",
            "_get_best_trial_id",
            "_get_prepared_new_trial",
            "_get_stale_trial_ids",
            "_get_trials",
            "_set_trial_param",
            "_version_manager",
        ),
    ),
    "optuna.storages._rdb.storage._VersionManager": ("the revisions of Optuna's tables", ("_create_alembic_script",)),
    "optuna.storages._rdb.models.TrialModel": (
        "moments in UTC, whose public names convert them",
        ("_datetime_start_utc", "_datetime_complete_utc"),
    ),
    "optuna.Study": ("its id and its storage; trials it has read before", ("_study_id", "_storage", "_thread_local")),
    "optuna.trial.FrozenTrial": (
        "the trial's id, and a claim on its way to the database",
        ("_trial_id", "_system_attrs"),
    ),
    "optuna.distributions.FloatDistribution": ("whether a value is within it", ("_contains",)),
    "optuna.distributions.IntDistribution": ("the same", ("_contains",)),
    "optuna.Trial": ("a value of any distribution", ("_suggest",)),
    "optuna.study._frozen.FrozenStudy": ("studies with their attributes, in one statement", ()),
    "optuna._hypervolume.compute_hypervolume": ("the hypervolume of a Pareto front", ()),
}


def id_of(item: Study | FrozenStudy | Trial | FrozenTrial) -> int:
    """The id of a study or a trial in the database."""
    return item._study_id if isinstance(item, Study | FrozenStudy) else item._trial_id


def revisions(storage: Any) -> Any:
    """Alembic's revisions of Optuna's tables, of an `RDBStorage`."""
    return storage._version_manager._create_alembic_script()


def storage_of(study: Study) -> BaseStorage:
    """The storage that a study's trials are in."""
    return study._storage


def suggest(trial: Trial, name: str, distribution: Any) -> Any:
    """A value for a hyperparameter, whatever its distribution is."""
    return trial._suggest(name, distribution)


def contains(distribution: BaseDistribution, value: float) -> bool:
    """Whether a number is within a distribution, and on its grid if it has one."""
    return distribution._contains(distribution.to_internal_repr(value))


def system_attributes(trial: FrozenTrial) -> dict[str, Any]:
    """The attributes that a trial brings to the database and users do not see; they can be changed."""
    return trial._system_attrs


def trial_moments() -> tuple[Any, Any]:
    """The columns of the beginning and the end of trials, UTC."""
    return models.TrialModel._datetime_start_utc, models.TrialModel._datetime_complete_utc


def forget_trials(study: Study) -> None:
    """Let a study read its trials again, where others may have changed them."""
    study._thread_local.cached_all_trials = None
