"""Trials that end while the stores are away, as their worker does: the next one tells the stores, and nothing twice."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from bdqm_tune.config.config import Config
from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.learning.fit import Fit
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.samplers import rungs
from bdqm_tune.study.study import LOSSES, load_study
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tracking.trial_run import TrialRun
from bdqm_tune.tuning import trial as trials
from bdqm_tune.tuning.tune import tune
from tests.commands import Call
from tests.mariadb import MariaDb
from tests.places import write_connection
from tests.whole import assert_once

EPOCHS = 9
UNKNOWN = "1 trials have ended, and the stores do not know it; the next worker of the study sends them from their"


def checkpoints(stores: Stores) -> list[Path]:
    return sorted(stores.home.glob("checkpoints/*/*"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that the engine trains."""
    epochs, run = list[int](), Fit._run
    monkeypatch.setattr(Fit, "_run", lambda fit, epoch: (epochs.append(epoch), run(fit, epoch))[1])
    return epochs


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """`cut_off(trial, act)`: act once after epoch 5 of a trial; a study is then not waited for long."""

    def arrange(number: int, act: Callable[[], None]) -> None:
        log, done = TrialRun.log_metrics, threading.Event()

        def logged(self: TrialRun, metrics: dict[str, float], step: int) -> None:
            log(self, metrics, step)
            if step == 5 and self.opening.number == number and not done.is_set():
                done.set()
                self._tracker.wait(self.send(lambda client, run_id: None))  # what was flushed is there
                act()

        monkeypatch.setattr(TrialRun, "log_metrics", logged)
        monkeypatch.setattr(trials, "REPORT_TIMEOUT", 0.1)

    return arrange


def options(n_trials: int, pruner: str = "none", **other: Any) -> dict[str, Any]:
    return {
        "study": {"name": "small", "n_trials": n_trials, "pruner": pruner},
        "training": {"epochs": EPOCHS, "early_stopping": None},
        "": {"cohort": 1, **other},
    }


class AwayFromMlflow:
    """MLflow's store as it is while its server is away, which can come back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch, self._log_batch = monkeypatch, MlflowClient.log_batch

    def go(self) -> None:
        def fail(*arguments: Any, **given: Any) -> None:
            raise MlflowException("API request failed: Connection refused")

        self._patch.setattr(MlflowClient, "log_batch", fail)

    def come_back(self) -> None:
        self._patch.setattr(MlflowClient, "log_batch", self._log_batch)


def lose_mlflow(
    stores: Stores, configure: Callable[..., Config], cut_off: Callable[..., None], away: AwayFromMlflow
) -> None:
    """A worker that ends since MLflow does not come back; its only trial has ended."""
    config = configure(**options(1, patience=0.02))
    cut_off(0, away.go)
    with pytest.raises(BdqmError, match="Connection refused"):
        tune(prepare(config, stores.home), config, stores)
    away.come_back()
    assert len(checkpoints(stores)) == 1


def test_what_could_not_be_sent_is_sent_by_the_next_worker(
    stores: Stores,
    configure: Callable[..., Config],
    cut_off: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    trained: list[int],
) -> None:
    lose_mlflow(stores, configure, cut_off, AwayFromMlflow(monkeypatch))
    assert UNKNOWN in capfd.readouterr().err
    (trial,) = load_study(stores, "small").trials
    assert (trial.state, trial.user_attrs.get(LOSSES, 0)) == (TrialState.WAITING, 0)
    config = configure(**options(1))
    tune(prepare(config, stores.home), config, stores)
    assert trained == 2 * list(range(1, EPOCHS + 1)), "no epoch once more"
    assert_once(stores, "small", 2, EPOCHS)
    assert checkpoints(stores) == []


def test_the_run_of_a_worker_that_could_not_end_it_is_ended_by_another_one(
    stores: Stores, configure: Callable[..., Config], cut_off: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by random faults: it stayed RUNNING until somebody called `doctor`."""
    monkeypatch.setattr("bdqm_tune.workers.failure_detector.DEAD_AFTER", 0.0)  # as its process, the test's, goes on
    lose_mlflow(stores, configure, cut_off, AwayFromMlflow(monkeypatch))
    client = tracking_client(stores)
    (run,) = client.search_runs(["1"], "tags.kind = 'study'")
    assert run.info.status == "RUNNING"
    tune(prepare(configure(**options(1)), stores.home), configure(**options(1)), stores)
    ended = client.get_run(run.info.run_id)
    assert ended.info.status == "KILLED"
    assert "its worker died" in ended.data.tags["reason"]
    assert client.search_runs(["1"], "attributes.status = 'RUNNING'") == []


