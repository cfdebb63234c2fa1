"""A study's trials, read in one query a table, whatever their number."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution

from bdqm_tune.services.optuna_private import models
from bdqm_tune.services.tables import WORKERS
from bdqm_tune.storage.queries import CLAIM_TOKEN
from bdqm_tune.storage.retrying_storage import RetryingStorage

FIXED = "fixed_params"  # Optuna's attribute of an enqueued trial: its parameters


class TrialTables:
    """The tables of one study's trials, to read.

    Args:
        storage: retries, and raises StudyDatabaseFailed after its retry timeout.
    """

    def __init__(self, storage: RetryingStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id

    def _rows(self, query: Any) -> Sequence[Any]:
        def once() -> Sequence[Any]:
            with self._storage.engine.connect() as connection:
                return connection.execute(query.where(models.TrialModel.study_id == self._study_id)).all()

        return self._storage.retry(once)

    def workers(self) -> dict[int, str]:
        """The name of the worker that had a trial last, by the trial's id."""
        return {key: json.loads(token).rpartition(":")[0] for key, token in self._attributes(CLAIM_TOKEN)}

    def descriptions(self) -> dict[str, dict[str, str]]:
        """Descriptions of the workers, by name; none for a study that is older than the table of workers."""
        query = sa.select(WORKERS.c.worker, WORKERS.c.description).where(WORKERS.c.study_id == self._study_id)

        def once() -> Sequence[Any]:
            with self._storage.engine.connect() as connection:
                # Not `Workers`, which makes the table: a reader may have no right to.
                return connection.execute(query).all() if sa.inspect(connection).has_table(WORKERS.name) else ()

        return {worker: json.loads(description) for worker, description in self._storage.retry(once)}

    def given(self) -> set[int]:
        """Ids of the trials with enqueued parameters, all or some, that the sampler did not choose."""
        return {key for key, parameters in self._attributes(FIXED) if json.loads(parameters)}

    def _attributes(self, key: str) -> Sequence[Any]:
        attribute = models.TrialSystemAttributeModel
        query = sa.select(attribute.trial_id, attribute.value_json).join(
            models.TrialModel, models.TrialModel.trial_id == attribute.trial_id
        )
        return self._rows(query.where(attribute.key == key))

    def spaces(self) -> dict[str, list[BaseDistribution]]:
        """The distributions of each hyperparameter; several, where the study was resumed with another range."""
        parameter = models.TrialParamModel
        query = sa.select(parameter.param_name, parameter.distribution_json).join(
            models.TrialModel, models.TrialModel.trial_id == parameter.trial_id
        )
        spaces: dict[str, list[BaseDistribution]] = {}
        for name, text in self._rows(query.distinct()):
            spaces.setdefault(name, []).append(json_to_distribution(text))
        return spaces


def is_searched(spaces: Mapping[str, Sequence[BaseDistribution]], name: str) -> bool:
    """Whether a hyperparameter could have more than one value."""
    return any(not space.single() for space in spaces.get(name, ()))
