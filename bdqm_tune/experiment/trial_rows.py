"""Trials read in two statements, where Optuna takes six: over a slow network each of them is a wait."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy.orm import Session

TRIAL, PARAM = models.TrialModel, models.TrialParamModel
USER_ATTR, SYSTEM_ATTR = models.TrialUserAttributeModel, models.TrialSystemAttributeModel
VALUE, REPORT = models.TrialValueModel, models.TrialIntermediateValueModel

_distribution = lru_cache(maxsize=10_000)(json_to_distribution)  # the trials of a study share a few


class _Kind(IntEnum):
    """Of a row that belongs to a trial."""

    PARAM = 0
    USER_ATTR = 1
    SYSTEM_ATTR = 2
    VALUE = 3
    REPORT = 4


@dataclass
class _Parts:
    """What belongs to a trial."""

    params: list[tuple[int, str, str, float]] = field(default_factory=list)  # id, name, distribution, value
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    values: dict[int, float] = field(default_factory=dict)
    reports: dict[int, float] = field(default_factory=dict)

    def add(self, kind: int, place: int, value_type: int, name: str, text: str, number: float) -> None:
        if kind == _Kind.PARAM:
            self.params.append((place, name, text, number))
        elif kind == _Kind.USER_ATTR:
            self.user_attrs[name] = json.loads(text)
        elif kind == _Kind.SYSTEM_ATTR:
            self.system_attrs[name] = json.loads(text)
        elif kind == _Kind.VALUE:
            self.values[place] = VALUE.stored_repr_to_value(number, VALUE.TrialValueType(value_type))
        else:
            stored = REPORT.TrialIntermediateValueType(value_type)
            self.reports[place] = REPORT.stored_repr_to_intermediate_value(number, stored)


def read_trials(session: Session, *conditions: sa.ColumnElement[bool]) -> list[FrozenTrial]:
    """The trials, by their id, that meet the conditions on their table."""
    trials = session.query(TRIAL).filter(*conditions).order_by(TRIAL.trial_id).all()
    parts = {trial.trial_id: _Parts() for trial in trials}
    if trials:
        for trial_id, *row in session.execute(_rows(conditions)):
            if trial_id in parts:  # else it meets them only now
                parts[trial_id].add(*row)
    return [_frozen(trial, parts[trial.trial_id]) for trial in trials]


def _rows(conditions: Sequence[sa.ColumnElement[bool]]) -> sa.CompoundSelect[Any]:
    """What belongs to the trials: kind, place, type, name, text and number of each row.

    The first select has a column of the table for each of them, from which databases take the types.
    """
    nothing = sa.null()
    selects = [
        _select(_Kind.PARAM, PARAM, PARAM.param_id, None, PARAM.param_name, PARAM.distribution_json, PARAM.param_value),
        _select(_Kind.USER_ATTR, USER_ATTR, nothing, None, USER_ATTR.key, USER_ATTR.value_json, nothing),
        _select(_Kind.SYSTEM_ATTR, SYSTEM_ATTR, nothing, None, SYSTEM_ATTR.key, SYSTEM_ATTR.value_json, nothing),
        _select(_Kind.VALUE, VALUE, VALUE.objective, VALUE.value_type, nothing, nothing, VALUE.value),
        _select(
            _Kind.REPORT,
            REPORT,
            REPORT.step,
            REPORT.intermediate_value_type,
            nothing,
            nothing,
            REPORT.intermediate_value,
        ),
    ]
    return sa.union_all(*(one.where(*conditions) for one in selects))


def _select(kind: _Kind, model: Any, place: Any, value_type: Any, *columns: Any) -> sa.Select[Any]:
    number: sa.ColumnElement[int] = sa.literal_column("0", sa.Integer)
    if value_type is not None:  # by number, as names of two types cannot stand in one column everywhere
        names: Mapping[Enum, int] = {one: one.value for one in value_type.type.enum_class}
        number = sa.case(*((value_type == one, sa.literal_column(str(value))) for one, value in names.items()))
    kind_column = sa.literal_column(str(int(kind)), sa.Integer)
    return sa.select(model.trial_id, kind_column, place, number, *columns).join(TRIAL, TRIAL.trial_id == model.trial_id)


def _frozen(trial: Any, parts: _Parts) -> FrozenTrial:
    params = [(name, _distribution(text), number) for _, name, text, number in sorted(parts.params)]
    return FrozenTrial(
        number=trial.number,
        state=trial.state,
        value=None,
        values=[value for _, value in sorted(parts.values.items())] or None,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params={name: distribution.to_external_repr(number) for name, distribution, number in params},
        distributions={name: distribution for name, distribution, _ in params},
        user_attrs=parts.user_attrs,
        system_attrs=parts.system_attrs,
        intermediate_values=parts.reports,
        trial_id=trial.trial_id,
    )
