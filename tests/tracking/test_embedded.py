"""MLflow's embedded store: made once by several processes, also beside `mlflow` itself, in folders of any name."""

import errno
import fcntl
import os
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from bdqm_tune.errors import BadInput
from bdqm_tune.files import lock_file
from bdqm_tune.services.connection import Stores, find_stores
from bdqm_tune.services.database_urls import sqlite_url
from bdqm_tune.storage.database import open_storage, sqlite_file
from bdqm_tune.tracking import embedded
from bdqm_tune.tracking.client import tracking_client

NAMES = ("a b", "what? v2", "a#b", "50%", "é ü", "a;b&c=d", "a:b@c")


def _open(open_client: Callable[[], MlflowClient], barrier: Barrier, wait: float) -> None:
    barrier.wait(60)
    time.sleep(wait)
    assert [experiment.name for experiment in open_client().search_experiments()] == ["Default"]


def _open_by_all(clients: list[Callable[[], MlflowClient]], wait: float = 0.0) -> list[int | None]:
    """Exit statuses of processes that open a store at the same moment, all but the first `wait` seconds later."""
    fork = get_context("fork")
    barrier = fork.Barrier(len(clients))
    processes = [
        fork.Process(target=_open, args=(client, barrier, wait if number else 0.0))
        for number, client in enumerate(clients)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def test_processes_of_several_studies_make_one_store(tmp_path: Path) -> None:
    uri = sqlite_url(tmp_path / "mlflow.db")
    studies = [Stores(tmp_path / f"home {number % 2}", tracking=uri) for number in range(6)]
    assert _open_by_all([lambda stores=stores: tracking_client(stores) for stores in studies]) == [0] * 6  # type: ignore[misc]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("wait", [0.3, 1.0])
def test_tables_that_mlflow_itself_is_making_are_waited_for(tmp_path: Path, wait: float) -> None:
    uri = sqlite_url(tmp_path / "mlflow.db")
    ours = [lambda: tracking_client(Stores(tmp_path, tracking=uri))] * 3
    assert _open_by_all([lambda: MlflowClient(uri), *ours], wait) == [0] * 4


def test_tables_of_another_revision_are_not_waited_for_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STILL", 0.3)
    (tmp_path / "mlflow.db").touch()
    begin = time.monotonic()
    embedded.make_tracking_file(sqlite_url(tmp_path / "mlflow.db"))
    assert 0.3 <= time.monotonic() - begin < 5


@pytest.mark.usefixtures("_tables_of_mlflow")
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_holds_its_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    stores = find_stores({"BDQM_SERVICES": "/none"})
    storage = open_storage(stores)
    storage.backend.close()
    client = tracking_client(stores)
    run = client.create_run("0")
    (tmp_path / "file").touch()
    client.log_artifact(run.info.run_id, str(tmp_path / "file"))
    assert (folder / ".bdqm" / "optuna.db").exists()
    assert (folder / "mlflow.db").exists()
    assert len(list((folder / "mlruns").rglob("file"))) == 1


def test_a_folder_in_which_mlflow_loses_artifacts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "50%25"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(BadInput, match=r"50%25: MLflow keeps artifacts elsewhere .* rename the folder"):
        tracking_client(find_stores({"BDQM_SERVICES": "/none"}))
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", [*NAMES, "50%25", "x" * 200])
def test_a_url_leads_to_its_file(name: str) -> None:
    import sqlalchemy

    file = Path("/scratch") / name / "optuna.db"
    assert sqlite_file(sqlalchemy.make_url(sqlite_url(file))) == file


def _fails(*_: object) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def test_without_flock_the_locks_of_sqlite_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", _fails)
    with (tmp_path / "lock").open("w") as file:
        lock_file(file.fileno())
        child = os.fork()
        if child == 0:
            try:
                with (tmp_path / "lock").open("w") as other:
                    lock_file(other.fileno(), wait=False)
            except BlockingIOError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_without_any_locks_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, _fails)
    with pytest.raises(BadInput, match=r"no locks \(Function not implemented\); set BDQM_HOME .*services up"):
        open_storage(Stores(tmp_path))
    with pytest.raises(BadInput, match=r"no locks .*; set MLFLOW_TRACKING_URI .*services up"):
        tracking_client(Stores(tmp_path, tracking=sqlite_url(tmp_path / "mlflow.db")))


def test_a_folder_that_cannot_be_written_to_is_refused_with_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path))

    monkeypatch.setattr(embedded, "locked", refused)
    with pytest.raises(BadInput, match=r"Permission denied: .*; MLFLOW_TRACKING_URI names another place$"):
        tracking_client(Stores(tmp_path, tracking=sqlite_url(tmp_path / "mlflow.db")))
