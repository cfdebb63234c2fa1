"""A study's trials as its database has them: one query a table, whatever their number."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution

from bdqm_tune.services.optuna_private import models
from bdqm_tune.services.tables import WORKERS
from bdqm_tune.storage.queries import CLAIM_TOKEN
from bdqm_tune.storage.retrying_storage import RetryingStorage

FIXED = "fixed_params"  # Optuna's attribute of a trial whose parameters were given to it


class TrialTables:
    """The tables of one study's trials, to read.

    Args:
        storage: waits for the database, and raises StudyDatabaseFailed in the end.
    """

    def __init__(self, storage: RetryingStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id

    def _rows(self, query: Any) -> Sequence[Any]:
        def once() -> Sequence[Any]:
            with self._storage.engine.connect() as connection:
                return connection.execute(query.where(models.TrialModel.study_id == self._study_id)).all()

        return self._storage.patience(once)

    def workers(self) -> dict[int, str]:
        """The name of the worker that had a trial last, by the trial's id."""
        return {key: json.loads(token).rpartition(":")[0] for key, token in self._attributes(CLAIM_TOKEN)}

    def descriptions(self) -> dict[str, dict[str, str]]:
        """What the workers said of themselves, by their names; of a study of before there was such a table, none."""
        query = sa.select(WORKERS.c.worker, WORKERS.c.description).where(WORKERS.c.study_id == self._study_id)

        def once() -> Sequence[Any]:
            with self._storage.engine.connect() as connection:
                # Not `Workers`, which makes the table: who looks on may have no right to.
                return connection.execute(query).all() if sa.inspect(connection).has_table(WORKERS.name) else ()

        return {worker: json.loads(description) for worker, description in self._storage.patience(once)}

    def given(self) -> set[int]:
        """The ids of the trials whose parameters were given, all or some, and not chosen by the sampler."""
        return {key for key, parameters in self._attributes(FIXED) if json.loads(parameters)}

    def _attributes(self, key: str) -> Sequence[Any]:
        attribute = models.TrialSystemAttributeModel
        query = sa.select(attribute.trial_id, attribute.value_json).join(
            models.TrialModel, models.TrialModel.trial_id == attribute.trial_id
        )
        return self._rows(query.where(attribute.key == key))

    def spaces(self) -> dict[str, list[BaseDistribution]]:
        """What each hyperparameter was searched in; several, where the study was taken up with another range."""
        parameter = models.TrialParamModel
        query = sa.select(parameter.param_name, parameter.distribution_json).join(
            models.TrialModel, models.TrialModel.trial_id == parameter.trial_id
        )
        found: dict[str, list[BaseDistribution]] = {}
        for name, text in self._rows(query.distinct()):
            found.setdefault(name, []).append(json_to_distribution(text))
        return found


def is_searched(spaces: Mapping[str, Sequence[BaseDistribution]], name: str) -> bool:
    """Whether a hyperparameter could have more than one value."""
    return any(not space.single() for space in spaces.get(name, ()))
