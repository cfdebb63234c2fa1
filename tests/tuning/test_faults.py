"""Faults in the middle of a study, with the real parts: servers that hang or are killed, and clocks that jump."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from bdqm_tune.config.config import Config
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import Stores
from bdqm_tune.storage.database import open_storage
from bdqm_tune.study.samplers import rungs
from bdqm_tune.study.study import LOSSES, load_study
from bdqm_tune.tracking.trial_run import TrialRun
from bdqm_tune.tuning import trial as trials
from bdqm_tune.tuning.tune import tune
from benchmarks.slow_network import Network
from tests.conftest import find_faketime
from tests.mariadb import MariaDb
from tests.places import write_connection
from tests.waiting import eventually
from tests.whole import assert_once

EPOCHS = 9
AWAY = 5.0  # seconds; `python -m benchmarks.faults` has longer absences


@contextmanager
def at_epochs(monkeypatch: pytest.MonkeyPatch, act: Callable[[int, int], None]) -> Iterator[list[tuple[int, int]]]:
    """Call `act(trial, epoch)` after every epoch; gives those that were."""
    log, seen = TrialRun.log_metrics, list[tuple[int, int]]()

    def logged(self: TrialRun, metrics: dict[str, float], step: int) -> None:
        log(self, metrics, step)
        if "train_loss" in metrics:  # else it is what is logged at the end
            seen.append((self.opening.number, step))
            act(self.opening.number, step)

    with monkeypatch.context() as patch:
        patch.setattr(TrialRun, "log_metrics", logged)
        yield seen


def three_trials(name: str, pruner: str = "none") -> dict[str, Any]:
    study = {"name": name, "n_trials": 3, "pruner": pruner, "sampler": "random"}
    return {"study": study, "training": {"epochs": EPOCHS, "early_stopping": None}}


@pytest.mark.endurance
@pytest.mark.parametrize("how", ["hangs", "killed"])
def test_training_goes_on_while_mlflow_is_away(
    served: Stores, server: Any, configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """From the third epoch of the first trial to the first of the third; all metrics arrive afterwards, once each."""
    monkeypatch.setattr(trials, "REPORT_TIMEOUT", 1.0)
    config, restarted = configure(**three_trials(f"mlflow-{how}")), threading.Thread(target=server.start)

    def act(trial: int, epoch: int) -> None:
        if (trial, epoch) == (0, 3):
            if how == "hangs":
                os.killpg(server.process.pid, signal.SIGSTOP)
            else:
                server.stop(signal.SIGKILL)
        if (trial, epoch) == (2, 1):
            if how == "hangs":
                os.killpg(server.process.pid, signal.SIGCONT)
            else:
                restarted.start()  # by another thread: training does not wait for that either

    with at_epochs(monkeypatch, act) as seen:
        tune(prepare(config, served.home), config, served)
    assert seen == [(trial, epoch) for trial in range(3) for epoch in range(1, EPOCHS + 1)]
    assert_once(served, f"mlflow-{how}", 3, EPOCHS)
    assert not list(served.home.glob("checkpoints/*/*"))


class Leaving:
    """A database that is killed once, and comes back at another port with another password."""

    def __init__(self, mariadb: MariaDb, folder: Path) -> None:
        self._mariadb, self._schema, self._tracking = mariadb, f"s{uuid4().hex[:8]}", f"sqlite:///{folder}/mlflow.db"
        mariadb.execute(f"CREATE DATABASE {self._schema}")
        self.stores = Stores(folder, connection_file=folder / "connection.json")
        self.returning: threading.Thread | None = None
        self._announce()

    def go(self) -> None:
        self._mariadb.kill()
        self.returning = threading.Thread(target=self._come_back)
        self.returning.start()

    @property
    def is_away(self) -> bool:
        return self.returning is not None and self.returning.is_alive()

    def _come_back(self) -> None:
        time.sleep(AWAY)
        self._mariadb.start()
        self._announce()

    def _announce(self) -> None:
        write_connection(self.stores, self._mariadb.url(self._schema), self._tracking)


@pytest.fixture
def leaving(mariadb: MariaDb, workdir: Path) -> Iterator[Leaving]:
    database = Leaving(mariadb, workdir)
    yield database
    if database.returning is not None:
        database.returning.join()


@pytest.mark.endurance
@pytest.mark.parametrize("pruner", ["none", "median"])
def test_a_trial_is_trained_to_its_end_while_the_database_is_away(
    pruner: str,
    leaving: Leaving,
    configure: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No report, trial or state is lost; the pruner, which compares after each epoch, is not waited for."""
    monkeypatch.setattr("bdqm_tune.tuning.pruning.WITHIN", 0.3)

    def act(trial: int, epoch: int) -> None:
        if (trial, epoch) == (1, 3):
            leaving.go()
        if (trial, epoch) == (1, EPOCHS):
            trained_without.append(leaving.is_away)

    trained_without: list[bool] = []
    stores, config = leaving.stores, configure(**three_trials("away", pruner))
    with at_epochs(monkeypatch, act) as seen:
        tune(prepare(config, stores.home), config, stores)
    assert trained_without == [True]
    assert len(seen) == 3 * EPOCHS
    assert_once(stores, "away", 3, EPOCHS)
    assert "answers again" in caplog.text
    found = load_study(stores, "away").trials
    assert all(LOSSES not in trial.user_attrs for trial in found)
    assert all(trial.intermediate_values.keys() == set(rungs(config.study.pruner, EPOCHS)) for trial in found)


