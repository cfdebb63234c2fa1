"""A small real problem: rattled copper and copper-gold bulk with EMT energies, and stores in an empty folder."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import requests
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.config.config import Config, load_config
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.mlflow_server.processes import free_port
from bdqm_tune.services.connection import Connection, Stores, connection_text, find_stores
from bdqm_tune.tuning.tune import tune
from tests.mariadb import MariaDb
from tests.places import Place
from tests.postgresql import PostgreSql

SEARCH = {"num_layers": {"int": [1, 3]}, "num_nodes": {"int": [4, 16]}, "batch_size": {"int": [4, 16], "log": True}}


def rattled(n: int, seed: int) -> list[Atoms]:
    random = np.random.default_rng(seed)
    images = []
    for i in range(n):
        atoms = bulk("Cu", cubic=True)
        if i % 3 == 0:
            atoms.symbols[0] = "Au"
        atoms.positions += random.normal(scale=0.1, size=(4, 3))
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        images.append(atoms)
    return images


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Trajectories `train` (40 structures), `test` (12) and `other` (40 different ones)."""
    folder = tmp_path_factory.mktemp("structures")
    sizes = {"train": (40, 0), "test": (12, 1), "other": (40, 2)}
    for name, (n, seed) in sizes.items():
        ase.io.write(folder / f"{name}.traj", rattled(n, seed))
    return {name: str(folder / f"{name}.traj") for name in sizes}


@pytest.fixture
def stores(workdir: Path) -> Stores:
    """The embedded stores of an empty working directory."""
    return find_stores()


@pytest.fixture
def configure(files: dict[str, str]) -> Callable[..., Config]:
    """`configure(study={...}, training={...}, ...)`: a configuration on the small data with quick trials."""

    def make(**groups: dict[str, Any]) -> Config:
        defaults: dict[str, dict[str, Any]] = {
            "data": {"train": files["train"], "test": files["test"]},
            "descriptor": {"orders": [0, 1], "sigmas": 3, "cutoff": 4.0},
            "training": {"epochs": 9, "forces": False},
            "search": SEARCH,
            "study": {"name": "small", "n_trials": 3, "enqueue": [{}]},
            "": {"cohort": 1},  # so that they end one after the other, and the same numbers come out
        }
        return load_config(None, {name: defaults.get(name, {}) | groups.get(name, {}) for name in defaults | groups})

    return make


@pytest.fixture
def run(stores: Stores, configure: Callable[..., Config]) -> Callable[..., Any]:
    """`run(study={...}, ...)`: prepare, tune, and return (study, results in order)."""
    from bdqm_tune.study.trial_result import TrialResult

    def go(**groups: dict[str, Any]) -> Any:
        config = configure(**groups)
        results: list[TrialResult] = []
        study = tune(prepare(config, stores.home), config, stores, lambda result, _: results.append(result))
        return study, results

    return go


class Server:
    """MLflow's server with passwords, and the connection file that tells where it is."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "connection.json"
        self.password = secrets.token_urlsafe(16)
        self.process: subprocess.Popen[bytes] | None = None
        self.uri = ""
        (folder / "auth.ini").write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\nadmin_username = admin\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\nauth_cache_ttl_seconds = 60\n"
        )

    def start(self) -> None:
        """Start on a port of its own, wait until it answers, and write the connection file."""
        port = free_port("127.0.0.1")
        self.uri = f"http://127.0.0.1:{port}"
        variables = {
            "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "auth.ini"),
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the tests",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        command = f"-m mlflow server --app-name basic-auth --workers 1 --host 127.0.0.1 --port {port}".split()
        where = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        where += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command, *where],
                cwd=self.folder,
                env=os.environ | variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 300
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        self.write_connection()

    def write_connection(self, password: str = "") -> None:
        connection = Connection("here", "now", "sqlite:///none.db", self.uri, "admin", password or self.password)
        self.file.write_text(connection_text(connection))

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.uri}/health", timeout=10).ok
        except requests.RequestException:
            return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            self.process.wait(30)
            self.process = None


@pytest.fixture(scope="session")
def started_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(started_server: Server, workdir: Path) -> Server:
    """A running server of MLflow, one for all tests: names of studies must differ.

    A test may kill it or hold it up: the next one starts it again.
    """
    if not started_server.answers():
        started_server.stop(signal.SIGKILL)
        started_server.start()
    started_server.write_connection()
    return started_server


@pytest.fixture
def served(server: Server, workdir: Path) -> Stores:
    """Runs go to the server, studies to a file."""
    return Stores(workdir / ".bdqm", f"sqlite:///{workdir}/optuna.db", None, server.file)


@pytest.fixture(params=["embedded", pytest.param("served", marks=pytest.mark.endurance)])
def both(request: pytest.FixtureRequest) -> Stores:
    """MLflow's own default store, and its server with passwords."""
    name: str = {"embedded": "stores", "served": "served"}[request.param]
    stores: Stores = request.getfixturevalue(name)
    return stores


@pytest.fixture
def mariadb_place(mariadb: MariaDb, workdir: Path) -> Place:
    """A database of the servers, which the connection file names."""
    place = Place(Stores(workdir, connection_file=workdir / "connection.json"), mariadb, f"s{secrets.token_hex(4)}")
    mariadb.execute(f"CREATE DATABASE {place.schema}")
    place.announce()
    return place


@pytest.fixture
def postgresql_place(postgresql: PostgreSql, workdir: Path) -> Place:
    """A database of a PostgreSQL server, which the environment names."""
    name = f"s{secrets.token_hex(4)}"
    postgresql.execute(f"CREATE DATABASE {name}")
    return Place(Stores(workdir, storage=postgresql.url(name)), schema=name)


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def place(request: pytest.FixtureRequest, workdir: Path) -> Place:
    """One of each kind of database."""
    if request.param == "sqlite":
        return Place(Stores(workdir / ".bdqm"))
    place: Place = request.getfixturevalue(f"{request.param}_place")
    return place


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`interrupted(epoch)`: the worker is told to end once, after a trial's epoch."""

    def arrange(epoch: int) -> None:
        from bdqm_tune.tracking.trial_run import TrialRun

        check, told = TrialRun.log_metrics, [False]

        def log(self: Any, metrics: dict[str, float], step: int) -> None:
            check(self, metrics, step)
            if step == epoch and not told[0]:
                told[0] = True
                raise KeyboardInterrupt

        monkeypatch.setattr(TrialRun, "log_metrics", log)

    return arrange
