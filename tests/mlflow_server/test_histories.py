"""Histories of many runs from our server: the same as MLflow's own answers, for those who may read."""

import os
from typing import Any

import pytest
import requests
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from bdqm_tune.services.connection import Stores
from bdqm_tune.services.histories import MOST_RUNS, PATH
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tracking.metric_history import read_curves
from tests.servers import Servers


@pytest.fixture
def stores(servers: Servers, tmp_path: Any) -> Stores:
    return Stores(tmp_path, connection_file=servers.places.connection)


def filled(client: MlflowClient, name: str, runs: int) -> tuple[str, list[str]]:
    """An experiment with runs of a few values each, one of them logged again, one of them no number."""
    experiment = client.create_experiment(name)
    run_ids = [client.create_run(experiment).info.run_id for _ in range(runs)]
    for position, run_id in enumerate(run_ids):
        values = [Metric("loss", position + step / 8, 1, step) for step in range(position)]
        client.log_batch(run_id, [*values, Metric("loss", -1.0, 2, 0), Metric("other", 5.0, 1, 1)])
        client.log_batch(run_id, [Metric("loss", float("nan"), 3, 50)])
    return experiment, run_ids


def test_histories_are_those_of_mlflow(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tracking_client(stores)
    experiment, run_ids = filled(client, "histories", 4)
    with monkeypatch.context() as patch:  # else MLflow's own answers would do
        patch.setattr("bdqm_tune.tracking.metric_history.BULK", "/api/2.0/bdqm/not-there")
        ours = read_curves(stores, experiment, run_ids, "loss")
    monkeypatch.setattr("bdqm_tune.tracking.metric_history.PATH", "/api/2.0/bdqm/not-there")
    mlflows = read_curves(stores, experiment, run_ids, "loss")
    assert ours.equals(mlflows)
    assert ours.groupby("run_id").size().reindex(run_ids).tolist() == [2, 2, 3, 4]
    assert set(ours.loc[ours["step"] == 0, "value"]) == {-1.0}


def test_only_of_the_experiment_that_may_be_read(stores: Stores, servers: Servers) -> None:
    client = tracking_client(stores)
    _, run_ids = filled(client, "another", 2)
    nothing = client.create_experiment("nothing in it")
    assert read_curves(stores, nothing, run_ids, "loss").empty
    question = {"experiment_id": nothing, "metric_key": "loss", "run_ids": run_ids}
    connection = servers.connection
    options: dict[str, Any] = {"verify": connection.tracking_ca or True, "timeout": 30}
    assert requests.post(connection.tracking_uri + PATH, json=question, **options).status_code == 401
    options["auth"] = (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"])
    assert requests.post(connection.tracking_uri + PATH, json=question, **options).json()["values"] == []
    for wrong in (
        {"run_ids": ["x"] * (MOST_RUNS + 1)}, {"run_ids": "x"}, {"metric_key": 5},
    ):  # fmt: skip
        answer = requests.post(connection.tracking_uri + PATH, json=question | wrong, **options)
        assert answer.status_code == 400
        assert str(MOST_RUNS) in answer.json()["message"]
