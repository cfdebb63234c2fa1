"""What all tests share: an environment of their own, and what they may need from the machine."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TypeVar
from unittest import mock

import pytest
from hypothesis.internal.conjecture import providers

from bdqm_tune.backends.amptorch_adapters import import_amptorch
from bdqm_tune.backends.mace_import import import_mace
from bdqm_tune.cli.main import main
from bdqm_tune.descriptors.compute_once import make_once
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.mlflow_server.programs import find_programs
from tests.commands import Call
from tests.mariadb import MariaDb
from tests.mlflow_tables import copied_tables
from tests.postgresql import PostgreSql
from tests.postgresql import find_programs as find_postgresql
from tests.servers import Servers
from tests.slurm import PROGRAMS, Slurm, is_installed

pytest_plugins = ["tests.small_study"]

# The objects of torch, of MLflow and of some thousand tests stay: to look through them for garbage took a tenth of
# the suite's time, and 7 of the 17 s of its collection.
gc.set_threshold(20_000, 20, 100)


def pytest_collection_finish() -> None:
    gc.freeze()


FOLDERS = count()  # in this process

# Hypothesis also draws what constants the imported code has: which tests ran before, and a change anywhere, would
# change the examples of all others.
providers._get_local_constants = lambda: providers._local_constants

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _has_database() -> bool:
    try:
        find_programs().find("mariadb-dump", "mysqldump")
    except BdqmError:
        return False
    return True


def _has_amptorch() -> bool:
    try:
        import_amptorch()
    except BadInput:
        return False
    return True


def _has_mace() -> bool:
    try:
        import_mace()
    except BadInput:
        return False
    return True


def find_faketime() -> list[Path]:
    """The library of libfaketime for programs with threads, where it is installed."""
    return list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "amptorch": (_has_amptorch, "amptorch cannot be imported: README.md says how to install it"),
    "chromium": (lambda: shutil.which("chromium") is not None, "no browser: chromium is not on the PATH"),
    "faketime": (lambda: bool(find_faketime()), "no libfaketime: Debian's libfaketime"),
    "mace": (_has_mace, "mace-torch cannot be imported: `make mace` installs it"),
    "mariadb": (_has_database, "no database server with its clients: Debian's mariadb-server-core and mariadb-client"),
    "postgresql": (
        lambda: find_postgresql() is not None and find_spec("psycopg2") is not None,
        "no PostgreSQL, or no driver for it: Debian's postgresql, and psycopg2-binary of the index",
    ),
    "slurm": (
        is_installed,
        f"no Slurm: {', '.join(PROGRAMS)} are not all on the PATH; `make system-slurm` installs it",
    ),
    "shared": ((SHARED / "data").is_dir, f"no reference data: {SHARED} is not there"),
}
REQUIRED = {name for name in os.environ.get("BDQM_REQUIRE", "").split(",") if name}


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for jobs in the background; tests send it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    unknown = REQUIRED - NEEDS.keys()
    if unknown:
        raise pytest.UsageError(f"BDQM_REQUIRE: unknown {', '.join(sorted(unknown))}; there are: {', '.join(NEEDS)}")
    for name in list(os.environ):
        if name.startswith(("BDQM_", "MLFLOW_")) and name != "BDQM_MACE":  # where MACE's commands are
            del os.environ[name]
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # Where no server has ever been, whatever runs on this machine.
    os.environ["BDQM_SERVICES"] = str(Path(tempfile.gettempdir()) / "bdqm-tune-tests-no-servers")


# Tests of what takes long to start or to make share a process, which does so once.
GROUPS = ("servers", "up_servers", "started_server", "made")
# What tests wait for more than they compute; others use the processors meanwhile.
WAITED_FOR = ("slurm", "new_servers", "own_servers", *GROUPS)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For pytest-xdist: say which tests go to one process, and mix those that wait with those that compute."""
    if not hasattr(config, "workerinput"):
        return
    waiting, others = [], []
    for item in items:
        names = set(item.fixturenames)  # type: ignore[attr-defined]
        if getattr(item, "callspec", None) is not None and item.callspec.params.get("both") == "served":  # type: ignore[attr-defined]
            names.add("started_server")
        group = next((name for name in GROUPS if name in names), None)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
        is_long = _is_long(item)
        (waiting if is_long or names.intersection(WAITED_FOR) else others).append(item)
    ranked = sorted(waiting, key=lambda item: (_group(item) != GROUPS[0], _group(item) is None, not _is_long(item)))
    units = {unit: number for number, unit in enumerate(dict.fromkeys(_group(item) or item.nodeid for item in ranked))}
    # The first makes the servers that all others copy, and would wait for; the last begin when a quarter of the others
    # is left, so that no process ends long after all others.
    first, last = 0.15, 0.75
    places = [
        (number and first + (last - first) * number / len(units), 0, item)
        for item in ranked
        for number in [units[_group(item) or item.nodeid]]
    ]
    places += [(number / len(others), 1, item) for number, item in enumerate(others)]
    items[:] = [item for *_, item in sorted(places, key=lambda place: place[:2])]


