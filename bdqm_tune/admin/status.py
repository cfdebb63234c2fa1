"""How studies are doing: all of a database in a line each; one with its trials, its workers and its time to come."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.errors import argument
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.optuna_private import id_of, models, trial_moments
from bdqm_tune.storage.database import not_made_yet, opened
from bdqm_tune.storage.queries import Claim
from bdqm_tune.storage.retrying_storage import RetryingStorage
from bdqm_tune.study.objectives import best_first, error_of, objectives_of, pareto_front
from bdqm_tune.study.study import LOSSES, RUN_ID, SIGNATURE, STATES, errors_of, no_such_study, study_id_of
from bdqm_tune.units import OBJECTIVE_UNITS, duration_text, error_text
from bdqm_tune.workers.registry import DEAD, RUNNING, Worker, Workers

PACE = timedelta(hours=1)  # over which the pace is taken
SHOWN = ("complete", "pruned", "failed", "running", "waiting")
GONE = "gone"  # a worker that is registered as running, but whose process is known to have ended


@dataclass(frozen=True)
class WorkerStatus:
    """A worker that runs, or was declared dead."""

    host: str
    pid: str
    job: str  # of the scheduler, "" without one
    device: str
    state: str  # running, gone, or lost: declared dead
    since: str  # ISO 8601, UTC
    seen: str  # time of the last heartbeat
    trials: list[int]  # that it runs
    note: str  # why it was declared dead


@dataclass(frozen=True)
class StudyStatus:
    """A study at one moment."""

    study: str
    waiting: int
    running: int
    complete: int
    pruned: int
    failed: int
    total: int
    objective: str | None  # the error by which training goes; None: not a study of ours
    objectives: list[str]
    unit: str
    best_trial: int | None
    best_value: float | None
    best_run_id: str | None
    best_per_atom: float | None  # eV/atom, of the energies of the same trial
    best_forces: float | None  # eV/Å, of its forces; None where none were trained
    front: list[int]  # of several objectives, the trials on the Pareto front
    trials_per_hour: float | None  # in the last hour; None: none was ever begun
    seconds_left: float | None  # None: it cannot be said
    workers: list[WorkerStatus]
    losses: list[dict[str, int]]  # trials whose workers died: trial, times

    @property
    def done(self) -> int:
        """Trials that have ended."""
        return self.complete + self.pruned + self.failed


def study_status(stores: Stores, name: str) -> StudyStatus:
    """Read the status of a study; nothing is created or changed.

    Raises:
        BadInput: there is none of that name.
        BdqmError: the database cannot be read.
    """
    if not_made_yet(stores):
        raise no_such_study(stores, name, [])
    with opened(stores) as storage:
        backend = storage.backend
        if (study_id := study_id_of(storage, name)) is None:
            raise no_such_study(stores, name, sorted(optuna.get_all_study_names(storage)))
        claims = backend.running(study_id)  # before the trials, so that those of a worker are known
        trials, attributes = backend.get_all_trials(study_id), backend.get_study_user_attrs(study_id)
        workers = Workers(backend.engine, backend.retry, study_id).all(RUNNING, DEAD)
    return summarise(name, attributes, trials, claims, workers, datetime.now())


def summarise(
    name: str,
    attributes: Mapping[str, Any],
    trials: Sequence[FrozenTrial],
    claims: Sequence[Claim],
    workers: Sequence[Worker],
    now: datetime,
) -> StudyStatus:
    """The status of a study.

    Args:
        claims: of its running trials.
        workers: those that run, or were declared dead.
        now: local time, as Optuna has it.
    """
    counts = Counter(STATES[trial.state] for trial in trials)
    objectives = objectives_of(attributes[SIGNATURE]) if SIGNATURE in attributes else []
    complete = best_first(trials) if objectives else []
    best = complete[0] if complete else None
    errors = errors_of(best, objectives) if best else {}
    shown = [_worker(worker, trials, claims) for worker in workers]
    pace = trials_per_hour(trials, now)
    left = counts["waiting"] + counts["running"]
    someone = any(worker.state == RUNNING for worker in shown)
    return StudyStatus(
        study=name,
        **{state: counts[state] for state in STATES.values()},
        total=len(trials),
        objective=objectives[0] if objectives else None,
        objectives=objectives,
        unit=OBJECTIVE_UNITS.get("".join(objectives[:1]), ""),
        best_trial=best.number if best else None,
        best_value=error_of(best) if best else None,
        best_run_id=best.user_attrs.get(RUN_ID) if best else None,
        best_per_atom=errors.get("val_energy_mae_per_atom"),
        best_forces=errors.get("val_forces_mae"),
        front=[trial.number for trial in pareto_front(complete)] if len(objectives) > 1 else [],
        trials_per_hour=pace,
        seconds_left=3600 * left / pace if pace and left and someone else None,
        workers=shown,
        losses=[
            {"trial": trial.number, "times": int(trial.user_attrs[LOSSES])}
            for trial in trials
            if LOSSES in trial.user_attrs
        ],
    )


def trials_per_hour(trials: Sequence[FrozenTrial], now: datetime) -> float | None:
    """How many ended in the last hour, or, if the first began later, since then; None if none was ever begun."""
    begun = [trial.datetime_start for trial in trials if trial.datetime_start is not None]
    if not begun:
        return None
    since = max(min(begun), now - PACE)
    ended = [trial for trial in trials if trial.datetime_complete is not None and trial.datetime_complete >= since]
    hours = max(now - since, timedelta(seconds=1)) / timedelta(hours=1)
    return len(ended) / hours


def _worker(worker: Worker, trials: Sequence[FrozenTrial], claims: Sequence[Claim]) -> WorkerStatus:
    mine = {claim.trial_id for claim in claims if claim.worker == worker.name}
    described = worker.description
    return WorkerStatus(
        host=described.get("host", "?"),
        pid=described.get("pid", "?"),
        job=described.get("job", ""),
        device=described.get("device", "?"),
        state=GONE if worker.state == RUNNING and worker.is_gone else worker.state,
        since=worker.since.isoformat(),
        seen=worker.seen.isoformat(),
        trials=[trial.number for trial in trials if id_of(trial) in mine],
        note=worker.note,
    )


def status_lines(status: StudyStatus) -> list[str]:
    """What `bdqm-tune status` prints."""
    states = ", ".join(f"{getattr(status, state)} {state}" for state in SHOWN)
    lines = [f"study    {status.study}", f"trials   {status.done} of {status.total} have ended: {states}"]
    if status.best_value is not None:
        lines.append(f"best     trial {status.best_trial}: {status.objective} {_best_text(status)}")
    if status.front:
        several = f"{len(status.front)} trials" if len(status.front) > 1 else "1 trial"
        lines.append(
            f"front    {several} by {', '.join(status.objectives)}: `bdqm-tune front {argument(status.study)}`"
        )
    if status.trials_per_hour and status.done < status.total:
        left = f"; about {duration_text(status.seconds_left)} left" if status.seconds_left is not None else ""
        lines.append(f"pace     {status.trials_per_hour:.1f} trials an hour{left}")
    running = [worker for worker in status.workers if worker.state == RUNNING]
    lines.append(f"workers  {len(running) or 'none'}")
    lines += [f"         {_worker_line(worker)}" for worker in running]
    for state in (GONE, DEAD):
        lines += [f"{state:<9}{_worker_line(worker)}" for worker in status.workers if worker.state == state]
    if any(worker.state == GONE for worker in status.workers):
        lines.append("next     `bdqm-tune doctor` requeues the trials of those that are gone")
    if status.losses:
        times = ", ".join(f"{loss['trial']} ({loss['times']} times)" for loss in status.losses)
        lines.append(f"losses   trials whose workers died: {times.replace('(1 times)', '(once)')}")
    return lines


def _best_text(status: StudyStatus) -> str:
    name = status.objective or ""
    parts = {"val_energy_mae_per_atom": status.best_per_atom, "val_forces_mae": status.best_forces}
    return error_text({**parts, name: status.best_value}, name)


def _worker_line(worker: WorkerStatus) -> str:
    since, seen = (
        duration_text((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
        for moment in (worker.since, worker.seen)
    )
    job = f", job {worker.job}" if worker.job else ""
    trials = f": {'trial' if len(worker.trials) == 1 else 'trials'} {', '.join(map(str, worker.trials))}"
    return (
        f"{worker.pid} on {worker.host}{job}, {worker.device}, since {since}, last heartbeat {seen} ago"
        f"{trials if worker.trials else ''}{f' ({worker.note})' if worker.note else ''}"
    )


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
    latest = (sa.func.max(column) for column in trial_moments())
    per_state = sa.select(trial.study_id, trial.state, sa.func.count(), *latest)
    for study_id, state, count, *moments in backend.fetch(per_state.group_by(trial.study_id, trial.state)):
        counts[study_id][STATES[state]] = count
        last[study_id] += [moment.replace(tzinfo=UTC) for moment in moments if moment is not None]

    least = sa.select(models.TrialModel.study_id, sa.func.min(models.TrialValueModel.value)).join(
        models.TrialValueModel, models.TrialValueModel.trial_id == models.TrialModel.trial_id
    )
    errors = least.where(models.TrialModel.state == TrialState.COMPLETE, models.TrialValueModel.objective == 0)
    best = dict(backend.fetch(errors.group_by(models.TrialModel.study_id)))
    attribute = models.StudyUserAttributeModel
    signatures = backend.fetch(sa.select(attribute.study_id, attribute.value_json).where(attribute.key == SIGNATURE))
    objectives = {study_id: objectives_of(json.loads(signature)) for study_id, signature in signatures}

    found = []
    for study_id, name in backend.fetch(sa.select(models.StudyModel.study_id, models.StudyModel.study_name)):
        workers = [
            worker for worker in Workers(backend.engine, backend.retry, study_id).all(RUNNING) if not worker.is_gone
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
    """What `bdqm-tune studies` prints: a line for each, below a line of headings."""
    rows = [("study", *STATES.values(), "best", "objective", "last activity", "workers")]
    for study in studies:
        objective = study.objective or ""
        best = "-" if study.best_value is None else error_text({objective: study.best_value}, objective)
        last = "-" if study.last_activity is None else datetime.fromisoformat(study.last_activity)
        when = last if isinstance(last, str) else f"{duration_text((datetime.now(UTC) - last).total_seconds())} ago"
        counts = [str(getattr(study, state)) for state in STATES.values()]
        rows.append((study.study, *counts, best, ", ".join(study.objectives) or "-", when, str(study.workers)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _latest(moments: list[datetime], workers: list[Worker]) -> str | None:
    known = [*moments, *(worker.seen for worker in workers)]
    return max(known).isoformat(timespec="seconds") if known else None