def test_a_run_that_was_made_as_its_worker_ended_is_ended_by_another_one(
    stores: Stores, configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by random faults: MLflow made the run of a trial, its answer got lost, and the worker ended."""
    monkeypatch.setattr("bdqm_tune.workers.failure_detector.DEAD_AFTER", 0.0)  # as its process, the test's, goes on
    config = configure(**options(1, patience=0.02))
    create = MlflowClient.create_run

    def answer_gets_lost(client: MlflowClient, *given: Any, **more: Any) -> Any:
        run = create(client, *given, **more)
        if not str(run.info.run_name).startswith("trial-"):
            return run
        monkeypatch.setattr(MlflowClient, "search_runs", unanswered)
        raise MlflowException("API request failed: Connection refused")

    def unanswered(*given: Any, **more: Any) -> Any:
        raise MlflowException("API request failed: Connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "search_runs", MlflowClient.search_runs)
        patch.setattr(MlflowClient, "create_run", answer_gets_lost)
        with pytest.raises(BdqmError, match="Connection refused"):
            tune(prepare(config, stores.home), config, stores)
    search, client = MlflowClient.search_runs, tracking_client(stores)
    assert search(client, ["1"], "attributes.run_name = 'trial-000'")[0].info.status == "RUNNING"
    tune(prepare(config, stores.home), config, stores)
    runs = client.search_runs(["1"], "attributes.run_name = 'trial-000'")
    assert sorted((run.info.status, run.data.tags["trial_state"]) for run in runs) == [
        ("FINISHED", "complete"),
        ("KILLED", "lost"),
    ]


@pytest.mark.endurance
def test_both_servers_killed_when_the_worker_ends(
    mariadb: MariaDb,
    server: Any,
    configure: Callable[..., Config],
    cut_off: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
    workdir: Path,
    trained: list[int],
) -> None:
    """They come back elsewhere, and the next worker sends what was not sent: nothing twice."""
    monkeypatch.setattr("bdqm_tune.workers.failure_detector.DEAD_AFTER", 5.0)
    monkeypatch.setattr("bdqm_tune.workers.heartbeat.HEARTBEAT_SECONDS", 1.0)
    monkeypatch.setenv("BDQM_SERVICES", str(workdir / "services"))
    stores = Stores(workdir / ".bdqm", connection_file=workdir / "services" / "connection.json")

    def announce() -> None:
        write_connection(stores, mariadb.url("both"), server.uri, "admin", server.password)

    def kill() -> None:
        mariadb.kill()
        server.stop(signal.SIGKILL)

    (workdir / "services").mkdir(mode=0o700)
    mariadb.execute("CREATE DATABASE `both`")
    announce()
    monkeypatch.setattr("bdqm_tune.tuning.pruning.WITHIN", 0.1)
    config = configure(**options(3, "median", patience=0.05))
    cut_off(1, kill)
    with pytest.raises(BdqmError, match=r"^(the MLflow tracking store|the study database) .* failed: "):
        tune(prepare(config, stores.home), config, stores)
    assert checkpoints(stores)[0].name == "trial-001.checkpoint"
    mariadb.start()
    server.start()
    announce()
    (workdir / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    status, _, err = call("tune", "--config", "config.yaml", "--n-trials", "1")
    assert status == 0, err
    assert trained.count(EPOCHS) == 4, "no trial once more"
    assert_once(stores, "small", 4, EPOCHS)
    assert checkpoints(stores) == []
    reports = set(rungs(config.study.pruner, EPOCHS))
    assert all(trial.intermediate_values.keys() == reports for trial in load_study(stores, "small").trials)
