"""Processes of simulated workers: each is `tune` in a thread, with a storage, a tracker and a heartbeat of its own.

Started by `benchmarks.workers`: reads a list of `Order` (JSON) from standard input, one for each process, and prints
what they measured as its last line.
"""

import gc
import itertools
import json
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import mlflow.utils.request_utils
import optuna
import psutil
import requests
import sqlalchemy

from bdqm_tune.config.config import load_config
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.trial_result import TrialResult
from bdqm_tune.tuning import pruning as comparisons
from bdqm_tune.tuning import trial as trials
from bdqm_tune.tuning import tune as tuning
from bdqm_tune.workers.registry import describe_process
from benchmarks.sleeping import Sleeper

STACK_BYTES = 512 * 1024  # of a thread; there can be thousands
SAMPLE_SECONDS = 5.0  # between two samples of the memory


@dataclass(frozen=True)
class Order:
    """What a process is to do."""

    home: str
    connection: str
    study: str
    trials: int  # that each worker adds
    epochs: int
    epoch_seconds: float
    starts: list[float]  # of the workers, seconds as time.time


@dataclass
class Measured:
    """Durations in seconds, moments as time.time."""

    calls: dict[str, list[float]] = field(default_factory=dict)  # durations by kind
    ended: list[tuple[int, float]] = field(default_factory=list)  # number and end of each trial
    ready: list[float] = field(default_factory=list)  # when each worker began its first trial
    done: list[float] = field(default_factory=list)  # when each ended its last
    added: list[float] = field(default_factory=list)  # to a trial, beside its sleep
    waited: list[float] = field(default_factory=list)  # by the training thread, between its epochs
    transactions: int = 0
    errors: dict[str, int] = field(default_factory=dict)  # of requests and of the database, by message
    failed: list[str] = field(default_factory=list)  # workers
    cpu: float = 0.0
    memory: list[tuple[float, int]] = field(default_factory=list)  # bytes of this process alone, with the moment


class Probe:
    """Measures the calls of the workers to their stores."""

    def __init__(self) -> None:
        self.measured, self.errors = Measured(), Counter[str]()
        self._sessions = threading.local()

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.measured.calls.setdefault(kind, []).append(time.perf_counter() - start)

    def timing(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def call(*args: Any, **options: Any) -> Any:
            with self.timed(kind):
                return function(*args, **options)

        return call

    def sending(self, send: Callable[..., requests.Response]) -> Callable[..., requests.Response]:
        def call(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            path = str(request.url).partition("?")[0]
            kind = "artifact" if "mlflow-artifacts" in path else "/".join(path.split("/")[-2:])
            try:
                with self.timed(f"http {kind}"):
                    response = send(session, request, **options)
            except requests.RequestException as error:
                self.errors[f"{kind}: {type(error).__name__}"] += 1
                raise
            if response.status_code >= 400 and kind != "experiments/get-by-name":  # which queries whether there is one
                self.errors[f"{kind}: HTTP {response.status_code} {response.text[:80]}"] += 1
            return response

        return call

    def session(self, make: Callable[..., requests.Session]) -> Callable[..., requests.Session]:
        """A session for each thread: MLflow has one for each process, in which there is one worker elsewhere."""

        def call(*args: Any, **options: Any) -> requests.Session:
            sessions = self._sessions.__dict__
            key = repr((args, options))
            if key not in sessions:
                sessions[key] = make(*args, **options)
            return sessions[key]

        return call

    def count_transaction(self, connection: sqlalchemy.Connection) -> None:
        self.measured.transactions += 1

    def count_error(self, context: sqlalchemy.ExceptionContext) -> None:
        error = context.original_exception
        if isinstance(context.sqlalchemy_exception, sqlalchemy.exc.IntegrityError):
            return  # Optuna makes a study to see whether it is there
        self.errors[f"database: {error.args[0] if error.args else type(error).__name__}"] += 1


def work(order: Order) -> Measured:
    """Run all workers to their end."""
    threading.stack_size(STACK_BYTES)
    stores = Stores(Path(order.home), connection_file=Path(order.connection))
    options: dict[str, Any] = {
        "study": {"name": order.study, "n_trials": order.trials},
        "training": {"epochs": order.epochs, "early_stopping": None, "forces": False},
        "": {"cohort": 1},
    }
    config = load_config(None, options)
    dataset = prepare(config, stores.home)
    probe, mine = Probe(), threading.local()
    measured = probe.measured

    def make_backend(*given: Any) -> Sleeper:
        mine.backend, mine.ended = Sleeper(dataset, order.epochs, order.epoch_seconds), []
        return mine.backend

    def on_trial(result: TrialResult, study: optuna.Study) -> None:
        now, run = time.time(), mine.backend.runs[len(mine.ended)]
        measured.ended.append((result.number, now))
        measured.waited.append(run.waited)
        if mine.ended:
            measured.added.append(now - mine.ended[-1] - run.slept)
        else:
            measured.ready.append(now - result.trial_seconds)
        mine.ended.append(now)

    def worker(start: float) -> None:
        time.sleep(max(0.0, start - time.time()))
        try:
            tuning.tune(dataset, config, stores, on_trial)
            if mine.ended:  # else others were quicker to take what it added
                measured.done.append(mine.ended[-1])
        except Exception as error:
            measured.failed.append(f"{type(error).__name__}: {error}")

    sqlalchemy.event.listen(sqlalchemy.Engine, "begin", probe.count_transaction)
    sqlalchemy.event.listen(sqlalchemy.Engine, "handle_error", probe.count_error)
    numbers = itertools.count()
    should_prune, client = optuna.Trial.should_prune, mlflow.utils.request_utils
    patches = [
        (tuning, "make_backend", make_backend),
        # Each on a machine of its own, as far as others can tell.
        (tuning, "describe_process", lambda: describe_process() | {"process": f"{os.getpid()}-{next(numbers)}/1@1"}),
        (trials, "next_trial", probe.timing("ask", trials.next_trial)),
        (trials.TrialRunner, "_suggest", probe.timing("suggest", trials.TrialRunner._suggest)),
        (comparisons, "is_pruned", probe.timing("compare", comparisons.is_pruned)),
        (trials, "tell", probe.timing("tell", trials.tell)),
        # Queried, and never obeyed, so that all trials are equally long.
        (optuna.Trial, "should_prune", lambda trial: should_prune(trial) and False),
        (requests.Session, "send", probe.sending(requests.Session.send)),
        (client, "_cached_get_request_session", probe.session(client._cached_get_request_session.__wrapped__)),
    ]
    with ExitStack() as stack:
        for place, name, function in patches:
            stack.enter_context(mock.patch.object(place, name, function))
        started = time.process_time()
        threads = [threading.Thread(target=worker, args=(start,)) for start in order.starts]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            measured.memory.append((time.time(), psutil.Process().memory_full_info().uss))
            next((thread for thread in threads if thread.is_alive()), threads[0]).join(SAMPLE_SECONDS)
        measured.cpu = time.process_time() - started
    measured.errors = dict(probe.errors)
    return measured


def main() -> None:
    orders = [Order(**order) for order in json.load(sys.stdin)]
    # Forked after the imports, so that they share the memory of the libraries, and a machine holds many; for good, as
    # the collector of garbage, which would write to all of it, leaves alone what is frozen.
    gc.freeze()
    with multiprocessing.get_context("fork").Pool(len(orders)) as pool:
        measured = pool.map(work, orders, chunksize=1)
    print(json.dumps([asdict(one) for one in measured]))


if __name__ == "__main__":
    main()
