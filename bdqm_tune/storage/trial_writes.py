"""What is written of a trial at once: one statement for each table, where Optuna takes two for each value."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session

from bdqm_tune.services.optuna_private import models

ParamCall = tuple[int, str, float, BaseDistribution, BaseDistribution | None]  # as Optuna's cache hands it on

REPORT, VALUE = models.TrialIntermediateValueModel, models.TrialValueModel

# Of databases that can insert or update in one statement.
INSERT: Mapping[str, Any] = {
    "mysql": mysql.insert,
    "mariadb": mysql.insert,
    "postgresql": postgresql.insert,
    "sqlite": sqlite.insert,
}


@dataclass
class Writes:
    """What is to be written of trials that have not finished; parameters once, of all else the latest counts."""

    params: list[ParamCall] = field(default_factory=list)
    user_attrs: dict[tuple[int, str], Any] = field(default_factory=dict)  # by trial and name
    system_attrs: dict[tuple[int, str], Any] = field(default_factory=dict)
    reports: dict[tuple[int, int], float] = field(default_factory=dict)  # by trial and step
    values: dict[tuple[int, int], float] = field(default_factory=dict)  # by trial and objective

    def __bool__(self) -> bool:
        return bool(self.trial_ids())

    def add(self, other: "Writes") -> None:
        """Write this after what there is."""
        self.params += other.params
        self.user_attrs |= other.user_attrs
        self.system_attrs |= other.system_attrs
        self.reports |= other.reports
        self.values |= other.values

    def trial_ids(self) -> set[int]:
        """The trials concerned."""
        keyed = (*self.user_attrs, *self.system_attrs, *self.reports, *self.values)
        return {trial_id for trial_id, *_ in self.params} | {trial_id for trial_id, _ in keyed}

    def execute(self, session: Session) -> None:
        """Write all."""
        if self.params:
            session.execute(sa.insert(models.TrialParamModel), [_param_row(*param) for param in self.params])
        _upsert(session, models.TrialUserAttributeModel, _attribute_rows(self.user_attrs))
        _upsert(session, models.TrialSystemAttributeModel, _attribute_rows(self.system_attrs))
        _upsert(session, REPORT, [_report_row(*place, value) for place, value in self.reports.items()])
        _upsert(session, VALUE, [_value_row(*place, value) for place, value in self.values.items()])


def _param_row(trial_id: int, name: str, value: float, distribution: BaseDistribution, _: object) -> dict[str, Any]:
    text = distribution_to_json(distribution)
    return {"trial_id": trial_id, "param_name": name, "param_value": value, "distribution_json": text}


def _attribute_rows(attrs: Mapping[tuple[int, str], Any]) -> list[dict[str, Any]]:
    return [{"trial_id": trial, "key": key, "value_json": json.dumps(value)} for (trial, key), value in attrs.items()]


def _report_row(trial_id: int, step: int, value: float) -> dict[str, Any]:
    stored, kind = REPORT.intermediate_value_to_stored_repr(value)
    return {"trial_id": trial_id, "step": step, "intermediate_value": stored, "intermediate_value_type": kind}


def _value_row(trial_id: int, objective: int, value: float) -> dict[str, Any]:
    stored, kind = VALUE.value_to_stored_repr(value)
    return {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}


def _upsert(session: Session, model: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, in place of those that say the same of the same trial."""
    if not rows:
        return
    unique = next(one for one in model.__table__.constraints if isinstance(one, sa.UniqueConstraint)).columns.keys()
    values = rows[0].keys() - set(unique)
    dialect = session.get_bind().dialect.name
    if dialect not in INSERT:
        for row in rows:
            session.execute(sa.delete(model).filter_by(**{name: row[name] for name in unique}))
        session.execute(sa.insert(model), rows)
        return
    insert = INSERT[dialect](model).values(rows)
    if hasattr(insert, "on_duplicate_key_update"):
        statement = insert.on_duplicate_key_update({name: insert.inserted[name] for name in values})
    else:
        statement = insert.on_conflict_do_update(
            index_elements=unique, set_={name: insert.excluded[name] for name in values}
        )
    session.execute(statement)
