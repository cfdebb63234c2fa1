"""Optuna's storage in a database, which retries while the database is away and claims trials for its worker."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from bdqm_tune.errors import BdqmError
from bdqm_tune.services.optuna_private import models, scoped_session, system_attributes
from bdqm_tune.storage.queries import CLAIM_TOKEN, Claim, StudyQueries, retrying
from bdqm_tune.storage.retry import Retry

CLAIM_LOST = "another worker has claimed the trial, as this one sent no heartbeat"


class ClaimLost(BdqmError):
    """The worker was declared dead, and another one has claimed its trial."""


class RetryingStorage(StudyQueries):
    """A storage whose operations are idempotent, and retried while the database does not answer.

    Optuna calls it through a cache of its own (`optuna.storages.get_storage`), which is why some of the operations
    below are those with an underscore.
    """

    def __init__(self, url: str, retry: Retry, engine_options: dict[str, Any], make_tables: bool) -> None:
        self.retry = retry
        self._tried: set[str] = set()  # claim tokens of operations that were attempted
        self._held: dict[int, str] = {}  # trials that we run, by id: their claim tokens
        self._lost: set[int] = set()  # trials that we ran until we were declared dead
        self.worker = ""  # the first part of these claim tokens
        self.certainly_alive: Callable[[], bool] = lambda: True  # whether nobody can have declared this worker dead
        super().__init__(url, engine_options, skip_compatibility_check=True, skip_table_creation=not make_tables)

    def _begin_writing(self, session: Session) -> None:
        """In SQLite, which locks no rows, let nobody else write until the transaction ends."""
        if self.engine.name == "sqlite":
            connection = session.connection()
            if not connection.connection.in_transaction:
                connection.exec_driver_sql("BEGIN IMMEDIATE")

    def close(self) -> None:
        """Close the connections."""
        self.scoped_session.remove()
        self.engine.dispose()

    create_new_study = retrying(RDBStorage.create_new_study)
    set_study_user_attr = retrying(RDBStorage.set_study_user_attr)
    set_study_system_attr = retrying(RDBStorage.set_study_system_attr)
    get_study_id_from_name = retrying(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = retrying(RDBStorage.get_study_name_from_id)
    get_study_directions = retrying(RDBStorage.get_study_directions)
    get_study_user_attrs = retrying(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = retrying(RDBStorage.get_study_system_attrs)
    get_all_studies = retrying(RDBStorage.get_all_studies)
    get_trial_id_from_study_id_trial_number = retrying(RDBStorage.get_trial_id_from_study_id_trial_number)
    _get_best_trial_id = retrying(RDBStorage._get_best_trial_id)
    record_heartbeat = retrying(RDBStorage.record_heartbeat)
    _get_stale_trial_ids = retrying(RDBStorage._get_stale_trial_ids)
    get_trial = retrying(RDBStorage.get_trial)
    # Where the answer to a parameter was lost, the parameter is there, and Optuna ignores that it cannot be added.
    _set_trial_param = retrying(RDBStorage._set_trial_param)
    set_trial_intermediate_value = retrying(RDBStorage.set_trial_intermediate_value)
    set_trial_user_attr = retrying(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = retrying(RDBStorage.set_trial_system_attr)

    def check_trial_is_updatable(self, trial_id: int, trial_state: TrialState) -> None:
        """As Optuna's, and for a trial whose claim we still hold. Optuna calls it in every transaction on a trial.

        The trial is locked until the transaction ends, so that no other worker claims or finishes it meanwhile.

        Raises:
            ClaimLost: another worker has claimed the trial.
        """
        session, trial = self.scoped_session(), models.TrialModel
        self._begin_writing(session)
        state = session.query(trial.state).filter_by(trial_id=trial_id).with_for_update().scalar()
        super().check_trial_is_updatable(trial_id, state)
        held = self._held.get(trial_id)
        if held is not None and self._find_token(session, trial_id) != held:
            self._held.pop(trial_id, None)
            self._lost.add(trial_id)
        if trial_id in self._lost:
            raise ClaimLost(CLAIM_LOST)

    @retrying
    def create_study(self, name: str, directions: Sequence[StudyDirection], user_attrs: Mapping[str, Any]) -> None:
        """Create a study with its attributes in one transaction, unless there is one of that name."""
        of_objectives = [
            models.StudyDirectionModel(objective=objective, direction=direction)
            for objective, direction in enumerate(directions)
        ]
        attributes = [
            models.StudyUserAttributeModel(key=key, value_json=json.dumps(value)) for key, value in user_attrs.items()
        ]
        with scoped_session(self.scoped_session, ignore_integrity_error=True) as session:
            session.add(models.StudyModel(study_name=name, directions=of_objectives, user_attributes=attributes))

    def delete_study(self, study_id: int) -> None:
        self._delete_study(study_id, uuid4().hex)

    @retrying
    def _delete_study(self, study_id: int, token: str) -> None:
        with suppress(KeyError) if self._again(token) else nullcontext():
            super().delete_study(study_id)

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        if template_trial is None:
            return self._add_trial(study_id)
        template_trial = copy.deepcopy(template_trial)
        system_attributes(template_trial)[CLAIM_TOKEN] = uuid4().hex
        trial = self._add_trial(study_id, template_trial)
        del system_attributes(trial)[CLAIM_TOKEN]
        return trial

    _add_trial = retrying(RDBStorage._create_new_trial)  # which has five attempts of its own

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        token = system_attributes(template_trial)[CLAIM_TOKEN] if template_trial is not None else ""
        if token and self._again(token):
            added = session.query(models.TrialModel).filter_by(study_id=study_id).join(models.TrialSystemAttributeModel)
            existing = added.filter_by(key=CLAIM_TOKEN, value_json=json.dumps(token)).one_or_none()
            if existing is not None:
                return existing
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    def add_waiting(self, study_id: int, n_trials: int) -> None:
        """Add empty waiting trials, all in one transaction."""
        self._add_waiting(study_id, n_trials, uuid4().hex)

    @retrying
    def _add_waiting(self, study_id: int, n_trials: int, token: str) -> None:
        again, trial = self._again(token), models.TrialModel
        with scoped_session(self.scoped_session) as session:
            self._begin_writing(session)
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)  # one adds after the other
            of_study = session.query(trial.trial_id).filter_by(study_id=study_id)
            added = of_study.join(models.TrialSystemAttributeModel).filter_by(
                key=CLAIM_TOKEN, value_json=json.dumps(token)
            )
            if again and added.count():
                return
            n_existing = of_study.count()
            numbers = range(n_existing, n_existing + n_trials)
            rows = [{"study_id": study_id, "number": number, "state": TrialState.WAITING} for number in numbers]
            session.execute(sa.insert(trial), rows)
            last = session.query(trial).filter_by(study_id=study_id, number=numbers[-1]).one()
            _set(session, models.TrialSystemAttributeModel, last, CLAIM_TOKEN, token)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As Optuna's; a trial that we run is changed only while we hold its claim.

        Raises:
            ClaimLost: another worker has claimed the trial.
        """
        if trial_id in self._lost and state != TrialState.RUNNING:
            raise ClaimLost(CLAIM_LOST)
        # Another thread of ours may have claimed the trial that this one is about to claim.
        held = None if state == TrialState.RUNNING else self._held.get(trial_id)
        token = self._new_token(state)
        try:
            done = self._change_state(trial_id, state, values, token, held, {})
        except UpdateFinishedTrialError:
            self._held.pop(trial_id, None)
            raise
        except ClaimLost:
            self._held.pop(trial_id, None)
            self._lost.add(trial_id)
            raise
        if state != TrialState.RUNNING:
            self._held.pop(trial_id, None)
        elif done:
            self._held[trial_id] = token
            self._lost.discard(trial_id)
        return done

    def requeue(self, trial: Claim, state: TrialState, attributes: Mapping[str, Any]) -> bool:
        """Requeue a trial of another worker, or fail it; False if its claim token has changed or it has finished.

        Args:
            state: WAITING or FAIL.
            attributes: user attributes to set in the same transaction.
        """
        token = self._new_token(state)
        with suppress(ClaimLost, UpdateFinishedTrialError):
            return self._change_state(trial.trial_id, state, None, token, trial.token, attributes)
        return False

    @retrying
    def others_run(self, study_id: int) -> bool:
        """True if any other worker has a running trial. Fetches one row only: this is polled."""
        tokens = models.TrialSystemAttributeModel.value_json  # WORKER:…; of a trial that no worker of ours runs, others
        with scoped_session(self.scoped_session) as session:
            running = self._running(session, study_id)
            named = running.filter(tokens.like('"_%:%'), tokens.not_like(f'"{self.worker}:%'))
            return named.first() is not None

    def holds(self, trial_id: int) -> bool:
        """Whether we hold the claim of the trial, without a query."""
        return trial_id in self._held

    def certainly_holds(self, trial_id: int) -> bool:
        """The same, for what cannot be undone; queries the database if we may have been declared dead.

        False if the database does not answer within the retry timeout: another worker may have claimed the trial.
        """
        token = self._held.get(trial_id)
        if token is None or self.certainly_alive():
            return token is not None
        attribute = models.TrialSystemAttributeModel

        def query() -> str | None:
            with scoped_session(self.scoped_session) as session:
                rows = session.query(attribute.value_json).filter_by(trial_id=trial_id, key=CLAIM_TOKEN)
                return rows.scalar()

        try:
            return self.retry(query) == json.dumps(token)
        except (StorageInternalError, sa.exc.SQLAlchemyError):
            return False

    def drop_claims(self) -> None:
        """Give up all claims: we were declared dead."""
        self._lost |= self._held.keys()
        self._held.clear()

    @retrying
    def _change_state(
        self,
        trial_id: int,
        state: TrialState,
        values: Sequence[float] | None,
        token: str,
        held: str | None,
        attributes: Mapping[str, Any],
    ) -> bool:
        again = self._again(token)
        with scoped_session(self.scoped_session) as session:
            self._begin_writing(session)
            trial: Any = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
            current = self._find_token(session, trial_id) if again or held is not None else None
            if again and current == token:
                return True
            if held is not None and current != held:
                raise ClaimLost(CLAIM_LOST)
            super().check_trial_is_updatable(trial_id, trial.state)
            if state == TrialState.RUNNING:
                if trial.state != TrialState.WAITING:
                    return False
                trial.datetime_start = datetime.now()
            if state.is_finished():
                trial.datetime_complete = datetime.now()
            trial.state = state
            for objective, value in enumerate(values or ()):
                stored, kind = models.TrialValueModel.value_to_stored_repr(value)
                row = {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}
                session.add(models.TrialValueModel(**row))
            for key, attribute in attributes.items():
                _set(session, models.TrialUserAttributeModel, trial, key, attribute)
            _set(session, models.TrialSystemAttributeModel, trial, CLAIM_TOKEN, token)
        return True

    @staticmethod
    def _find_token(session: Session, trial_id: int) -> str | None:
        """The trial's claim token, read with a lock and not from the transaction's snapshot."""
        attribute = models.TrialSystemAttributeModel
        tokens = session.query(attribute.value_json).filter_by(trial_id=trial_id, key=CLAIM_TOKEN).with_for_update()
        token = tokens.scalar()
        return json.loads(token) if token is not None else None

    def _new_token(self, state: TrialState) -> str:
        """A token for a change to a state; that of a waiting trial names no worker, as any program may claim it."""
        return f"{'' if state == TrialState.WAITING else self.worker}:{uuid4().hex}"

    def _again(self, token: str) -> bool:
        """Whether the operation of this token was attempted before, and may have been done."""
        again = token in self._tried
        self._tried.add(token)
        return again


def _set(session: Session, table: Any, trial: models.TrialModel, key: str, value: Any) -> None:
    """Set an attribute of a trial that this transaction has locked."""
    row = table.find_by_trial_and_key(trial, key, session)
    if row is None:
        session.add(table(trial_id=trial.trial_id, key=key, value_json=json.dumps(value)))
    else:
        row.value_json = json.dumps(value)