def test_a_pruner_that_answers_late_ends_the_trial_then(
    leaving: Leaving, configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdqm_tune.tuning.pruning.WITHIN", 0.3)
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: trial.number == 1 and 3 in reported(trial))

    def reported(trial: optuna.Trial) -> dict[int, float]:
        return trial._cached_frozen_trial.intermediate_values

    def act(trial: int, epoch: int) -> None:
        if (trial, epoch) == (1, 3):
            leaving.go()
        if (trial, epoch) == (1, 5):
            eventually(lambda: not leaving.is_away and 3 in load_study(stores, "away").trials[1].intermediate_values)
            time.sleep(1)  # for the answer to arrive

    stores, config = leaving.stores, configure(**three_trials("away", "median"))
    with at_epochs(monkeypatch, act) as seen:
        tune(prepare(config, stores.home), config, stores)
    trial = load_study(stores, "away").trials[1]
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs["result"]["reason"] == "median pruner at epoch 3"
    epochs = max(epoch for number, epoch in seen if number == 1)
    assert trial.user_attrs["result"]["epochs"] == epochs == 5
    assert trial.intermediate_values.keys() == {1, 2, 3, 4, 5}


@pytest.mark.soak
def test_over_a_bad_network_the_same_comes_out(
    mariadb: MariaDb, server: Any, workdir: Path, configure: Callable[..., Config], stores: Stores
) -> None:
    """100 ms each way to both servers, one chunk in a hundred lost, and every third connection reset."""
    mariadb.execute("CREATE DATABASE slow")
    far = Stores(workdir / "far", connection_file=workdir / "connection.json")
    config = configure(**three_trials("network")).updated({"study": {"n_trials": 1}})
    reference = tune(prepare(config, stores.home), config, stores)
    open_storage(Stores(far.home, mariadb.url("slow")))  # whose tables are there, as those of the servers are
    network = Network(0.1, 0.01, reset_every=3)
    port = int(server.uri.rpartition(":")[2])
    with network.to("127.0.0.1", mariadb.port) as database_port, network.to("127.0.0.1", port) as mlflow_port:
        url = mariadb.url("slow").replace(f":{mariadb.port}/", f":{database_port}/")
        write_connection(far, url, f"http://127.0.0.1:{mlflow_port}", "admin", server.password)
        study = tune(prepare(config, far.home), config, far)
        assert [trial.values for trial in study.trials] == [trial.values for trial in reference.trials]
        assert [trial.params for trial in study.trials] == [trial.params for trial in reference.trials]
    assert network.resets > 0
    write_connection(far, mariadb.url("slow"), server.uri, "admin", server.password)
    assert_once(far, "network", 1, EPOCHS)


# A worker whose lease beats and runs out 20 times as fast, and whose epochs take a while.
HURRIED = """
import select
from bdqm_tune.cli.main import main
from bdqm_tune.workers import failure_detector, heartbeat
from bdqm_tune.learning.fit import Fit
epoch, heartbeat.HEARTBEAT_SECONDS = Fit._run, 1.0
failure_detector.HEARTBEAT_SECONDS, failure_detector.DEAD_AFTER, failure_detector.BLIND_AFTER = 1.0, 20.0, 10.0
# Not time.sleep, in which libfaketime fails when the clock goes back.
Fit._run = lambda *arguments: (select.select([], [], [], 0.5), epoch(*arguments))[1]
main()
"""


@pytest.mark.soak
def test_a_clock_that_jumps_kills_no_worker(
    stores: Stores, configure: Callable[..., Config], workdir: Path, require: Callable[[str], None]
) -> None:
    """Two workers of one study: the clock of one goes an hour forward, and then back, as libfaketime shows it."""
    require("faketime")
    (library,) = find_faketime()
    config = configure(**three_trials("clocks"))
    config = config.updated({"training": {"epochs": 20}})
    Path("config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    Path("hurried.py").write_text(HURRIED)
    shift = workdir / "shift"
    shift.write_text("+0")
    # The monotonic clock goes on: no system sets that one.
    jumping = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(shift),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "hurried.py", "tune", "--config", "config.yaml"]
    prepare(config, stores.home)
    workers = [
        subprocess.Popen(command, env=environ | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for variables in (jumping, dict[str, str]())
    ]
    deadline = time.monotonic() + 300

    def states() -> list[TrialState]:
        try:
            return [trial.state for trial in load_study(stores, "clocks").trials]
        except Exception:  # there is no study yet
            return []

    while states().count(TrialState.RUNNING) < 2:
        assert all(worker.poll() is None for worker in workers)
        assert time.monotonic() < deadline
        time.sleep(0.5)
    for jump in ("+1h", "-1h"):
        shift.write_text(jump)
        time.sleep(5)
    outputs = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert "lost" not in "".join(outputs)
    trials_ = load_study(stores, "clocks").trials
    assert [trial.state for trial in trials_] == [TrialState.COMPLETE] * 6
    assert all(LOSSES not in trial.user_attrs for trial in trials_)
