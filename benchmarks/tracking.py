"""What tracking and the study cost a trial, against the real servers with TLS and passwords, which it starts.

python -m benchmarks.tracking [--workers 1 8 32] [--trials 2] [--epoch-seconds 0.3] [--runs 5000]

Every worker is a process that does all that `bdqm-tune tune` does, but sleeps instead of training: 100 epochs of 8
metrics, and the pruner asked at its rungs, though never obeyed, so that all trials are equally long. Afterwards every
metric is looked for. Then MLflow's list of so many runs is timed. Needs MariaDB; takes about 15 minutes.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import optuna
import requests
import sqlalchemy
from mlflow.entities import Metric, Param, RunTag

from bdqm_tune.config import load_config
from bdqm_tune.experiment import tune as tuning
from bdqm_tune.experiment.study import RUN_ID, load_study
from bdqm_tune.experiment.tracking_client import tracking_client
from bdqm_tune.experiment.trial import TrialRunner
from bdqm_tune.hyperparameters import Hyperparameters
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.learning.fit import EpochRecord
from bdqm_tune.learning.networks import SingleNN
from bdqm_tune.learning.potential import Potential
from bdqm_tune.services.connection import Stores
from mlflow_server import control
from mlflow_server.places import Places

EPOCHS, METRICS = 100, 8
LIMITS = {"added_share": 0.02, "waited": 0.1, "requests": 15.0, "transactions": 40.0}  # a trial of 30 s, one worker


def epoch_record(epoch: int, error: float, seconds: float) -> EpochRecord:
    """With all metrics that are logged of an epoch."""
    return EpochRecord(epoch, error, error, error, error, 1e-3, seconds, error, error)


class SleepingRun:
    """A training that learns nothing, and measures how long it is kept waiting between its epochs."""

    n_parameters = 1000

    def __init__(self, dataset: Dataset, hyperparameters: Hyperparameters, seconds: float) -> None:
        self._dataset, self._hyperparameters, self._seconds = dataset, hyperparameters, seconds
        self.best: EpochRecord | None = None
        self.slept = self.waited = 0.0

    def __iter__(self) -> Iterator[EpochRecord]:
        for epoch in range(1, EPOCHS + 1):
            start = time.perf_counter()
            time.sleep(self._seconds)
            error = random.random() / epoch
            record = epoch_record(epoch, error, self._seconds)
            self.best = record if self.best is None or error < self.best.val_energy_mae else self.best
            end = time.perf_counter()
            self.slept += end - start
            yield record
            self.waited += time.perf_counter() - end

    def potential(self) -> Potential:
        network = SingleNN(self._dataset.descriptor.n_features, self._hyperparameters)
        return Potential.from_dataset(self._dataset, self._hyperparameters, network)


@dataclass
class Sleeper:
    """The backend of the benchmark."""

    dataset: Dataset
    seconds: float
    device: str = "none"
    runs: list[SleepingRun] = field(default_factory=list)

    def start(self, hyperparameters: Hyperparameters, seed: int) -> SleepingRun:
        self.runs.append(SleepingRun(self.dataset, hyperparameters, self.seconds))
        return self.runs[-1]


@dataclass
class Cost:
    """What one worker's trials cost; times in seconds."""

    added: list[float] = field(default_factory=list)  # wall time of a trial less its sleep
    waited: list[float] = field(default_factory=list)  # of the training thread between its epochs
    cpu: float = 0.0  # of the process, all trials together
    requests: list[float] = field(default_factory=list)  # duration of each HTTP request
    transactions: list[float] = field(default_factory=list)  # of each transaction of the study
    failures: int = 0  # requests without an answer, or with a bad one


