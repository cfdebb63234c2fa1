"""Servers that go away and come back on other ports while a worker tunes: it follows, and nothing is lost."""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState
from sqlalchemy import make_url

from bdqm_tune.services.connection import Stores
from bdqm_tune.study.study import load_study
from bdqm_tune.tracking.client import tracking_client
from tests.forked import Forked
from tests.servers import Servers

TRIALS, EPOCHS = 12, 40


@pytest.mark.soak
def test_a_worker_follows_its_servers_to_other_ports(
    up_servers: Servers, workdir: Path, configure: Callable[..., Any]
) -> None:
    before = up_servers.connection
    config = configure(study={"name": "moved", "n_trials": TRIALS, "pruner": "none"}, training={"epochs": EPOCHS})
    (workdir / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = ["-m", "bdqm_tune", "tune", "--config", "config.yaml"]
    environ = up_servers.environ | before.tracking_environment()  # as after `services env`
    worker = Forked(command, environ)
    for line in worker.stderr:
        if line.startswith("trial 003"):
            break
    up_servers.services("down")
    with ExitStack() as taken:
        for url in map(make_url, (before.storage_url, before.tracking_uri)):
            other = taken.enter_context(socket.socket())
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", url.port or 0))
            other.listen()
        up_servers.services("up")
    assert make_url(up_servers.connection.storage_url).port != make_url(before.storage_url).port
    assert up_servers.connection.tracking_uri != before.tracking_uri
    output, errors = worker.communicate(timeout=180)
    assert worker.returncode == 0, errors
    assert up_servers.connection.tracking_uri in output

    stores = Stores(workdir / ".bdqm", connection_file=up_servers.places.connection)
    trials, client = load_study(stores, "moved").get_trials(), tracking_client(stores)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * TRIALS
    for trial in trials:
        run = client.get_run(trial.user_attrs["mlflow_run_id"])
        assert run.info.status == "FINISHED"
        curve = client.get_metric_history(run.info.run_id, "val_energy_mae")
        assert sorted(value.step for value in curve) == list(range(1, trial.user_attrs["result"]["epochs"] + 1))
