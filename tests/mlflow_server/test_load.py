"""Sixty-four clients at once: MLflow's default pool of connections would lose metrics of theirs."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow.entities import Metric

from bdqm_tune.mlflow_server.database import MAX_CONNECTIONS
from bdqm_tune.mlflow_server.settings import MOST_PROCESSES
from bdqm_tune.mlflow_server.tracking import OVERFLOW, POOL
from bdqm_tune.services.connection import Stores
from bdqm_tune.tracking.client import tracking_client
from tests.servers import Servers

CLIENTS, BATCHES, METRICS = 64, 10, 80


@pytest.mark.soak
def test_sixty_four_clients_at_once_lose_nothing(
    servers: Servers, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # each failure counts
    stores = Stores(workdir / ".bdqm", connection_file=servers.places.connection)
    client = tracking_client(stores)
    experiment = client.create_experiment("load")

    def work(number: int) -> str:
        run = client.create_run(experiment, run_name=f"client-{number}").info.run_id
        for batch in range(BATCHES):
            steps = range(batch * METRICS // 8, (batch + 1) * METRICS // 8)
            client.log_batch(run, [Metric(f"m{i}", step + i / 10, 0, step) for step in steps for i in range(8)])
        client.set_terminated(run)
        return run

    with ThreadPoolExecutor(CLIENTS) as pool:
        runs = list(pool.map(work, range(CLIENTS)))
    for run in runs:
        for name in ("m0", "m7"):
            history = client.get_metric_history(run, name)
            assert sorted(metric.step for metric in history) == list(range(BATCHES * METRICS // 8))
    assert "QueuePool" not in servers.places.log("mlflow").read_text()


def test_the_database_has_connections_for_the_server_and_for_a_thousand_workers() -> None:
    assert POOL + OVERFLOW >= CLIENTS
    # MLflow's own store and that of its accounts have a pool each; a worker has two connections at most.
    assert MAX_CONNECTIONS >= MOST_PROCESSES * 2 * (POOL + OVERFLOW) + 2 * 1000
