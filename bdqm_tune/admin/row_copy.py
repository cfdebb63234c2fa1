"""A study's rows in the database of studies, copied to another database in one transaction."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from bdqm_tune.services.optuna_private import models
from bdqm_tune.services.tables import WORKERS, has_tables, make_tables
from bdqm_tune.storage.retrying_storage import RetryingStorage

OF_STUDY = (models.StudyDirectionModel, models.StudyUserAttributeModel, models.StudySystemAttributeModel)
OF_TRIALS = (
    models.TrialParamModel,
    models.TrialValueModel,
    models.TrialIntermediateValueModel,
    models.TrialUserAttributeModel,
    models.TrialSystemAttributeModel,
)
ATTRIBUTES = (models.StudyUserAttributeModel, models.TrialUserAttributeModel)  # whose texts name runs
AT_ONCE = 1000  # rows

Rows = list[dict[str, Any]]


def copy_rows(
    source: RetryingStorage, target: RetryingStorage, study_id: int, attributes: Callable[[str, str], str]
) -> None:
    """Copy a study, its trials and its workers: all of it or nothing. Running trials are requeued in the copy.

    Optuna's own `copy_study` adds one trial after the other, and of trials that have ended no attribute can be changed.

    Args:
        source: database of the study, which has no running workers.
        target: that has no study of this name.
        attributes: returns the JSON text of a study's or trial's attribute for its key and its text in the source.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: a database failed.
    """
    if not has_tables(target.engine):
        make_tables(target.engine)
    workers_there = has_tables(source.engine)
    with source.engine.connect() as reading, target.engine.begin() as writing:

        def insert(table: sa.Table, rows: Iterator[dict[str, Any]]) -> None:
            for some in _chunks(rows):
                writing.execute(table.insert(), some)

        def read(model: Any, ids: Mapping[int, int] | None = None) -> Iterator[dict[str, Any]]:
            """The rows of a table without its key: of the study or, by new ids of old ones, of its trials."""
            table = model.__table__
            query = sa.select(table)
            if ids is None:
                query = query.where(table.c.study_id == study_id)
            else:
                query = query.join(models.TrialModel.__table__).where(models.TrialModel.study_id == study_id)
            for row in reading.execute(query.order_by(*table.primary_key)).mappings():
                copied = {column.name: row[column.name] for column in table.columns if not column.primary_key}
                if model in ATTRIBUTES:
                    copied["value_json"] = attributes(copied["key"], copied["value_json"])
                yield copied | ({"study_id": new_id} if ids is None else {"trial_id": ids[row["trial_id"]]})

        studies, trials = models.StudyModel.__table__, models.TrialModel.__table__
        name = reading.scalar(sa.select(studies.c.study_name).where(studies.c.study_id == study_id))
        inserted = writing.execute(studies.insert().values(study_name=name)).inserted_primary_key
        assert inserted is not None
        new_id = inserted[0]
        for model in OF_STUDY:
            insert(model.__table__, read(model))
        insert(trials, ({**row, "state": _at_rest(row["state"])} for row in read(models.TrialModel)))
        numbers = dict(_numbers(writing, trials, new_id))
        ids = {old: numbers[number] for number, old in _numbers(reading, trials, study_id)}
        for model in OF_TRIALS:
            insert(model.__table__, read(model, ids))
        if workers_there:
            theirs = reading.execute(WORKERS.select().where(WORKERS.c.study_id == study_id)).mappings()
            changed = ({**row, "study_id": new_id, "description": attributes("", row["description"])} for row in theirs)
            insert(WORKERS, changed)


def _at_rest(state: TrialState) -> TrialState:
    return TrialState.WAITING if state == TrialState.RUNNING else state


def _numbers(connection: sa.Connection, trials: sa.Table, study_id: int) -> Sequence[tuple[int, int]]:
    """The trials of a study by number: with their ids."""
    rows = connection.execute(sa.select(trials.c.number, trials.c.trial_id).where(trials.c.study_id == study_id))
    return [(row.number, row.trial_id) for row in rows]


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[Rows]:
    some: Rows = []
    for row in rows:
        some.append(row)
        if len(some) == AT_ONCE:
            yield some
            some = []
    if some:
        yield some
