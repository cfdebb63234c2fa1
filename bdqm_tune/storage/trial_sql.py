"""Trials read in one statement, where Optuna takes six: over a slow network each of them is a wait."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from bdqm_tune.services.optuna_private import models

TRIAL, PARAM = models.TrialModel, models.TrialParamModel
USER_ATTR, SYSTEM_ATTR = models.TrialUserAttributeModel, models.TrialSystemAttributeModel
VALUE, REPORT = models.TrialValueModel, models.TrialIntermediateValueModel

_distribution = lru_cache(maxsize=10_000)(json_to_distribution)  # the trials of a study share a few


class _Kind(IntEnum):
    """Of a row of a trial, or of one that belongs to it."""

    TRIAL = 0
    PARAM = 1
    USER_ATTR = 2
    SYSTEM_ATTR = 3
    VALUE = 4
    REPORT = 5


@dataclass
class _Rows:
    """What there is of a trial."""

    number: int = 0
    state: TrialState = TrialState.RUNNING
    start: datetime | None = None
    complete: datetime | None = None
    params: list[tuple[int, str, str, float]] = field(default_factory=list)  # id, name, distribution, value
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    values: dict[int, float] = field(default_factory=dict)
    reports: dict[int, float] = field(default_factory=dict)

    def add(
        self,
        kind: int,
        place: int,
        code: int,
        name: str,
        text: str,
        number: float,
        start: datetime | None,
        complete: datetime | None,
    ) -> None:
        if kind == _Kind.TRIAL:
            self.number, self.state, self.start, self.complete = place, TrialState(code), start, complete
        elif kind == _Kind.PARAM:
            self.params.append((place, name, text, number))
        elif kind == _Kind.USER_ATTR:
            self.user_attrs[name] = json.loads(text)
        elif kind == _Kind.SYSTEM_ATTR:
            self.system_attrs[name] = json.loads(text)
        elif kind == _Kind.VALUE:
            self.values[place] = VALUE.stored_repr_to_value(number, VALUE.TrialValueType(code))
        else:
            stored = REPORT.TrialIntermediateValueType(code)
            self.reports[place] = REPORT.stored_repr_to_intermediate_value(number, stored)

    def frozen(self, trial_id: int) -> FrozenTrial:
        # Optuna's own way from what is stored to local time.
        times = TRIAL(_datetime_start_utc=self.start, _datetime_complete_utc=self.complete)
        params = [(name, _distribution(text), number) for _, name, text, number in sorted(self.params)]
        return FrozenTrial(
            number=self.number,
            state=self.state,
            value=None,
            values=[value for _, value in sorted(self.values.items())] or None,
            datetime_start=times.datetime_start,
            datetime_complete=times.datetime_complete,
            params={name: distribution.to_external_repr(number) for name, distribution, number in params},
            distributions={name: distribution for name, distribution, _ in params},
            user_attrs=self.user_attrs,
            system_attrs=self.system_attrs,
            intermediate_values=self.reports,
            trial_id=trial_id,
        )


def read_trials(session: Session, *conditions: sa.ColumnElement[bool]) -> list[FrozenTrial]:
    """The trials, by their id, that meet the conditions on their table."""
    found: dict[int, _Rows] = defaultdict(_Rows)
    for trial_id, *row in session.execute(sa.union_all(*(select.where(*conditions) for select in SELECTS))):
        found[trial_id].add(*row)
    return [found[trial_id].frozen(trial_id) for trial_id in sorted(found)]


def _select(
    kind: _Kind,
    model: Any,
    place: Any = None,
    code: Any = None,
    name: Any = None,
    text: Any = None,
    number: Any = None,
    start: Any = None,
    complete: Any = None,
) -> sa.Select[Any]:
    """The rows of a table, in the columns that all have."""
    numbered: sa.ColumnElement[int] = sa.literal_column("0", sa.Integer)
    if code is not None:  # by number, as names of two types cannot stand in one column everywhere
        numbers: Mapping[Enum, int] = {one: one.value for one in code.type.enum_class}
        numbered = sa.case(*((code == one, sa.literal_column(str(value))) for one, value in numbers.items()))
    others = (sa.null() if column is None else column for column in (name, text, number, start, complete))
    kind_column = sa.literal_column(str(int(kind)), sa.Integer)
    select = sa.select(model.trial_id, kind_column, sa.null() if place is None else place, numbered, *others)
    return select if model is TRIAL else select.join(TRIAL, TRIAL.trial_id == model.trial_id)


SELECTS = (  # what the columns are is taken from the first
    _select(
        _Kind.TRIAL,
        TRIAL,
        TRIAL.number,
        TRIAL.state,
        start=TRIAL._datetime_start_utc,
        complete=TRIAL._datetime_complete_utc,
    ),
    _select(
        _Kind.PARAM,
        PARAM,
        PARAM.param_id,
        name=PARAM.param_name,
        text=PARAM.distribution_json,
        number=PARAM.param_value,
    ),
    _select(_Kind.USER_ATTR, USER_ATTR, name=USER_ATTR.key, text=USER_ATTR.value_json),
    _select(_Kind.SYSTEM_ATTR, SYSTEM_ATTR, name=SYSTEM_ATTR.key, text=SYSTEM_ATTR.value_json),
    _select(_Kind.VALUE, VALUE, VALUE.objective, VALUE.value_type, number=VALUE.value),
    _select(_Kind.REPORT, REPORT, REPORT.step, REPORT.intermediate_value_type, number=REPORT.intermediate_value),
)
