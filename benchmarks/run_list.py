"""How long MLflow's page waits for its list of runs.

python -m benchmarks.run_list [--runs 5000]

Fills an experiment and times the first page of its list, as MLflow's page requests it, and all of it. Needs MariaDB.
"""

import argparse
import os
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from mlflow.entities import Metric, Param, RunTag

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.tracking.client import tracking_client
from benchmarks.servers import Servers, servers

METRICS = 8


def time_run_list(running: Servers, runs: int) -> None:
    """Fill the experiment, and print the median of five times."""
    client = tracking_client(running.stores)
    experiment = client.create_experiment("many runs")
    parameters = [Param(name, str(value)) for name, value in Hyperparameters().model_dump().items()]

    def fill(number: int) -> None:
        run = client.create_run(experiment, run_name=f"trial-{number:04d}", tags={"study": "many runs"}).info.run_id
        metrics = [Metric(f"metric_{i}", random.random(), 0, step) for i in range(METRICS) for step in (1, 2)]
        client.log_batch(run, metrics, parameters, [RunTag("trial_state", "complete")])
        client.set_terminated(run)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, range(runs)))

    def page(order: str, count: int = 100) -> None:
        client.search_runs([experiment], order_by=[order], max_results=count)

    def whole() -> None:
        token: str | None = None
        while (found := client.search_runs([experiment], max_results=1000, page_token=token)).token:
            token = found.token

    print(f"MLflow's list of {runs} runs")
    for name, request in (
        ("first 100, the newest first", lambda: page("attributes.start_time DESC")),
        ("first 100, by a metric", lambda: page("metrics.metric_0 ASC")),
        ("all of them, 1000 a page", whole),
    ):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            request()
            times.append(time.perf_counter() - start)
        print(f"  {name:<28} {np.median(times):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    options = parser.parse_args()
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    with tempfile.TemporaryDirectory(prefix="bdqm-") as name, servers(Path(name)) as running:
        time_run_list(running, options.runs)


if __name__ == "__main__":
    main()
