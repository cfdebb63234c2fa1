"""What faults cost a running study: real servers, and real workers which do everything but train.

python -m benchmarks.faults [FAULT …] [--load WORKERS:TRIALS:EPOCHS:EPOCH_SECONDS] [--processes 4] [--out FILE]

A FAULT is `network` (100 ms each way, and one chunk in a hundred lost, one connection in a hundred reset), or
`mlflow-hangs:SECONDS`, `mlflow-killed:SECONDS`, `database-hangs:SECONDS`, `database-killed:SECONDS`: in the middle of
the load, for so long. The same load without a fault comes first. Each time every trial and every metric is checked.
Needs MariaDB.
"""

import argparse
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import make_url

from bdqm_tune.config.config import load_config
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import connection_text, read_connection
from benchmarks.servers import HOST, Servers, find_processes, servers
from benchmarks.slow_network import Network
from benchmarks.workers import FIRST_START, found_of, measure, stop_if_lost

FAULTS = ["network", "mlflow-hangs:60", "mlflow-killed:60", "database-hangs:60", "database-killed:60"]
LOAD = "4:3:30:1.0"
DELAY, LOSS, RESET_EVERY = 0.1, 0.01, 100  # seconds each way; share of the chunks; connections


@contextmanager
def bad_network(running: Servers) -> Iterator[None]:
    """Let all that read the connection file in the block go through a bad network."""
    file, network = running.places.connection, Network(DELAY, LOSS, RESET_EVERY)
    before = read_connection(file)
    database, mlflow = make_url(before.storage_url), urlsplit(before.tracking_uri)
    assert database.port is not None
    assert mlflow.port is not None
    with network.to(HOST, database.port) as database_port, network.to(HOST, mlflow.port) as mlflow_port:
        storage = database.set(port=database_port).render_as_string(hide_password=False)
        tracking = mlflow._replace(netloc=f"{HOST}:{mlflow_port}").geturl()
        file.write_text(connection_text(replace(before, storage_url=storage, tracking_uri=tracking)))
        try:
            yield
        finally:
            file.write_text(connection_text(before))
    print(f"  {network.connections} connections, {network.resets} of them reset, {network.late} chunks late")


@contextmanager
def away(running: Servers, server: str, how: str, seconds: float, start: float) -> Iterator[None]:
    """In the block, let a server hang, or be killed and not come back, for so long.

    Args:
        start: seconds from now.
    """
    processes = running.processes[server]
    supervisor = processes[0].parent() if how == "killed" else None  # which would start it again at once

    def act() -> None:
        time.sleep(start)
        stopped = [supervisor] if supervisor is not None else processes
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        if supervisor is not None:
            for process in processes:
                process.kill()
        time.sleep(seconds)
        for process in stopped:
            process.send_signal(signal.SIGCONT)
        while not all((found := find_processes(running.places)).values()):
            time.sleep(0.5)
        running.processes.update(found)

    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join()


def fault(running: Servers, name: str, start: float) -> Any:
    """The fault of this name, as a context."""
    if name == "network":
        return bad_network(running)
    what, _, seconds = name.partition(":")
    server, _, how = what.partition("-")
    return away(running, server, how, float(seconds), start)


def show(name: str, result: dict[str, Any], reference: dict[str, Any]) -> None:
    """Print what a fault cost, beside the load without it."""
    waited, before = (one["waited"] for one in (result, reference))
    length = result["trial_seconds"]
    print(
        f"{name:<20} {result['trials']} trials of {length:.0f} s: {found_of(result)}; each takes "
        f"{length / result['share'] - length:.1f} s more than it sleeps; "
        f"pace {result['share'] / reference['share']:.3f} of that without; between the epochs of a trial "
        f"{waited['p50'] / 10 / length:.2f} % of its time (p95 {waited['p95'] / 10 / length:.2f} %), "
        f"without {before['p50'] / 10 / length:.2f} %; errors that were repeated: {sum(result['errors'].values())}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", default=FAULTS, metavar="FAULT")
    parser.add_argument("--load", default=LOAD, metavar="WORKERS:TRIALS:EPOCHS:EPOCH_SECONDS")
    parser.add_argument("--processes", type=int, default=4, help="that hold the workers")
    parser.add_argument("--out", type=Path, help="append each result, JSON")
    options = parser.parse_args()
    *counts, seconds = options.load.split(":")
    workers, trials, epochs = map(int, counts)
    if trials < 2:
        parser.error("--load: what a fault costs is seen from one trial of a worker to its next: 2 TRIALS or more")
    reference: dict[str, Any] = {}
    for name in ["none", *options.faults]:
        with tempfile.TemporaryDirectory(prefix="bdqm-") as folder, ExitStack() as stack:
            running = stack.enter_context(servers(Path(folder)))
            prepare(load_config(), running.stores.home)
            load = f"load average {os.getloadavg()[0]:.1f}"
            if name != "none":  # when all work
                stack.enter_context(fault(running, name, FIRST_START + epochs * float(seconds) * 1.2))
            result = measure(running, workers, trials, epochs, float(seconds), options.processes)
        reference = reference or result
        print(load)
        show(name, result, reference)
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"fault": name, **result}) + "\n")
        stop_if_lost(result)


if __name__ == "__main__":
    main()
