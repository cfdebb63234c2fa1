"""Faults in the middle of a study of four workers on servers as users have them: all trials are there, and once."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from bdqm_tune.mlflow_server.processes import leftovers
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.study import LOSSES, load_study
from tests.servers import Servers
from tests.whole import assert_once

WORKERS, TRIALS, EPOCHS = 4, 2, 60  # each worker adds as many trials
AWAY = 10.0  # seconds
# A worker that trains slowly, writes checkpoints often, and looks for lost ones often.
SLOW = """
import time
from bdqm_tune.cli.main import main
from bdqm_tune.study import checkpoints
from bdqm_tune.workers import heartbeat as lease, failure_detector as watch
from bdqm_tune.learning.fit import Fit
epoch, checkpoints.EVERY, lease.HEARTBEAT_SECONDS, watch.HEARTBEAT_SECONDS = Fit._run, 0.5, 2.0, 2.0
Fit._run = lambda *arguments: (time.sleep(0.1), epoch(*arguments))[1]
main()
"""


def servers_of(servers: Servers, name: str) -> list[psutil.Process]:
    return [process for process in leftovers(servers.folder) if (process.name() == "mariadbd") == (name == "database")]


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_four_workers_through_all_that_happens_to_servers_and_workers(
    own_servers: Servers, workdir: Path, configure: Callable[..., Any]
) -> None:
    own_servers.services("up")
    study = {"name": "faults", "n_trials": TRIALS, "pruner": "none", "sampler": "random"}
    training = {"epochs": EPOCHS, "early_stopping": None}
    config = configure(study=study, training=training)
    (workdir / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    (workdir / "slow.py").write_text(SLOW)
    environ = own_servers.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "slow.py", "tune", "--config", "config.yaml"]
    stores = Stores(workdir / ".bdqm", connection_file=own_servers.places.connection)
    logs = [workdir / f"{number}.log" for number in range(WORKERS)]

    def start(number: int) -> "subprocess.Popen[str]":
        with logs[number].open("a") as log:
            return subprocess.Popen(command, env=environ, stdout=log, stderr=log, text=True)

    workers = [start(number) for number in range(WORKERS)]
    deadline = time.monotonic() + 600
    while len(list(stores.home.glob("checkpoints/*/*.checkpoint"))) < WORKERS:
        assert all(worker.poll() is None for worker in workers), [log.read_text()[-500:] for log in logs]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    mlflow = servers_of(own_servers, "mlflow")
    for process in mlflow:
        process.send_signal(signal.SIGSTOP)
    workers[0].kill()
    for process in servers_of(own_servers, "database"):
        process.kill()  # whoever watches over them starts it again
    time.sleep(AWAY)
    for process in mlflow:
        if process.is_running():
            process.send_signal(signal.SIGCONT)
    workers[1].send_signal(signal.SIGTERM)
    assert workers[1].wait(120) == 130, logs[1].read_text()
    codes = [worker.wait(600) for worker in workers[2:]]
    assert codes == [0, 0], [log.read_text()[-1000:] for log in logs]
    assert_once(stores, "faults", WORKERS * TRIALS, EPOCHS)
    losses = [trial.user_attrs.get(LOSSES, 0) for trial in load_study(stores, "faults").trials]
    assert (sum(losses), max(losses)) == (1, 1)
