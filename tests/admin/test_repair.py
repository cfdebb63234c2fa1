"""What `doctor` mends of the two stores, and what it leaves alone."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import optuna
from mlflow.tracking import MlflowClient

from bdqm_tune.admin.repair import SENDING, has_done, repair_leftovers
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.diagnostics import FIXED, OK, WARNING
from bdqm_tune.services.tables import WORKERS
from bdqm_tune.study.study import RUN_ID, add_trials, load_study, next_trial
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tuning.tune import tune
from bdqm_tune.workers.failure_detector import DEAD_AFTER, HEARTBEAT_SECONDS
from bdqm_tune.workers.registry import DEAD, ENDED, RUNNING, Worker, Workers, describe_process


def tuned(stores: Stores, configure: Callable[..., Any], name: str) -> optuna.Study:
    config = configure(study={"name": name, "n_trials": 2, "pruner": "none"}, training={"epochs": 2})
    return tune(prepare(config, stores.home), config, stores)


def found(stores: Stores, *states: str, **options: Any) -> list[str]:
    return [
        finding.message for finding in repair_leftovers(stores, **{"wait": False} | options) if finding.state in states
    ]


class Time:
    """A clock that sleeping moves on, at once."""

    def __init__(self) -> None:
        self.now, self.naps = 0.0, 0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now, self.naps = self.now + seconds, self.naps + 1


def left_by(study: optuna.Study, name: str = "a", **description: str) -> Workers:
    """A worker that has a trial; without `process`, as of another machine."""
    backend = study._storage.backend  # type: ignore[attr-defined]
    workers = Workers(backend.engine, backend.retry, study._study_id)
    workers.add(name, {"host": "node", "pid": "7", **description})
    add_trials(study, 1)
    backend.worker = name
    assert next_trial(study) is not None
    return workers


def test_a_worker_of_another_machine_is_watched_first(stores: Stores, configure: Callable[..., Any]) -> None:
    study, time = tuned(stores, configure, "s"), Time()
    workers = left_by(study)
    assert found(stores, FIXED) == []
    assert found(stores, OK) == ["s: 1 running: 7 on node"]
    backend = study._storage.backend  # type: ignore[attr-defined]
    earlier = datetime(2020, 1, 1)
    with backend.engine.begin() as connection:
        connection.execute(WORKERS.update().where(WORKERS.c.worker == "a").values(seen=earlier))
    assert found(stores, WARNING) == ["s: no heartbeat for over 80 s: 7 on node"]
    assert found(stores, FIXED) == []
    waited = {"wait": True, "sleep": time.sleep, "clock": time.clock}
    assert found(stores, FIXED, **waited) == [
        "s: worker 7 on node is dead: no heartbeat for 80 s",
        "s: trial 2 is requeued, as its worker died (1 of 3)",
    ]
    assert DEAD_AFTER <= time.now <= DEAD_AFTER + 2 * HEARTBEAT_SECONDS
    assert workers.all(DEAD)[0].note == "no heartbeat for 80 s"


def test_a_worker_that_counts_is_left_alone_however_long_it_is_watched(
    stores: Stores, configure: Callable[..., Any]
) -> None:
    study, time = tuned(stores, configure, "s"), Time()
    workers = left_by(study)

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        workers.heartbeat("a")

    assert found(stores, FIXED, wait=True, sleep=sleep, clock=time.clock) == []
    assert time.naps >= DEAD_AFTER / HEARTBEAT_SECONDS
    assert study.get_trials()[2].state.name == "RUNNING"


def test_nobody_is_waited_for_where_nobody_works(stores: Stores, configure: Callable[..., Any]) -> None:
    tuned(stores, configure, "s")
    time = Time()
    assert found(stores, FIXED, WARNING, OK, wait=True, sleep=time.sleep, clock=time.clock) == []
    assert time.naps == 0


def test_runs_that_an_observer_left_are_ended(both: Stores, configure: Callable[..., Any]) -> None:
    """Who saw that a worker was lost was lost itself before it had told MLflow."""
    study, client = tuned(both, configure, "left"), tracking_client(both)
    other = tuned(both, configure, "at work")
    runs = {
        run.info.run_name: run.info.run_id for run in client.search_runs([study.user_attrs["mlflow_experiment_id"]])
    }
    (made,) = [
        run for run in client.search_runs([other.user_attrs["mlflow_experiment_id"]]) if run.info.run_name == "at work"
    ]
    for run_id in (*runs.values(), made.info.run_id):
        client.update_run(run_id, status="RUNNING")
    gone = {**describe_process(), "run_id": runs["left"]}
    workers = left_by(study, **gone)
    workers.end("a", DEAD, "its process was gone")
    left_by(other, "b", **describe_process(), run_id=made.info.run_id)
    backend = study._storage.backend  # type: ignore[attr-defined]
    with backend.engine.begin() as connection:  # those that made the two studies ended long ago
        earlier = datetime.now(UTC).replace(tzinfo=None) - 2 * SENDING
        connection.execute(WORKERS.update().where(WORKERS.c.state == ENDED).values(seen=earlier))
        # The run belongs to one worker, the one at work, and not to that which made it as well.
        connection.execute(WORKERS.delete().where(WORKERS.c.state == ENDED, WORKERS.c.study_id == other._study_id))

    messages = found(both, FIXED)
    assert messages[0] == "left: trial 2 is requeued, as its worker died (1 of 3)"
    assert messages[1].startswith("left: ended the runs of workers that are no more: left, ")
    after = {name: client.get_run(run_id) for name, run_id in runs.items()}
    assert {name: run.info.status for name, run in after.items()} == {
        "left": "KILLED",
        "trial-000": "FINISHED",
        "trial-001": "FINISHED",
    }
    assert client.get_run(made.info.run_id).info.status == "RUNNING"
    assert found(both, FIXED) == []


def test_the_runs_of_a_study_of_that_name_in_another_database_are_left_alone(
    stores: Stores, configure: Callable[..., Any]
) -> None:
    theirs = Stores(stores.home, f"sqlite:///{stores.home.parent}/theirs.db")
    study, other = tuned(stores, configure, "s"), tuned(theirs, configure, "s")
    client = MlflowClient()
    their_run = other.get_trials()[0].user_attrs[RUN_ID]
    our_run = study.get_trials()[0].user_attrs[RUN_ID]
    for run_id in (our_run, their_run):
        client.update_run(run_id, status="RUNNING")
    backend = study._storage.backend  # type: ignore[attr-defined]
    with backend.engine.begin() as connection:
        connection.execute(WORKERS.update().values(state=DEAD))
    assert found(stores, FIXED) == ["s: ended the runs of workers that are no more: trial-000"]
    assert client.get_run(our_run).info.status == "FINISHED"
    assert client.get_run(their_run).info.status == "RUNNING"


def test_trials_that_run_and_nobody_knows_by_whom_are_told(stores: Stores, configure: Callable[..., Any]) -> None:
    study = tuned(stores, configure, "s")
    study.ask()
    assert found(stores, FIXED) == []
    assert found(stores, WARNING) == ["s: nobody knows who runs trials 2: an older bdqm-tune, or none any more"]
    assert load_study(stores, "s").get_trials()[2].state.name == "RUNNING"


def test_who_has_ended_may_go_on_sending_for_a_while() -> None:
    def worker(state: str, minutes: float, **description: str) -> Worker:
        seen = datetime.now(UTC) - timedelta(minutes=minutes)
        return Worker("a", state, 0, seen, seen, description, "")

    here = describe_process()
    assert not has_done(worker(RUNNING, 500))
    assert not has_done(worker(ENDED, 50, **here))
    assert has_done(worker(ENDED, 70))
    assert has_done(worker(DEAD, 0))
    assert has_done(worker(ENDED, 0, process=f"{here['process']}0"))
