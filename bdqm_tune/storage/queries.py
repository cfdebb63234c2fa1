"""Queries of a study's tables beyond Optuna's own, retried while the database is away."""

import json
from collections.abc import Callable, Container, Sequence
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Executable
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Query, Session

from bdqm_tune.errors import BdqmError
from bdqm_tune.services.optuna_private import id_of, models, scoped_session, system_attributes
from bdqm_tune.storage.retry import Retry, reason

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

# An attribute of a trial that the storage keeps to itself. Every new trial and every change of a state carries a token
# of its own, so that a retry after a lost answer finds out whether the first attempt was done.
CLAIM_TOKEN = "bdqm:mark"  # nosec B105  # the name of an attribute


class StudyDatabaseFailed(BdqmError, StorageInternalError):
    """The database did not answer within the retry timeout, or refused a query."""


class Claim(NamedTuple):
    """A running trial and its claim token."""

    trial_id: int
    token: str  # of its latest change of state

    @property
    def worker(self) -> str:
        """Name of the worker that runs it; "" where it is not known."""
        return self.token.rpartition(":")[0]


def retrying(
    method: Callable[Concatenate[Any, Arguments], Answer],
) -> Callable[Concatenate[Any, Arguments], Answer]:
    """The method, retried with back-off while the database does not answer."""

    def retried(self: "StudyQueries", /, *args: Arguments.args, **options: Arguments.kwargs) -> Answer:
        try:
            return self.retry(lambda: method(self, *args, **options))
        except (StorageInternalError, SQLAlchemyError) as error:
            raise StudyDatabaseFailed(f"{self.retry.name()} failed: {reason(error)}") from error

    return retried


class StudyQueries(RDBStorage):
    """Optuna's storage, with queries of our own."""

    retry: Retry

    def __init__(self, *args: Any, **options: Any) -> None:
        self._waiting: set[int] = set()  # trials that waited when they were last read
        super().__init__(*args, **options)

    def _build_frozen_trial_from_trial_model(self, trial: models.TrialModel) -> FrozenTrial:
        frozen = super()._build_frozen_trial_from_trial_model(trial)
        system_attributes(frozen).pop(CLAIM_TOKEN, None)
        return frozen

    @retrying
    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """The study's trials that Optuna's cache requests: those it has that were not finished, and all newer ones.

        Those that waited and still wait, thousands at times, are left out.
        """
        trial = models.TrialModel
        with scoped_session(self.scoped_session) as session:
            rows = session.query(trial.trial_id).filter_by(study_id=study_id, state=TrialState.WAITING).all()
        same = {row.trial_id for row in rows} & self._waiting & included_trial_ids
        if same:
            # The cache has all trials before these, since trials are added to a study one after the other.
            trial_id_greater_than = max(trial_id_greater_than, *included_trial_ids)
        trials = super()._get_trials(study_id, states, included_trial_ids - same, trial_id_greater_than)
        self._waiting -= included_trial_ids - same
        self._waiting |= {id_of(each) for each in trials if each.state == TrialState.WAITING}
        return trials

    @retrying
    def waiting(self, study_id: int, most: int) -> list[int]:
        """The first of the study's trials that wait."""
        trial = models.TrialModel
        with scoped_session(self.scoped_session) as session:
            rows = session.query(trial.trial_id).filter_by(study_id=study_id, state=TrialState.WAITING)
            return [row.trial_id for row in rows.order_by(trial.trial_id).limit(most)]

    @retrying
    def count_trials(self, study_id: int) -> int:
        """How many trials the study has."""
        with scoped_session(self.scoped_session) as session:
            return session.query(models.TrialModel.trial_id).filter_by(study_id=study_id).count()

    @retrying
    def distributions(self, study_id: int) -> list[tuple[str, BaseDistribution]]:
        """The hyperparameters of the study's trials, each with every distribution it was drawn from."""
        with scoped_session(self.scoped_session) as session:
            param = models.TrialParamModel
            rows = session.query(param.param_name, param.distribution_json).join(models.TrialModel)
            different = rows.filter_by(study_id=study_id).distinct().all()
        return [(row.param_name, json_to_distribution(row.distribution_json)) for row in different]

    @retrying
    def running(self, study_id: int) -> list[Claim]:
        """The study's running trials."""
        with scoped_session(self.scoped_session) as session:
            rows = self._running(session, study_id).all()
        return [Claim(row.trial_id, json.loads(row.value_json or '""')) for row in rows]

    @staticmethod
    def _running(session: Session, study_id: int) -> Query[Any]:
        """The study's running trials, with their claim tokens as JSON."""
        trial, attribute = models.TrialModel, models.TrialSystemAttributeModel
        rows = session.query(trial.trial_id, attribute.value_json).filter_by(
            study_id=study_id, state=TrialState.RUNNING
        )
        return rows.outerjoin(attribute, (attribute.trial_id == trial.trial_id) & (attribute.key == CLAIM_TOKEN))

    @retrying
    def fetch(self, query: Executable) -> Sequence[Any]:
        """The rows of a query."""
        with self.engine.begin() as connection:
            return connection.execute(query).all()