def _is_long(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) is not None for name in ("endurance", "soak"))


def _group(item: pytest.Item) -> str | None:
    mark = item.get_closest_marker("xdist_group")
    return None if mark is None else str(mark.args[0])


@pytest.fixture(autouse=True)
def _environment_restored() -> Iterator[None]:
    """MLflow sets variables as it runs; none reaches the next test."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_core() -> None:
    """As a worker has it for each trial; two that wait for each other are slower by far on networks so small."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def require() -> Callable[[str], None]:
    """`require(name)` skips a test where `name` is not to be had, and fails it where BDQM_REQUIRE lists the name."""

    def check(name: str) -> None:
        available, reason = NEEDS[name]
        if available():
            return
        if name in REQUIRED:
            pytest.fail(f"{reason} (and BDQM_REQUIRE={','.join(sorted(REQUIRED))})", pytrace=False)
        pytest.skip(reason)

    return check


@pytest.fixture(scope="session")
def shared(require: Callable[[str], None]) -> Path:
    """The folder with reference data, beside the repository."""
    require("shared")
    return SHARED


@pytest.fixture(scope="session")
def _tables_of_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with copied_tables(tmp_path_factory.mktemp("mlflow") / "template.db"):
        yield


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """pytest's folder, and in it one whose path no other test has had.

    pytest removes the folder of a test that passed, and the next of the same name gets it again, that is the next case
    of a parametrised test. MLflow keeps its connections by path: to the database that was removed.
    """
    folder = tmp_path / str(next(FOLDERS))
    folder.mkdir()
    return folder


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _tables_of_mlflow: None) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def new_servers(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers that have never run, in a folder of the test's own; stopped after it."""
    require("mariadb")
    servers = Servers(tmp_path_factory.mktemp("servers") / "a folder")
    yield servers
    servers.services("down", status=None)
    shutil.rmtree(servers.places.data, ignore_errors=True)  # 100 MB


@pytest.fixture(scope="session")
def servers_that_ran(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Servers:
    """Servers that were up once and are down: to be copied."""
    require("mariadb")

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "servers-that-ran"

    def make() -> None:
        servers = Servers(folder.with_suffix(".new.partial"))
        try:
            servers.services("up")
        finally:
            servers.services("down")
        servers.folder.rename(folder)

    make_once(folder, "servers", make)
    return Servers(folder)


@pytest.fixture
def own_servers(servers_that_ran: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers of a test's own, down, whose tables are made; stopped after it."""
    servers = servers_that_ran.copy(tmp_path_factory.mktemp("servers") / "a folder")
    yield servers
    servers.services("down", status=None)
    shutil.rmtree(servers.places.data, ignore_errors=True)  # 100 MB


@pytest.fixture(scope="session")
def started_servers(servers_that_ran: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = servers_that_ran.copy(tmp_path_factory.mktemp("servers") / "a folder")
    yield servers
    servers.services("down")


@pytest.fixture
def up_servers(started_servers: Servers) -> Servers:
    """Servers that run, for tests that end or move them; each test has them up, whatever the one before it did."""
    started_servers.services("up")
    return started_servers


@pytest.fixture(scope="session")
def servers(servers_that_ran: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers that run, for tests that do not harm them."""
    servers = servers_that_ran.copy(tmp_path_factory.mktemp("servers") / "folder")
    servers.services("up")
    yield servers
    servers.services("down")


Database = TypeVar("Database", MariaDb, PostgreSql)


@contextmanager
def running(kind: type[Database]) -> Iterator[Database]:
    """A database server in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="bdqm", dir="/tmp") as folder:  # a socket's path must be short
        server = kind(Path(folder))
        server.start()
        yield server
        server.kill()


@pytest.fixture(scope="session")
def started_mariadb(require: Callable[[str], None]) -> Iterator[MariaDb]:
    require("mariadb")
    with running(MariaDb) as server:
        yield server


@pytest.fixture
def mariadb(started_mariadb: MariaDb) -> MariaDb:
    """A database server that a user has, one for all tests: names of schemas must differ.

    A test may kill it: the next one starts it again.
    """
    if not started_mariadb.runs:
        started_mariadb.start()
    return started_mariadb


@pytest.fixture(scope="session")
def postgresql(require: Callable[[str], None]) -> Iterator[PostgreSql]:
    """A PostgreSQL server that a user has, one for all tests: names of databases must differ."""
    require("postgresql")
    with running(PostgreSql) as server:
        yield server


@pytest.fixture(scope="session")
def slurm(require: Callable[[str], None]) -> Iterator[Slurm]:
    """A Slurm of one node, which no other has to do with."""
    require("slurm")
    with tempfile.TemporaryDirectory(prefix="bdqm", dir="/tmp") as folder:  # where munged's own user gets to
        cluster = Slurm(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workdir: Path) -> Call:
    """`call("tune", "--train", ...)` in an empty folder: exit status, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bdqm-tune", *arguments])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
        with pytest.raises(SystemExit) as exit_:
            main()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return run
