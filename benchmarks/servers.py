"""The two servers in a folder of a benchmark's own: started as a job starts them, watched, and stopped."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pymysql
from sqlalchemy import make_url

from bdqm_tune.mlflow_server.control import folder_bytes
from bdqm_tune.mlflow_server.database import own_database
from bdqm_tune.mlflow_server.paths import ServerPaths
from bdqm_tune.mlflow_server.processes import leftovers
from bdqm_tune.services.connection import Stores, read_connection

# A loopback address, but not the one that counts as one's own machine: MLflow then speaks TLS, as to other nodes.
HOST = "127.0.0.2"
START_SECONDS = 120
SCHEMAS = ("optuna", "mlflow")


@dataclass(frozen=True)
class Servers:
    """Servers that run."""

    places: ServerPaths
    processes: dict[str, list[psutil.Process]]  # of `database` and `mlflow`

    @property
    def stores(self) -> Stores:
        return Stores(self.places.folder.parent / "home", connection_file=self.places.connection)

    def query(self, statement: str) -> list[tuple[object, ...]]:
        """What the database reports to its administrator."""
        port = make_url(read_connection(self.places.connection).storage_url).port
        assert port is not None
        with closing(own_database(self.places, HOST, port).connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def status(self, name: str) -> int:
        """A number of the database's SHOW GLOBAL STATUS."""
        return int(str(self.query(f"SHOW GLOBAL STATUS LIKE '{name}'")[0][1]))

    def cpu(self) -> dict[str, float]:
        """Seconds of a processor that each server has used."""
        return {name: sum(_cpu(one) for one in processes) for name, processes in self.processes.items()}

    def memory(self) -> dict[str, int]:
        """Resident bytes of each server."""
        return {name: sum(one.memory_info().rss for one in processes) for name, processes in self.processes.items()}

    def stored(self) -> dict[str, int]:
        """Bytes of the rows and indices of each schema, and of the artifacts."""
        found = {"artifacts": folder_bytes(self.places.artifacts)}
        for schema in SCHEMAS:
            where = f"FROM information_schema.tables WHERE table_schema = '{schema}'"
            tables = ", ".join(f"`{schema}`.`{name}`" for (name,) in self.query(f"SELECT table_name {where}"))
            self.query(f"ANALYZE TABLE {tables}")
            found[schema] = int(str(self.query(f"SELECT SUM(data_length + index_length) {where}")[0][0]))
        return found


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Start both in the folder, and stop them after the block."""
    places = ServerPaths(folder / "services")
    environment = os.environ | {"BDQM_SERVICES": str(places.folder), "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "bdqm_tune", "services", "up", "--foreground", "--host", HOST]
    with (folder / "up.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not places.connection.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit((folder / "up.log").read_text())
            time.sleep(0.2)
        yield Servers(places, find_processes(places))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def find_processes(places: ServerPaths) -> dict[str, list[psutil.Process]]:
    """Those of `database` and `mlflow` that run now."""
    found: dict[str, list[psutil.Process]] = {"database": [], "mlflow": []}
    for process in leftovers(places.folder):
        found["mlflow" if "python" in process.name() or "mlflow" in process.name() else "database"].append(process)
    return found


@dataclass
class Sample:
    """The servers at one moment."""

    time: float  # seconds, as time.time
    cpu: dict[str, float]
    memory: dict[str, int]
    connections: int  # to the database


@dataclass
class ResourceSampler:
    """Samples the servers once in a while, in a thread, until it is stopped."""

    servers: Servers
    every: float = 2.0  # seconds
    samples: list[Sample] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "ResourceSampler":
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with suppress(psutil.Error, pymysql.MySQLError):  # one that is away is not seen
                connections = self.servers.status("Threads_connected")
                self.samples.append(Sample(time.time(), self.servers.cpu(), self.servers.memory(), connections))
            if self._stop.wait(self.every):
                return

    def between(self, start: float, end: float) -> tuple[Sample, Sample] | None:
        """The first sample after one moment and the last before another; None if there are no two."""
        inside = [sample for sample in self.samples if start <= sample.time <= end]
        return (inside[0], inside[-1]) if len(inside) > 1 else None