class Probe:
    """Stands between a worker and its stores, and measures."""

    def __init__(self, backend: Sleeper) -> None:
        self.cost, self._backend = Cost(), backend
        self._send, self._run_trial, self._next_trial = requests.Session.send, TrialRunner.run, tuning.next_trial
        self._start_of_trial = 0.0
        self._began: dict[sqlalchemy.Connection, float] = {}
        self._in_trials = False

    def send(self, session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        if not self._in_trials and "mlflow.parentRunId" in str(request.body):  # the first trial's run is made
            self._in_trials = True
            self.cost.requests.clear()  # they were the study's
        start = time.perf_counter()
        try:
            response = self._send(session, request, **options)
        except requests.RequestException:
            self.cost.failures += 1
            raise
        self.cost.requests.append(time.perf_counter() - start)
        self.cost.failures += self._in_trials and response.status_code != 200
        return response

    def begin(self, connection: sqlalchemy.Connection) -> None:
        self._began[connection] = time.perf_counter()

    def end(self, connection: sqlalchemy.Connection) -> None:
        if (start := self._began.pop(connection, None)) is not None:
            self.cost.transactions.append(time.perf_counter() - start)

    def next_trial(self, study: optuna.Study) -> optuna.Trial | None:
        if not self._backend.runs:
            self.cost.transactions.clear()
            self.cost.cpu = -time.process_time()
        self._start_of_trial = time.perf_counter()
        return self._next_trial(study)

    def run_trial(self, runner: TrialRunner, trial: optuna.Trial) -> Any:
        result = self._run_trial(runner, trial)
        run = self._backend.runs[-1]
        self.cost.added.append(time.perf_counter() - self._start_of_trial - run.slept)
        self.cost.waited.append(run.waited)
        return result


def work(folder: Path, study: str, trials: int, seconds: float) -> Cost:
    """Run a worker's share of a study, and measure."""
    stores = Stores(folder / "home", connection_file=Places(folder / "services").connection)
    options = {"study": {"name": study, "n_trials": trials}, "training": {"epochs": EPOCHS, "early_stopping": None}}
    config = load_config(None, options)
    dataset = prepare(config, stores.home)
    backend = Sleeper(dataset, seconds)
    probe, should_prune = Probe(backend), optuna.Trial.should_prune
    for event, handler in (("begin", probe.begin), ("commit", probe.end), ("rollback", probe.end)):
        sqlalchemy.event.listen(sqlalchemy.Engine, event, handler)
    with (
        mock.patch.object(requests.Session, "send", lambda *given, **options: probe.send(*given, **options)),
        mock.patch.object(optuna.Trial, "should_prune", lambda trial: should_prune(trial) and False),
        mock.patch.object(TrialRunner, "run", lambda *given: probe.run_trial(*given)),
        mock.patch.object(tuning, "next_trial", probe.next_trial),
        mock.patch.object(tuning, "make_backend", return_value=backend),
    ):
        tuning.tune(dataset, config, stores)
    probe.cost.cpu += time.process_time()
    probe.cost.requests.pop()  # it ended the study's run
    return probe.cost


def measure(folder: Path, workers: int, trials: int, seconds: float) -> None:
    """Run so many workers at once, print what it cost, and see that nothing is lost."""
    study = f"workers-{workers}"
    command = [sys.executable, "-m", "benchmarks.tracking", "--work", str(folder), study, str(trials), str(seconds)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(workers)]
    outputs = [process.communicate() for process in started]
    if any(process.returncode for process in started):
        sys.exit("\n".join(error.decode() for _, error in outputs))
    costs = [Cost(**json.loads(output.splitlines()[-1])) for output, _ in outputs]
    done = sum(len(cost.added) for cost in costs)
    added = np.array([value for cost in costs for value in cost.added])
    waited = np.array([value for cost in costs for value in cost.waited])
    requested = np.array([value for cost in costs for value in cost.requests])
    transactions = np.array([value for cost in costs for value in cost.transactions])
    found = {
        "added_share": float(np.median(added)) / (EPOCHS * seconds),
        "waited": float(np.median(waited)),
        "requests": len(requested) / done,
        "transactions": len(transactions) / done,
    }
    lost = workers * trials * EPOCHS * METRICS - stored_metrics(folder, study)
    print(f"\n{workers} workers, {done} trials of {EPOCHS * seconds:.0f} s, {EPOCHS} epochs, {METRICS} metrics")
    rows = [
        ("added to a trial", *quantiles(added, "s"), f"{found['added_share']:.1%} of a trial"),
        ("the training thread waits", *quantiles(waited, "s"), ""),
        ("HTTP request", *quantiles(requested * 1000, "ms"), f"{found['requests']:.1f} a trial"),
        ("transaction of the study", *quantiles(transactions * 1000, "ms"), f"{found['transactions']:.1f} a trial"),
    ]
    for name, median, late, note in rows:
        print(f"  {name:<28} p50 {median:>10}   p95 {late:>10}   {note}".rstrip())
    print(f"  CPU of tracking and study    {sum(cost.cpu for cost in costs) / done:.2f} s a trial")
    print(f"  metrics lost                 {lost}; requests that failed: {sum(cost.failures for cost in costs)}")
    if workers == 1 and EPOCHS * seconds == 30:
        over = [name for name, limit in LIMITS.items() if found[name] > limit]
        print(f"  limits of the design         {f'over: {over}' if over else 'kept'} ({LIMITS})")


def quantiles(values: np.ndarray, unit: str) -> tuple[str, str]:
    """Median and 95th percentile."""
    return f"{np.quantile(values, 0.5):.3g} {unit}", f"{np.quantile(values, 0.95):.3g} {unit}"


def stored_metrics(folder: Path, study: str) -> int:
    """Values of per-epoch metrics, each step counted once, that the tracking server has of a study's trials."""
    stores = Stores(folder / "home", connection_file=Places(folder / "services").connection)
    client = tracking_client(stores)
    names = [*epoch_record(1, 1.0, 1.0).metrics()]
    runs = [trial.user_attrs[RUN_ID] for trial in load_study(stores, study).get_trials()]
    return sum(len({value.step for value in client.get_metric_history(run, name)}) for run in runs for name in names)


def time_run_list(folder: Path, runs: int) -> None:
    """Fill an experiment and time the first page of its list, as MLflow's page asks for it, and all of it."""
    stores = Stores(folder / "home", connection_file=Places(folder / "services").connection)
    client = tracking_client(stores)
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

    print(f"\nMLflow's list of {runs} runs")
    for name, look in (
        ("first 100, the newest first", lambda: page("attributes.start_time DESC")),
        ("first 100, by a metric", lambda: page("metrics.metric_0 ASC")),
        ("all of them, 1000 a page", whole),
    ):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            look()
            times.append(time.perf_counter() - start)
        print(f"  {name:<28} {np.median(times):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--trials", type=int, default=2, help="of each worker")
    parser.add_argument("--epoch-seconds", type=float, default=0.3)
    parser.add_argument("--runs", type=int, default=5000, help="0: no list")
    parser.add_argument("--work", nargs=4, metavar=("FOLDER", "STUDY", "TRIALS", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        folder, study, trials, seconds = options.work
        print(json.dumps(asdict(work(Path(folder), study, int(trials), float(seconds)))))
        return
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    with tempfile.TemporaryDirectory(prefix="bdqm-") as name:
        folder = Path(name)
        places = Places(folder / "services")
        control.up(places, "127.0.0.1", False, lambda text: None)
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; all on one machine")
        try:
            prepare(load_config(), folder / "home")  # once, so that the workers find the features
            for workers in options.workers:
                measure(folder, workers, options.trials, options.epoch_seconds)
            if options.runs:
                time_run_list(folder, options.runs)
        finally:
            control.down(places)


if __name__ == "__main__":
    main()
