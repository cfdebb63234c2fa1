"""What it costs to analyse a large study: 10,000 trials of 100 epochs, made up and written into both stores.

python -m benchmarks.analysis [--trials 10000] [--epochs 100] [--stores embedded served]

embedded: SQLite files, as without servers. served: MariaDB, and MLflow's server with passwords, which it starts; needs
MariaDB. Each step runs in a process of its own, whose peak of resident memory is printed with its seconds: reading the
study, on servers also without what our MLflow server answers beyond MLflow's own, and `bdqm-tune compare`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from mlflow.store.tracking.dbmodels import models as runs
from mlflow.tracking import MlflowClient
from optuna.distributions import distribution_to_json
from optuna.trial import TrialState

from bdqm_tune.config.config import load_config
from bdqm_tune.mlflow_server import control
from bdqm_tune.mlflow_server.passwords import load_passwords
from bdqm_tune.mlflow_server.paths import ServerPaths
from bdqm_tune.mlflow_server.schemas import MLFLOW, account
from bdqm_tune.services.connection import Stores, find_stores
from bdqm_tune.services.database_urls import sqlite_url
from bdqm_tune.services.optuna_private import models as studies
from bdqm_tune.storage.database import opened
from bdqm_tune.study.search_space import distributions
from bdqm_tune.study.study import EXPERIMENT, RESULT, RUN_ID, SIGNATURE
from bdqm_tune.tracking.client import tracking_client

STUDY, METRICS, BATCH = "large", 8, 100
LIMITS = {"seconds": 60, "GiB": 2}


class Trials:
    """Made-up trials: hyperparameters at random, a curve that falls, a third of the trials pruned.

    Args:
        epochs: of a complete trial.
    """

    def __init__(self, n: int, epochs: int) -> None:
        self.n, self.epochs = n, epochs
        self.spaces = distributions(load_config(), 1000)
        self._random = np.random.default_rng(0)
        self.run_ids = [uuid.UUID(bytes=self._random.bytes(16)).hex for _ in range(n)]
        self.start = datetime(2026, 1, 1)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One trial after the other: number, state, curve (n_epochs,), eV, and its hyperparameters."""
        for number, run_id in enumerate(self.run_ids):
            random = np.random.default_rng(number)
            values = {name: space.to_external_repr(_drawn(space, random)) for name, space in self.spaces.items()}
            pruned = number % 3 == 2
            epoch = np.arange(1, (self.epochs // 9 if pruned else self.epochs) + 1)
            level = 0.1 + abs(np.log10(values["lr"]) + 3)
            curve = level * (1 + 20 * np.exp(-epoch / 10)) * random.uniform(0.95, 1.05, len(epoch))
            began = self.start + timedelta(seconds=5 * number)
            yield {
                "number": number, "run_id": run_id, "values": values, "curve": curve, "start": began,
                "state": TrialState.PRUNED if pruned else TrialState.COMPLETE, "end": began + timedelta(seconds=19),
            }  # fmt: skip


def _drawn(space: Any, random: np.random.Generator) -> float:
    """A value of the search space, as Optuna's table has it."""
    if hasattr(space, "choices"):
        return float(random.integers(len(space.choices)))
    value = 10 ** random.uniform(np.log10(space.low), np.log10(space.high))
    return float(round(value)) if isinstance(space.low, int) else value


def fill(trials: Trials, stores: Stores, engine: sa.Engine) -> None:
    """Write the trials into both stores, past Optuna and MLflow, which would take an hour.

    Args:
        engine: of MLflow's database.
    """
    experiment = tracking_client(stores).create_experiment(STUDY)
    with opened(stores) as storage:
        from optuna.study import StudyDirection

        study_id = storage.create_new_study([StudyDirection.MINIMIZE], STUDY)
        signature = {"objective": "val_energy_mae", "data": "none", "backend": "native"}
        signature["training"] = {"epochs": trials.epochs}
        storage.set_study_user_attr(study_id, SIGNATURE, signature)
        storage.set_study_user_attr(study_id, EXPERIMENT, experiment)
        with storage.backend.engine.begin() as optuna_side, engine.begin() as mlflow_side:
            _insert(optuna_side, _optuna_rows(trials, study_id))
            _insert(mlflow_side, _mlflow_rows(trials, int(experiment)))


def _insert(connection: sa.Connection, rows: Iterator[tuple[Any, dict[str, Any]]]) -> None:
    pending: dict[Any, list[dict[str, Any]]] = {}
    for position, (table, row) in enumerate(rows):
        pending.setdefault(table, []).append(row)
        if position % 100_000 == 99_999:
            _write(connection, pending)
    _write(connection, pending)


def _write(connection: sa.Connection, pending: dict[Any, list[dict[str, Any]]]) -> None:
    for table, some in pending.items():
        if some:
            connection.execute(table.insert(), some)
            some.clear()


def _optuna_rows(trials: Trials, study_id: int) -> Iterator[tuple[Any, dict[str, Any]]]:
    texts = {name: distribution_to_json(space) for name, space in trials.spaces.items()}
    trial_rows = studies.TrialModel.__table__
    for row in trials.rows():
        trial_id, best = row["number"] + 1, int(row["curve"].argmin())
        yield trial_rows, {
            "trial_id": trial_id, "number": row["number"], "study_id": study_id, "state": row["state"],
            "datetime_start": row["start"], "datetime_complete": row["end"],
        }  # fmt: skip
        for name, value in row["values"].items():
            yield studies.TrialParamModel.__table__, {
                "trial_id": trial_id, "param_name": name, "distribution_json": texts[name],
                "param_value": trials.spaces[name].to_internal_repr(value),
            }  # fmt: skip
        result = {
            "val_energy_mae": float(row["curve"][best]), "best_epoch": best + 1, "epochs": len(row["curve"]),
            "n_parameters": 5000 + row["number"] % 77, "trial_seconds": 19.0, "reason": "",
        }  # fmt: skip
        for key, value in ((RUN_ID, row["run_id"]), (RESULT, result)):
            text = {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            yield studies.TrialUserAttributeModel.__table__, text
        if row["state"] == TrialState.COMPLETE:
            yield studies.TrialValueModel.__table__, {
                "trial_id": trial_id, "objective": 0, "value": result["val_energy_mae"],
                "value_type": studies.TrialValueModel.TrialValueType.FINITE,
            }  # fmt: skip
        for step in (11, 33):
            if step <= len(row["curve"]):
                yield studies.TrialIntermediateValueModel.__table__, {
                    "trial_id": trial_id, "step": step, "intermediate_value": float(row["curve"][:step].min()),
                    "intermediate_value_type": studies.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE,
                }  # fmt: skip


def _mlflow_rows(trials: Trials, experiment: int) -> Iterator[tuple[Any, dict[str, Any]]]:
    names = ["val_energy_mae", *(f"metric_{i}" for i in range(1, METRICS))]
    for row in trials.rows():
        run_id = row["run_id"]
        yield runs.SqlRun.__table__, {
            "run_uuid": run_id, "name": f"trial-{row['number']:03d}", "experiment_id": experiment,
            "status": "FINISHED", "lifecycle_stage": "active", "start_time": 0, "end_time": 1, "source_type": "LOCAL",
            "user_id": "benchmark", "artifact_uri": "",
        }  # fmt: skip
        for name, value in row["values"].items():
            yield runs.SqlParam.__table__, {"run_uuid": run_id, "key": name, "value": str(value)}
        for i in range(25):
            yield runs.SqlTag.__table__, {"run_uuid": run_id, "key": f"tag_{i}", "value": "what a tag may say"}
        for name in names:
            last = {"run_uuid": run_id, "key": name, "timestamp": 0, "is_nan": False}
            for step, value in enumerate(row["curve"], 1):
                yield runs.SqlMetric.__table__, {**last, "value": float(value), "step": step}
            yield runs.SqlLatestMetric.__table__, {**last, "value": float(row["curve"][-1]), "step": len(row["curve"])}


@contextmanager
def embedded(folder: Path) -> Iterator[tuple[Stores, sa.Engine, dict[str, str]]]:
    """SQLite files, MLflow's engine, and the variables by which a process finds them."""
    variables = {"BDQM_HOME": str(folder / "home"), "MLFLOW_TRACKING_URI": sqlite_url(folder / "mlflow.db")}
    variables["BDQM_SERVICES"] = str(folder / "none")
    MlflowClient(variables["MLFLOW_TRACKING_URI"]).search_experiments()  # makes its tables
    yield find_stores(variables), sa.create_engine(variables["MLFLOW_TRACKING_URI"]), variables


@contextmanager
def served(folder: Path) -> Iterator[tuple[Stores, sa.Engine, dict[str, str]]]:
    """The same for servers, which run in the block."""
    places = ServerPaths(folder / "services")
    control.up(places, "127.0.0.1", False, lambda text: None)
    try:
        url = sa.URL.create(
            "mysql+pymysql", account(MLFLOW), load_passwords(places.passwords).mlflow, "localhost", database=MLFLOW,
            query={"unix_socket": str(places.socket)},
        )  # fmt: skip
        variables = {"BDQM_HOME": str(folder / "home"), "BDQM_SERVICES": str(places.folder)}
        yield find_stores(variables), sa.create_engine(url), variables
    finally:
        control.down(places)


READ = f"""
import statistics, time
from bdqm_tune.study.results import load_results
from bdqm_tune.services.connection import find_stores
from bdqm_tune.tracking import metric_history
seconds = []
for _ in range(3):
    start = time.perf_counter()
    results = load_results(find_stores(), {STUDY!r})
    seconds.append(time.perf_counter() - start)
print(len(results.trials), "trials,", len(results.curves), f"values: {{statistics.median(seconds):.2f}} s, median of 3")
"""
# By requests that any MLflow server answers, as if ours had no answer of its own.
READ_PLAIN = READ.replace("seconds = []", 'seconds, metric_history.PATH = [], "/api/2.0/bdqm/none"')


def measured(what: str, command: list[str], variables: dict[str, str], folder: Path) -> None:
    """Run a Python process, and print its seconds and its peak of resident memory."""
    code = (
        "import resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True, check=True)\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(time.perf_counter() - start, peak / 2**20, done.stdout.strip().splitlines()[-1], sep='\\t')"
    )
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code, sys.executable, *command], env=os.environ | {"PYTHONPATH": root} | variables,
        cwd=folder, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    seconds, memory, last = done.stdout.strip().split("\t")
    fits = float(seconds) < LIMITS["seconds"] and float(memory) < LIMITS["GiB"]
    print(
        f"  {what:<34}{float(seconds):7.1f} s{float(memory):8.2f} GiB  {'' if fits else 'TOO MUCH'}  {last}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--stores", nargs="+", choices=["embedded", "served"], default=["embedded", "served"])
    options = parser.parse_args()
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    trials = Trials(options.trials, options.epochs)
    for name in options.stores:
        with tempfile.TemporaryDirectory(prefix="bdqm-") as text:
            folder = Path(text)
            with {"embedded": embedded, "served": served}[name](folder) as (stores, engine, variables):
                fill(trials, stores, engine)
                print(f"{name}: {options.trials} trials, {options.epochs} epochs, {os.cpu_count()} cores", flush=True)
                measured("load_results, three times", ["-c", READ], variables, folder)
                if name == "served":
                    measured("the same as of any MLflow server", ["-c", READ_PLAIN], variables, folder)
                measured(
                    "bdqm-tune compare",
                    ["-m", "bdqm_tune", "compare", STUDY],
                    variables,
                    folder,
                )


if __name__ == "__main__":
    main()
