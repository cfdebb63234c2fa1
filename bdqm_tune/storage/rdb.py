"""A storage that asks the database little: over a slow network, or with many workers, each question is a wait."""

import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, check_distribution_compatibility, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from bdqm_tune.services.optuna_private import models, scoped_session
from bdqm_tune.storage.queries import CLAIM_TOKEN, StudyQueries, retrying
from bdqm_tune.storage.trial_sql import read_trials
from bdqm_tune.storage.trial_writes import Writes
from bdqm_tune.storage.unfinished import Unfinished


@dataclass
class _Block:
    """What a thread did in a block of `together`."""

    writes: Writes = field(default_factory=Writes)  # still to be done
    read: bool = False  # the trials


class BatchedStorage(StudyQueries):
    """A storage that reads trials in few statements, and writes what is set of them in one transaction."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._unfinished = Unfinished(CLAIM_TOKEN)
        self._thread = threading.local()
        super().__init__(*args, **options)

    @retrying
    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._reading() as session:
            trials = _without_tokens(read_trials(session, models.TrialModel.trial_id == trial_id))
        if not trials:
            raise KeyError(models.NOT_FOUND_MSG)
        return trials[0]

    @retrying
    def waiting(self, study_id: int, most: int) -> list[int]:
        """The first of the study's trials that wait."""
        with self._reading() as session:
            trial = models.TrialModel
            rows = session.query(trial.trial_id).filter_by(study_id=study_id, state=TrialState.WAITING)
            return [row.trial_id for row in rows.order_by(trial.trial_id).limit(most)]

    @retrying
    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        attributes = super().get_trial_system_attrs(trial_id)
        attributes.pop(CLAIM_TOKEN, None)
        return attributes

    @retrying
    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """The study's trials that the cache asks for: those it has that were not finished, and all that are newer.

        Those in which nothing changed are left out.
        """
        trial = models.TrialModel
        with self._reading() as session:
            same = self._unfinished.unchanged(session, study_id, included_trial_ids)
            if same:
                # The cache has all trials before these, since trials are added to a study one after the other.
                trial_id_greater_than = max(trial_id_greater_than, *included_trial_ids)
            wanted = trial.trial_id > trial_id_greater_than
            if changed := sorted(included_trial_ids - same):
                # In the statement itself, where databases allow so many.
                wanted |= trial.trial_id.in_(sa.bindparam("changed", changed, expanding=True, literal_execute=True))
            trials = _without_tokens(read_trials(session, trial.study_id == study_id, wanted))
            if not trials and trial_id_greater_than < 0:
                models.StudyModel.find_or_raise_by_id(study_id, session)
        self._unfinished.remember(trials)
        return [one for one in trials if states is None or one.state in states]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what is set of trials in the block in one transaction, at its end or where a trial ends in it.

        If the block fails, nothing is written. In the block, the trials are read once, in the same transaction.
        """
        self._thread.block = block = _Block()
        try:
            yield
            if block.writes:
                self._write(block.writes)
        finally:
            self._thread.block = None
            self._end_reading()

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        """A session to read in, whose transaction ends with it or, within a block, is left to what is written there."""
        if not self.in_block:
            with scoped_session(self.scoped_session) as session:
                yield session
            return
        try:
            yield self.scoped_session()
        except BaseException:
            self._end_reading()
            raise

    @contextmanager
    def _writing(self, ignore_integrity_error: bool = False) -> Iterator[Session]:
        """A session to write in; it goes on with the transaction of this thread's block, if that has read."""
        with scoped_session(self.scoped_session, ignore_integrity_error) as session:
            if self.engine.name == "sqlite":  # whose rows cannot be locked; two workers would take one trial
                session.connection().exec_driver_sql("BEGIN IMMEDIATE")
            yield session

    def _end_reading(self) -> None:
        """End the transaction in which this thread has read, if it goes on."""
        with suppress(sa.exc.SQLAlchemyError):  # else it has ended with its connection
            self.scoped_session.remove()

    def take_writes(self) -> Writes:
        """What this thread has set in its block and not written, for the caller to write."""
        writes = Writes()
        if self._block is not None:
            writes, self._block.writes = self._block.writes, writes
        return writes

    @property
    def _block(self) -> _Block | None:
        """The block of `together` in which this thread is."""
        return getattr(self._thread, "block", None)

    @property
    def in_block(self) -> bool:
        """Whether this thread is in a block of `together`."""
        return self._block is not None

    def unwritten_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """Those of a trial that this thread has set in its block."""
        writes = self._block.writes if self._block is not None else Writes()
        return {key: value for (trial, key), value in writes.system_attrs.items() if trial == trial_id}

    def news_wanted(self) -> bool:
        """Whether the trials may have changed since they were read, as far as this thread cares."""
        if self._block is None:
            return True
        first, self._block.read = not self._block.read, True
        return first

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set(Writes(user_attrs={(trial_id, key): value}))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set(Writes(system_attrs={(trial_id, key): value}))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._set(Writes(reports={(trial_id, step): intermediate_value}))

    def _set_trial_param(self, *call: Any) -> None:
        self._set(Writes(params=[call]))

    def _set(self, writes: Writes) -> None:
        if self._block is None:
            self._write(writes)
        else:
            self._block.writes.add(writes)

    def _check_claim(self, session: Session, trial_id: int) -> None:
        """Raise ClaimLost if the trial, which this transaction has locked, was ours and is another worker's by now."""

    @retrying
    def _write(self, writes: Writes) -> None:
        # Where an answer was lost, the parameters are there, and all else, as one transaction wrote it.
        with self._writing(ignore_integrity_error=True) as session:
            for trial_id in writes.trial_ids():
                # As it is now, whatever was read before; and until the transaction ends.
                trial: Any = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
                self._check_claim(session, trial_id)
                self.check_trial_is_updatable(trial_id, trial.state)
            for trial_id, name, _, distribution, cached in writes.params:
                before = cached or _distribution_before(session, trial_id, name)
                if before is not None:
                    check_distribution_compatibility(before, distribution)
            writes.execute(session)


def _distribution_before(session: Session, trial_id: int, param: str) -> BaseDistribution | None:
    """From what some trial of the same study has drawn the parameter; None: from nothing."""
    trial, params = models.TrialModel, models.TrialParamModel
    study = sa.select(trial.study_id).where(trial.trial_id == trial_id).scalar_subquery()
    found = session.query(params.distribution_json).join(trial).filter(trial.study_id == study)
    text = found.filter(params.param_name == param).limit(1).scalar()
    return json_to_distribution(text) if text is not None else None


def _without_tokens(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    for trial in trials:
        trial._system_attrs.pop(CLAIM_TOKEN, None)
    return trials
