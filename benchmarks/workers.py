"""How many workers the two servers carry: real ones, which do everything but train, against real servers with TLS.

python -m benchmarks.workers [--load WORKERS:TRIALS:EPOCHS:EPOCH_SECONDS …] [--processes 4] [--out FILE]

Starts the servers in a folder of its own. For each load so many workers start one after the other within the length of
one trial, and run so many trials each. Between the moment when the last has begun and that when the first is done, the
load is full. Afterwards every trial and every metric is checked. Needs MariaDB.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import TrialState

from bdqm_tune.config.config import load_config
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.study.study import EXPERIMENT, RUN_ID, load_study
from benchmarks.client import Measured, Order
from benchmarks.servers import ResourceSampler, Sample, Servers, servers
from benchmarks.sleeping import epoch_record

LOADS = ["1:3:100:0.3", "8:3:100:0.3", "32:3:100:0.3"]
FIRST_START = 15.0  # seconds for the processes to load their libraries
LIMIT = 900.0  # seconds that a load may take beyond its sleep


def measure(
    running: Servers,
    workers: int,
    trials: int,
    epochs: int,
    seconds: float,
    n_processes: int,
) -> dict[str, Any]:
    """Run a load, and give what it cost.

    Args:
        trials: of each worker.
        seconds: of an epoch.
    """
    study, length = f"load-{workers}-{time.time():.0f}", epochs * seconds
    n_processes = min(n_processes, workers)
    first = time.time() + FIRST_START
    starts = [first + length * worker / workers for worker in range(workers)]
    where = str(running.stores.home), str(running.places.connection)
    orders = [Order(*where, study, trials, epochs, seconds, starts[i::n_processes]) for i in range(n_processes)]
    stored, used = running.stored(), running.cpu()
    with ResourceSampler(running) as watch:
        found = _run(orders, FIRST_START + length * (trials + 1) + LIMIT)
    used = {name: value - used[name] for name, value in running.cpu().items()}
    stored = {name: value - stored[name] for name, value in running.stored().items()}
    problems = _problems(running, study, workers * trials, epochs, found)
    ended = [moment for one in found for _, moment in one.ended]
    added = [value for one in found for value in one.added]  # from one trial of a worker to its next
    start, end = max(moment for one in found for moment in one.ready), min(done for one in found for done in one.done)
    return {
        "problems": problems,
        "workers": workers,
        "trials": len(ended),
        "epochs": epochs,
        "trial_seconds": length,
        "full": _full_load(watch.between(start, end), ended),
        "share": length / (length + float(np.mean(added))) if added else None,  # where each has one trial
        "cpu_per_trial": {name: value / len(ended) for name, value in used.items()},  # starts and ends included
        "client_cpu_per_trial": sum(one.cpu for one in found) / len(ended),
        "client_bytes": [max(size for _, size in one.memory) for one in found],
        "growth": _growth(watch, found, start, end),
        "server_bytes": {name: max(sample.memory[name] for sample in watch.samples) for name in used},
        "connections": max(sample.connections for sample in watch.samples),
        "bytes_per_trial": {name: value / len(ended) for name, value in stored.items()},
        "transactions_per_trial": sum(one.transactions for one in found) / len(ended),
        "calls": {kind: _quantiles(values) for kind, values in sorted(_calls(found).items())},
        "added": _quantiles(added),
        "waited": _quantiles([value for one in found for value in one.waited]),
        "errors": dict(sum((Counter(one.errors) for one in found), Counter())),
    }


def _full_load(seen: tuple[Sample, Sample] | None, ended: list[float]) -> dict[str, float] | None:
    """What happened while all worked; None if that was too short to be seen."""
    if seen is None:
        return None
    before, after = seen
    seconds = after.time - before.time
    trials = sum(before.time < moment <= after.time for moment in ended)
    cores = {name: (after.cpu[name] - before.cpu[name]) / seconds for name in after.cpu}
    return {"seconds": seconds, "trials": trials, "trials_per_second": trials / seconds, **cores}


def _growth(watch: ResourceSampler, found: list[Measured], start: float, end: float) -> dict[str, int] | None:
    """Bytes that the servers, and the workers' process that grew most, gained in full load's last four fifths."""
    start += (end - start) / 5
    seen = watch.between(start, end)
    clients = [[size for moment, size in one.memory if start <= moment <= end] for one in found]
    if seen is None or not all(clients):
        return None
    servers = {name: seen[1].memory[name] - seen[0].memory[name] for name in seen[0].memory}
    return {**servers, "clients": max(sizes[-1] - sizes[0] for sizes in clients)}


def _run(orders: list[Order], limit: float) -> list[Measured]:
    # MLflow's own repetitions are off in the thread that sends, and the first to end would turn them on for all.
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.client"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | settings,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(json.dumps([asdict(order) for order in orders]).encode(), limit)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return [Measured(**one) for one in json.loads(output.splitlines()[-1])]


def _calls(found: list[Measured]) -> dict[str, list[float]]:
    calls: dict[str, list[float]] = {}
    for one in found:
        for kind, values in one.calls.items():
            calls.setdefault(kind, []).extend(values)
    return calls


def _quantiles(seconds: list[float]) -> dict[str, float]:
    """How many there are, and their median and 95th percentile in milliseconds."""
    if not seconds:
        return {"count": 0}
    return {"count": len(seconds), **{f"p{q}": float(np.percentile(seconds, q)) * 1000 for q in (50, 95)}}


def _problems(running: Servers, study: str, expected: int, epochs: int, found: list[Measured]) -> list[str]:
    """What is lost or doubled of a load's trials, runs and metrics; nothing, as a rule."""
    problems = [problem for one in found for problem in one.failed]
    numbers = sorted(number for one in found for number, _ in one.ended)
    if numbers != list(range(expected)):
        problems.append(f"{len(numbers)} ends of {len(set(numbers))} trials, not of {expected}")
    opened = load_study(running.stores, study)
    recorded = opened.get_trials(deepcopy=False)
    complete = [trial for trial in recorded if trial.state == TrialState.COMPLETE]
    if len(complete) != len(recorded) or len(recorded) != expected:
        problems.append(f"{len(complete)} of {len(recorded)} trials are complete, not {expected}")
    where = f"mlflow.runs WHERE experiment_id = {opened.user_attrs[EXPERIMENT]} AND name LIKE 'trial-%'"
    runs = {str(run) for (run,) in running.query(f"SELECT run_uuid FROM {where} AND status = 'FINISHED'")}
    if len(runs) != expected or runs != {trial.user_attrs[RUN_ID] for trial in recorded}:
        problems.append(f"{len(runs)} runs of trials, not {expected}")
    names = ", ".join(f"'{name}'" for name in epoch_record(1, 1.0, 1.0).metrics())
    of_trials = f"run_uuid IN (SELECT run_uuid FROM {where}) AND `key` IN ({names})"
    counted = running.query(
        f"SELECT COUNT(*), COUNT(DISTINCT run_uuid, `key`, step) FROM mlflow.metrics WHERE {of_trials}"
    )
    metrics = expected * epochs * len(epoch_record(1, 1.0, 1.0).metrics())
    if counted != [(metrics, metrics)]:
        problems.append(f"{counted[0]} metrics (with and without doubles), not {metrics}")
    return [f"{problem} ({count} times)" for problem, count in Counter(problems).items()]


