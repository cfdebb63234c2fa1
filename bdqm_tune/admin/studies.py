"""All studies of a database, each in a line."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from optuna.trial import TrialState

from bdqm_tune.services.connection import Stores
from bdqm_tune.services.optuna_private import models
from bdqm_tune.storage.database import not_made_yet, opened
from bdqm_tune.storage.retrying_storage import RetryingStorage
from bdqm_tune.study.objectives import objectives_of
from bdqm_tune.study.study import SIGNATURE, STATES
from bdqm_tune.units import OBJECTIVE_UNITS, duration_text
from bdqm_tune.workers.registry import RUNNING, Worker, Workers


@dataclass(frozen=True)
class StudySummary:
    """A study among others."""

    study: str
    waiting: int
    running: int
    complete: int
    pruned: int
    failed: int
    objective: str | None  # the error by which training goes; None: not a study of ours
    objectives: list[str]
    unit: str
    best_value: float | None
    last_activity: str | None  # ISO 8601, UTC; None: nobody has begun
    workers: int  # that run


def all_studies(stores: Stores) -> list[StudySummary]:
    """Every study, by name; nothing is made or changed. Raises BdqmError if the database cannot be read."""
    if not_made_yet(stores):
        return []
    with opened(stores) as storage:
        return _summaries(storage.backend)


def _summaries(backend: RetryingStorage) -> list[StudySummary]:
    # The database counts: the trials of all studies can be many.
    counts: dict[int, dict[str, int]] = defaultdict(lambda: dict.fromkeys(STATES.values(), 0))
    last: dict[int, list[datetime]] = defaultdict(list)
    trial = models.TrialModel
    latest = sa.func.max(trial._datetime_start_utc), sa.func.max(trial._datetime_complete_utc)
    per_state = sa.select(trial.study_id, trial.state, sa.func.count(), *latest)
    for study_id, state, count, *moments in backend.ask(per_state.group_by(trial.study_id, trial.state)):
        counts[study_id][STATES[state]] = count
        last[study_id] += [moment.replace(tzinfo=UTC) for moment in moments if moment is not None]

    least = sa.select(models.TrialModel.study_id, sa.func.min(models.TrialValueModel.value)).join(
        models.TrialValueModel, models.TrialValueModel.trial_id == models.TrialModel.trial_id
    )
    errors = least.where(models.TrialModel.state == TrialState.COMPLETE, models.TrialValueModel.objective == 0)
    best = dict(backend.ask(errors.group_by(models.TrialModel.study_id)))
    attribute = models.StudyUserAttributeModel
    asked = backend.ask(sa.select(attribute.study_id, attribute.value_json).where(attribute.key == SIGNATURE))
    objectives = {study_id: objectives_of(json.loads(question)) for study_id, question in asked}

    found = []
    for study_id, name in backend.ask(sa.select(models.StudyModel.study_id, models.StudyModel.study_name)):
        workers = [
            worker for worker in Workers(backend.engine, backend.patience, study_id).all(RUNNING) if not worker.is_gone
        ]
        judged_by = objectives.get(study_id, [])
        objective = judged_by[0] if judged_by else None
        found.append(
            StudySummary(
                study=name,
                **counts[study_id],
                objective=objective,
                objectives=judged_by,
                unit=OBJECTIVE_UNITS.get(objective or "", ""),
                best_value=best.get(study_id) if objective else None,
                last_activity=_latest(last[study_id], workers),
                workers=len(workers),
            )
        )
    return sorted(found, key=lambda summary: summary.study)


def table(studies: Sequence[StudySummary]) -> list[str]:
    """What `bdqm-tune studies` prints: a line for each, below a line that says what stands in them."""
    rows = [("study", *STATES.values(), "best", "objective", "last activity", "workers")]
    for study in studies:
        best = "-" if study.best_value is None else f"{study.best_value:.4f} {study.unit}"
        last = "-" if study.last_activity is None else datetime.fromisoformat(study.last_activity)
        when = last if isinstance(last, str) else f"{duration_text((datetime.now(UTC) - last).total_seconds())} ago"
        counts = [str(getattr(study, state)) for state in STATES.values()]
        rows.append((study.study, *counts, best, ", ".join(study.objectives) or "-", when, str(study.workers)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _latest(moments: list[datetime], workers: list[Worker]) -> str | None:
    known = [*moments, *(worker.seen for worker in workers)]
    return max(known).isoformat(timespec="seconds") if known else None
