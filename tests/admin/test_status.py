"""What `status` and `studies` say, from studies made by hand; and of nothing, that there is nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from bdqm_tune.admin.status import (
    StudySummary,
    all_studies,
    status_lines,
    study_status,
    summarise,
    table,
    trials_per_hour,
)
from bdqm_tune.errors import BadInput
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.tables import has_tables
from bdqm_tune.storage.database import open_storage
from bdqm_tune.study.study import LOSSES, RESULT, RUN_ID, SIGNATURE, add_trials, next_trial
from bdqm_tune.units import duration_text
from bdqm_tune.workers.registry import DEAD, Workers, describe_process
from tests.places import Place

NOW = datetime(2026, 11, 25, 12)
COUNTS = ("waiting", "running", "complete", "pruned", "failed")


def trial(begun: float, ended: float | None, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    """One that began and ended so many minutes ago."""
    made = create_trial(state=state, value=1.0 if state == TrialState.COMPLETE else None)
    made.datetime_start = NOW - timedelta(minutes=begun)
    made.datetime_complete = None if ended is None else NOW - timedelta(minutes=ended)
    return made


def test_the_pace_is_that_of_the_last_hour() -> None:
    assert trials_per_hour([], NOW) is None
    assert trials_per_hour([create_trial(state=TrialState.WAITING)], NOW) is None
    old = [trial(500, 400), trial(400, 61)]
    assert trials_per_hour(old, NOW) == 0
    assert trials_per_hour([*old, trial(90, 30), trial(60, 1, TrialState.PRUNED)], NOW) == 2
    assert trials_per_hour([trial(30, 20), trial(20, 10), trial(10, None, TrialState.RUNNING)], NOW) == 4


def status_of(trials: list[FrozenTrial], **attributes: Any) -> Any:
    return summarise("s", attributes, trials, [], [], NOW)


def test_time_left_is_said_only_while_somebody_works(place: Place) -> None:
    trials = [trial(30, 20), trial(20, 10), create_trial(state=TrialState.WAITING)]
    assert status_of(trials).seconds_left is None
    storage = open_storage(place.stores).backend
    workers = Workers(storage.engine, storage.retry, 1)
    workers.add("a", {**describe_process(), "device": "cpu"})
    found = summarise("s", {}, trials, [], workers.all(), NOW)
    assert found.seconds_left == pytest.approx(3600 / 4)
    assert "pace     4.0 trials an hour; about 15 min left" in status_lines(found)


def test_of_a_study_that_is_not_ours_no_best_is_said() -> None:
    assert status_of([trial(2, 1)]).best_value is None
    assert status_of([trial(2, 1)], **{SIGNATURE: {"objective": "val_forces_mae"}}).unit == "eV/Å"


def test_the_best_error_is_quoted_with_its_parts() -> None:
    errors = {"val_energy_mae_per_atom": 0.003021, "val_forces_mae": 0.108, "val_energy_mae": 0.2}
    both = create_trial(value=0.01382, user_attrs={RESULT: errors, RUN_ID: "r"})
    both.number = 0
    lines = {}
    for objective in ("val_energy_forces", "val_energy_mae_per_atom", "val_forces_mae", "val_energy_mae"):
        found = status_of([both], **{SIGNATURE: {"objective": objective}})
        assert found.best_value == 0.01382
        lines[objective] = next(line for line in status_lines(found) if line.startswith("best"))
    assert lines == {
        "val_energy_forces": "best     trial 0: val_energy_forces 13.82 meV/atom (3.021 meV/atom, 0.1080 eV/Å)",
        "val_energy_mae_per_atom": "best     trial 0: val_energy_mae_per_atom 13.82 meV/atom",
        "val_forces_mae": "best     trial 0: val_forces_mae 0.0138 eV/Å",
        "val_energy_mae": "best     trial 0: val_energy_mae 3.021 meV/atom (0.0138 eV)",
    }


@pytest.mark.parametrize(
    ("objective", "text"),
    [("val_energy_forces", "13.82 meV/atom"), ("val_energy_mae_per_atom", "13.82 meV/atom"),
     ("val_forces_mae", "0.0138 eV/Å"), ("val_energy_mae", "0.0138 eV")],
)  # fmt: skip
def test_studies_are_listed_in_the_units_of_the_field(objective: str, text: str) -> None:
    unit = {"val_forces_mae": "eV/Å", "val_energy_mae": "eV"}.get(objective, "eV/atom")
    summary = StudySummary("s", 0, 0, 1, 0, 0, objective, [objective], unit, 0.01382, None, 0)
    assert f" {text}  {objective} " in table([summary])[1]


@pytest.fixture
def study(place: Place) -> optuna.Study:
    """Two complete, one each of the other states; workers that run, are gone, and were lost."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = open_storage(place.stores)
    study = optuna.create_study(storage=storage, study_name="s", sampler=optuna.samplers.RandomSampler())
    study.set_user_attr(SIGNATURE, {"objective": "val_energy_mae"})
    for value in (0.5, 0.25):
        study.add_trial(create_trial(value=value, user_attrs={RUN_ID: f"run-{value}"}))
    study.add_trial(create_trial(state=TrialState.PRUNED))
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={LOSSES: 3}))
    add_trials(study, 2)
    return study