def stop_if_lost(result: dict[str, Any]) -> None:
    """End with exit status 1 and what is lost or doubled, if anything is."""
    if result["problems"]:
        sys.exit("\n".join(result["problems"]))


def found_of(result: dict[str, Any]) -> str:
    """Whether all trials, runs and metrics are there."""
    return "NOT as it should be, see below" if result["problems"] else "none lost, none doubled"


def show(result: dict[str, Any]) -> None:
    """Print what a load cost."""
    share = f"; {result['share']:.3f} of what sleep alone allows" if result["share"] else ""
    print(
        f"\n{result['workers']} workers, {result['trials']} trials of {result['trial_seconds']:.0f} s, "
        f"{result['epochs']} epochs: {found_of(result)}{share}"
    )
    if full := result["full"]:
        print(
            f"  full load  {full['trials_per_second']:.2f} trials/s over {full['seconds']:.0f} s, by "
            f"{full['mlflow']:.2f} cores of MLflow's server and {full['database']:.2f} of the database"
        )
    for name, size in result["server_bytes"].items():
        print(f"  {name:<10} {result['cpu_per_trial'][name]:.3f} s of CPU a trial in all, {size / 2**20:.0f} MiB")
    if growth := result["growth"]:
        grown = ", ".join(f"{name} {size / 2**20:+.0f} MiB" for name, size in growth.items())
        print(f"  memory     in the last four fifths of full load: {grown}")
    clients = result["client_bytes"]
    print(
        f"  clients    {result['client_cpu_per_trial']:.3f} s of CPU a trial; {len(clients)} processes, each of "
        f"{max(clients) / 2**20:.0f} MiB beside what they share; at most {result['connections']} connections to the "
        "database"
    )
    stored = ", ".join(f"{name} {value / 1024:.1f} KiB" for name, value in result["bytes_per_trial"].items())
    print(f"  a trial    {stored}; {result['transactions_per_trial']:.1f} transactions")
    for kind, found in [("added", result["added"]), ("waited", result["waited"]), *result["calls"].items()]:
        if found["count"]:
            each = found["count"] / result["trials"]
            print(f"  {kind:<28} p50 {found['p50']:8.1f} ms   p95 {found['p95']:8.1f} ms   {each:6.2f} a trial")
    print(f"  errors     {result['errors'] or 'none'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", nargs="*", default=LOADS, metavar="WORKERS:TRIALS:EPOCHS:EPOCH_SECONDS")
    parser.add_argument("--processes", type=int, default=4, help="that hold the workers")
    parser.add_argument("--out", type=Path, help="append each result, JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bdqm-") as name, servers(Path(name)) as running:
        prepare(load_config(), running.stores.home)  # once, so that the workers find the features
        for load in options.load:
            *counts, seconds = load.split(":")
            workers, trials, epochs = map(int, counts)
            print(f"load average {os.getloadavg()[0]:.2f} before, {os.cpu_count()} cores")
            result = measure(running, workers, trials, epochs, float(seconds), options.processes)
            show(result)
            if options.out:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
            stop_if_lost(result)


if __name__ == "__main__":
    main()
