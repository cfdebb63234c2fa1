"""Which trials have changed since they were read: of hundreds that wait or run, few have."""

from collections.abc import Iterable, Set

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from bdqm_tune.services.optuna_private import id_of, models

ATTRIBUTES = models.TrialSystemAttributeModel
FEW = 300  # rows that are read again in no more time than it takes to ask which of them changed
ROWS = (models.TrialParamModel, models.TrialUserAttributeModel, ATTRIBUTES, models.TrialIntermediateValueModel)


class Unfinished:
    """The trials that had not finished when they were last read.

    A trial that waits changes by its state alone, and one that runs by rows that are added to it: a new value of an
    attribute that it has is seen when its state changes.

    Args:
        ignored: a system attribute that does not count.
    """

    def __init__(self, ignored: str) -> None:
        self._ignored = ignored
        self._waiting: set[int] = set()
        self._running: dict[int, int] = {}  # rows of each

    def remember(self, trials: Iterable[FrozenTrial]) -> None:
        """Take note of trials that were read."""
        for trial in trials:
            self._waiting.discard(id_of(trial))
            self._running.pop(id_of(trial), None)
            if trial.state == TrialState.WAITING:
                self._waiting.add(id_of(trial))
            elif trial.state == TrialState.RUNNING:
                attributes = len(trial.user_attrs) + len(trial.system_attrs)
                self._running[id_of(trial)] = len(trial.params) + attributes + len(trial.intermediate_values)

    def unchanged(self, session: Session, study_id: int, ids: Set[int]) -> set[int]:
        """Those of the study's trials that are as they were; none where it is as easy to read all of them."""
        same: set[int] = set()
        if sum(1 + self._running.get(trial_id, 0) for trial_id in ids) <= FEW:
            return same
        if waiting := ids & self._waiting:
            same |= self._still_waiting(session, study_id, waiting)
        if running := ids & self._running.keys():
            trial = models.TrialModel
            rows = session.query(trial.trial_id, self._n_rows().label("n")).filter_by(
                study_id=study_id, state=TrialState.RUNNING
            )
            same |= {row.trial_id for row in rows if row.trial_id in running and row.n == self._running[row.trial_id]}
        return same

    @staticmethod
    def _still_waiting(session: Session, study_id: int, ids: Set[int]) -> set[int]:
        """Those that wait, found without reading them all: they are taken in their order, or nearly so."""
        trial = models.TrialModel
        of_study = session.query(trial.trial_id).filter_by(study_id=study_id)
        first = of_study.filter_by(state=TrialState.WAITING).order_by(trial.trial_id).limit(1).scalar()
        if first is None:
            return set()
        taken = {row.trial_id for row in of_study.filter(trial.trial_id > first, trial.state != TrialState.WAITING)}
        return {one for one in ids if one >= first} - taken

    def _n_rows(self) -> sa.ColumnElement[int]:
        """The number of rows that belong to a trial."""
        counts = []
        for model in ROWS:
            count = sa.select(sa.func.count()).where(model.trial_id == models.TrialModel.trial_id)
            if model is ATTRIBUTES:
                count = count.where(ATTRIBUTES.key != self._ignored)
            counts.append(count.scalar_subquery())
        return sum(counts[1:], start=counts[0])