def test_everything_is_said(place: Place, study: optuna.Study) -> None:
    backend = study._storage.backend  # type: ignore[attr-defined]
    workers = Workers(backend.engine, backend.retry, study._study_id)
    process = describe_process()
    workers.add("a", {**process, "job": "4711", "device": "cuda"})
    workers.add("b", {**process, "process": f"{process['process']}0", "device": "cpu"})
    workers.add("c", {"host": "node", "pid": "7", "device": "cpu"})
    workers.end("c", DEAD, "no heartbeat for 80 s")
    workers.add("d", {"host": "node", "pid": "8"})
    workers.end("d")
    backend.worker = "a"
    assert next_trial(study) is not None

    found = study_status(place.stores, "s")
    assert [getattr(found, state) for state in COUNTS] == [1, 1, 2, 1, 1]
    assert (found.best_trial, found.best_value, found.best_run_id) == (1, 0.25, "run-0.25")
    assert (found.objective, found.unit, found.total) == ("val_energy_mae", "eV", 6)
    assert found.losses == [{"trial": 3, "times": 3}]
    assert [(one.state, one.trials, one.note) for one in sorted(found.workers, key=lambda one: one.state)] == [
        ("gone", [], ""),
        ("lost", [], "no heartbeat for 80 s"),
        ("running", [4], ""),
    ]
    running = next(one for one in found.workers if one.state == "running")
    assert (running.host, running.pid, running.job, running.device) == (process["host"], process["pid"], "4711", "cuda")
    assert abs(datetime.fromisoformat(running.seen) - datetime.now(UTC)) < timedelta(minutes=1)
    text = "\n".join(status_lines(found))
    assert "trials   4 of 6 have ended: 2 complete, 1 pruned, 1 failed, 1 running, 1 waiting" in text
    assert "best     trial 1: val_energy_mae 0.2500 eV" in text
    assert f"{process['pid']} on {process['host']}, job 4711, cuda, since " in text
    assert " ago: trial 4\n" in text
    assert "lost     7 on node, cpu, " in text
    assert "`bdqm-tune doctor` requeues the trials of those that are gone" in text
    assert "losses   trials whose workers died: 3 (3 times)" in text


def test_a_study_of_before_there_were_workers(place: Place, study: optuna.Study) -> None:
    found = study_status(place.stores, "s")
    assert (found.workers, found.complete, found.waiting) == ([], 2, 2)
    assert "workers  none" in status_lines(found)
    assert [one.workers for one in all_studies(place.stores)] == [0]
    assert not has_tables(study._storage.backend.engine)  # type: ignore[attr-defined]


def test_all_studies_are_listed(place: Place, study: optuna.Study) -> None:
    backend = study._storage.backend  # type: ignore[attr-defined]
    optuna.create_study(storage=study._storage, study_name="another one")
    Workers(backend.engine, backend.retry, study._study_id).add("a", describe_process())
    empty, found = all_studies(place.stores)
    assert [getattr(found, state) for state in COUNTS] == [2, 0, 2, 1, 1]
    assert (found.study, found.best_value, found.unit, found.workers) == ("s", 0.25, "eV", 1)
    assert found.last_activity is not None
    assert abs(datetime.fromisoformat(found.last_activity) - datetime.now(UTC)) < timedelta(minutes=1)
    assert (empty.study, empty.best_value, empty.objective, empty.last_activity) == ("another one", None, None, None)
    assert [getattr(empty, state) for state in COUNTS] == [0] * 5
    head, *lines = table([empty, found])
    assert head.split() == ["study", *COUNTS, "best", "objective", "last", "activity", "workers"]
    assert lines[0].split() == ["another", "one", *"00000", "-", "-", "-", "0"]
    assert lines[1].split()[:9] == ["s", "2", "0", "2", "1", "1", "0.2500", "eV", "val_energy_mae"]


def test_a_database_that_is_not_there_is_not_made(stores: Stores) -> None:
    with pytest.raises(BadInput, match="no study 's' in .*; there is none yet"):
        study_status(stores, "s")
    assert all_studies(stores) == []
    assert not stores.home.exists()


def test_an_unknown_study_is_told_with_those_there_are(place: Place, study: optuna.Study) -> None:
    with pytest.raises(BadInput, match="no study 't' in .*; there are: s"):
        study_status(place.stores, "t")


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (45, "45 s"), (119, "119 s"), (720, "12 min"), (12600, "3.5 h"), (4e5, "5 days")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
