"""What a worker costs the database, as a study grows: in trials that are finished, that wait, and that run elsewhere.

python -m benchmarks.study_size [--size FINISHED:WAITING:RUNNING …]

One worker on a real server with TLS, in a study that was filled by SQL with copies of a trial. Needs MariaDB.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from bdqm_tune.config.config import Config, load_config
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.storage.cache import Cache
from bdqm_tune.storage.queries import CLAIM_TOKEN
from bdqm_tune.study.search_space import suggest
from bdqm_tune.study.study import RESULT, RUN_ID, add_trials, check_study, next_trial, open_study, others_run
from bdqm_tune.tracking.quiet import quiet_libraries
from bdqm_tune.workers.heartbeat import Heartbeat
from bdqm_tune.workers.registry import RUNNING, TABLE, Workers, describe_process
from benchmarks.servers import Servers, servers

SIZES = ["100:100:10", "10000:100:10", "100:10000:10", "100:100:1000"]
REPEATS = 10
RUNG = 11  # epoch at which hyperband compares, of 100
COPIED = {  # tables with rows of a trial, and their columns
    "trial_params": "param_name, param_value, distribution_json",
    "trial_user_attributes": "`key`, value_json",
    "trial_values": "objective, value, value_type",
    "trial_intermediate_values": "step, intermediate_value, intermediate_value_type",
}


class Meter:
    """Times calls: on the wall, of this process, and of the database."""

    def __init__(self, running: Servers) -> None:
        self._running = running
        self._seconds: dict[str, list[tuple[float, float, float]]] = {}

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        before = self._now()
        result = call()
        elapsed = tuple(after - then for after, then in zip(self._now(), before, strict=True))
        self._seconds.setdefault(name, []).append(elapsed)
        return result

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), self._running.cpu()["database"]

    def show(self) -> None:
        """Print the median on the wall, and the means of the processors; the database counts its own coarsely."""
        print(f"  {'milliseconds':<16} {'elapsed':>9} {'CPU here':>9} {'of the database':>16}")
        for name, seconds in self._seconds.items():
            elapsed, here, there = np.array(seconds).T * 1000
            print(f"  {name:<16} {np.median(elapsed):9.1f} {np.mean(here):9.1f} {np.mean(there):16.1f}")


def fill(running: Servers, study: optuna.Study, finished: int, elsewhere: int) -> None:
    """Give the study copies of its only trial: finished ones, and ones that as many other workers run."""
    study_id = study._study_id
    first = running.query(f"SELECT trial_id FROM optuna.trials WHERE study_id = {study_id}")[0][0]
    for state, count, offset in (("COMPLETE", finished - 1, 0), ("RUNNING", elsewhere, finished)):
        if not count:
            continue
        running.query(
            "INSERT INTO optuna.trials (number, study_id, state, datetime_start, datetime_complete) "
            f"SELECT {offset} + seq, {study_id}, '{state}', datetime_start, datetime_complete "
            f"FROM optuna.trials, optuna.seq_1_to_{count} WHERE trial_id = {first}"
        )
        new = f"n.study_id = {study_id} AND n.number > {offset}"
        for table, columns in COPIED.items():
            if state == "RUNNING" and table == "trial_values":
                continue
            running.query(
                f"INSERT INTO optuna.{table} (trial_id, {columns}) SELECT n.trial_id, {columns} "
                f"FROM optuna.trials n JOIN optuna.{table} o ON o.trial_id = {first} WHERE {new}"
            )
    assert isinstance(study._storage, Cache)
    database = study._storage.backend
    Workers(database.engine, database.retry, study_id).all()  # which makes the table
    who, description = f"CONCAT('{study_id}-', number)", json.dumps(describe_process()).replace("'", "''")
    of_others = f"FROM optuna.trials WHERE study_id = {study_id} AND state = 'RUNNING'"
    running.query(
        "INSERT INTO optuna.trial_system_attributes (trial_id, `key`, value_json) "
        f"SELECT trial_id, '{CLAIM_TOKEN}', CONCAT('\"', {who}, ':x\"') {of_others}"
    )
    running.query(
        f"INSERT INTO optuna.{TABLE.name} (worker, study_id, state, beats, since, seen, description, note) "
        f"SELECT {who}, {study_id}, '{RUNNING}', 1, NOW(), NOW(), '{description}', '' {of_others}"
    )


def first_trial(study: optuna.Study, config: Config, n_train: int) -> None:
    """Add the trial that is copied."""
    study.add_trials([create_trial(state=TrialState.WAITING)])
    trial = next_trial(study)
    assert trial is not None
    choose_parameters(trial, config, n_train)
    trial.report(1.0, RUNG)
    trial.set_user_attr(RUN_ID, 32 * "0")
    trial.set_user_attr(RESULT, {"trial_seconds": 1.0, "reason": 100 * "x"})
    study.tell(trial, 1.0)


def choose_parameters(trial: optuna.Trial, config: Config, n_train: int) -> None:
    """As a worker does when a trial begins."""
    suggest(trial, config, n_train)


def compare(trial: optuna.Trial) -> None:
    """As a worker does at a rung."""
    trial.report(1.0, RUNG)
    trial.should_prune()


def measure(running: Servers, dataset: Dataset, finished: int, waiting: int, elsewhere: int) -> None:
    """Time what one worker does in a study of this size."""
    config = load_config(
        None, {"study": {"name": f"size-{time.time():.0f}"}, "training": {"epochs": 100, "forces": False}}
    )
    stores, n_train, meter = running.stores, len(dataset.train.structures), Meter(running)
    study = open_study(stores, config, dataset)
    first_trial(study, config, n_train)
    fill(running, study, finished, elsewhere)
    meter("add the waiting", lambda: add_trials(study, waiting))
    study._storage.backend.close()
    meter("check the study", lambda: check_study(stores, config, dataset))
    study = meter("open the study", lambda: open_study(stores, config, dataset))
    with closing(Heartbeat(study._storage.backend, study._study_id, describe_process())) as heartbeat:
        for repeat in range(REPEATS):
            trial = meter("ask" if repeat else "ask at first", lambda: next_trial(study))
            choose = partial(choose_parameters, trial, config, n_train)
            meter("suggest" if repeat else "suggest at first", choose)
            meter("compare", lambda trial=trial: compare(trial))
            meter("tell", lambda trial=trial: study.tell(trial, 1.0))
            meter("others run?", lambda: others_run(study))
            meter("heartbeat", heartbeat.send)
    study._storage.backend.close()
    print(f"\n{finished} finished, {waiting} waiting, {elsewhere} running elsewhere")
    meter.show()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="*", default=SIZES, metavar="FINISHED:WAITING:RUNNING")
    options = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="bdqm-") as name, servers(Path(name)) as running:
        dataset = prepare(load_config(), running.stores.home)
        print(f"load average {os.getloadavg()[0]:.2f} before, {os.cpu_count()} cores")
        for size in options.size:
            measure(running, dataset, *map(int, size.split(":")))


if __name__ == "__main__":
    main()
