"""`services backup` while workers write, and `restore` into an empty place: studies, runs, models and page are back."""

import gzip
import io
import os
import signal
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from bdqm_tune.errors import BadInput
from bdqm_tune.mlflow_server import backup
from bdqm_tune.mlflow_server.paths import ServerPaths
from bdqm_tune.mlflow_server.processes import leftovers
from bdqm_tune.mlflow_server.restore import restore
from bdqm_tune.models.store import load_potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.study import load_study
from bdqm_tune.tracking.client import tracking_client
from tests.forked import Forked
from tests.servers import Servers
from tests.waiting import eventually


def stores_of(servers: Servers, folder: Path) -> Stores:
    return Stores(folder / ".bdqm", connection_file=servers.places.connection)


@pytest.fixture
def worker(up_servers: Servers, workdir: Path, configure: Callable[..., Any]) -> Forked:
    """Tunes through the servers for longer than a backup takes."""
    config = configure(study={"name": "saved", "n_trials": 300, "pruner": "none"}, training={"epochs": 10})
    (workdir / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return Forked(["-m", "bdqm_tune", "tune", "--config", "config.yaml"], up_servers.environ)


@pytest.mark.endurance
def test_a_backup_is_of_one_moment_and_comes_back(
    worker: Forked, up_servers: Servers, workdir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for line in worker.stderr:
        if line.startswith("trial 010"):
            break
    file = workdir / "backup.tar.gz"
    done = up_servers.services("backup", "--out", str(file))
    assert worker.poll() is None, "the worker was at work all the time"
    assert str(file) in done.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    assert "exists" in up_servers.services("backup", "--out", str(file), status=2).stderr
    worker.terminate()
    worker.communicate(timeout=60)
    with tarfile.open(file) as archived:
        assert {"schemas.sql", "backup.json"} < set(archived.getnames())
    assert not [secret for secret in up_servers.secrets() if secret.encode() in gzip.decompress(file.read_bytes())]

    other = Servers(tmp_path_factory.mktemp("restored") / "place")
    assert "bdqm-tune services up" in other.services("restore", str(file)).stdout
    other.services("up")
    try:
        stores = stores_of(other, workdir)
        trials = load_study(stores, "saved").get_trials()
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        assert len(complete) >= 10
        client: MlflowClient = tracking_client(stores)
        runs = {run.info.run_id: run for run in client.search_runs(["1"], max_results=1000)}
        for trial in complete:
            run = runs[trial.user_attrs["mlflow_run_id"]]
            assert len(client.get_metric_history(run.info.run_id, "val_energy_mae")) > 0
        finished = [run for run in runs.values() if run.info.status == "FINISHED" and "trial_number" in run.data.tags]
        assert len(finished) >= 10
        for run in finished[:: max(1, len(finished) // 10)]:
            load_potential(f"runs:/{run.info.run_id}/model", stores)
        assert other.secrets() != up_servers.secrets(), "a restored place has passwords of its own"
    finally:
        other.services("down")

    assert "--replace puts it aside" in other.services("restore", str(file), status=2).stderr
    killed = Forked(["-m", "bdqm_tune", "services", "restore", str(file), "--replace"], other.environ)
    eventually(lambda: bool(leftovers(other.places.restoring)), what="no database to load the backup into")
    killed.send_signal(signal.SIGSTOP)  # so that it is at work however long the others take
    for command in (["up"], ["backup"], ["restore", str(file), "--replace"]):
        assert f"is at work (process {killed.pid} on" in other.services(*command, status=2).stderr
    assert "restore       " in other.services("status", status=1).stdout
    killed.kill()
    again = other.services("restore", str(file), "--replace")
    assert "was cut off before it changed anything; it is undone" in again.stderr
    assert leftovers(other.places.restoring) == []
    (aside,) = other.folder.glob("replaced-*")
    assert {path.name for path in aside.iterdir()} == {"data", "artifacts"}
    assert "first: bdqm-tune services down" in up_servers.services("restore", str(file), "--replace", status=2).stderr


def archive(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


SUMMARY = b'{"format": 1, "made": "now", "versions": {}, "sha256": {"schemas.sql": "00"}, "artifacts": 0, "bytes": 1}'


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "No such file"),
        ({}, "backup.json"),
        ({"backup.json": b"{}"}, "'format'"),
        ({"backup.json": SUMMARY.replace(b"1,", b"2,", 1)}, "its format is not 1; a newer bdqm-tune may read it"),
        ({"backup.json": SUMMARY}, "schemas.sql has changed"),
        ({"backup.json": SUMMARY, "schemas.sql": b"DROP DATABASE mysql"}, "schemas.sql has changed"),
        ({"../../outside": b"x"}, "outside"),
        ({"/tmp/outside": b"x", "backup.json": SUMMARY}, "outside is none of its files"),
        ({"artifacts/../lock": b"x", "backup.json": SUMMARY}, "lock is none of its files"),
    ],
)
def test_what_is_no_whole_backup_is_refused_and_nothing_is_left(
    tmp_path: Path, files: dict[str, bytes] | None, message: str, require: Callable[[str], None]
) -> None:
    require("mariadb")
    path, folder = tmp_path / "file.tar.gz", tmp_path / "inner" / "services"
    if files is not None:
        archive(path, files)
    with pytest.raises(BadInput, match="is no whole backup") as raised:
        restore(ServerPaths(folder), path, False, print)
    assert message in str(raised.value)
    assert not (folder / "restoring").exists()
    assert not (folder / "database" / "data").exists()
    assert not list(tmp_path.rglob("*outside*"))
    assert not Path("/tmp/outside").exists()


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, require: Callable[[str], None]) -> None:
    require("mariadb")
    path = tmp_path / "file.tar.gz"
    archive(path, {"schemas.sql": bytes(range(256)) * 1000, "backup.json": SUMMARY})
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(BadInput, match="is no whole backup"):
            restore(ServerPaths(tmp_path / "services"), path, False, print)


def test_a_backup_needs_servers_that_run_and_a_folder(servers: Servers, tmp_path: Path) -> None:
    missing = servers.services("backup", "--out", str(tmp_path / "no" / "file.tar.gz"), status=2)
    assert "there is no folder" in missing.stderr
    down = Servers(tmp_path / "none").services("backup", status=1)
    assert "`bdqm-tune services up` starts them" in down.stderr
    servers.services("backup", "--out", str(tmp_path / "file.tar.gz"))
    assert [path.name for path in tmp_path.iterdir()] == ["file.tar.gz"], "no half file is left"


def test_what_a_backup_left_that_was_killed_goes_with_the_next(tmp_path: Path) -> None:
    places = ServerPaths(tmp_path / "services")
    places.make()
    ended = subprocess.Popen(["true"])
    ended.wait()
    for process in (ended.pid, os.getpid()):
        (places.folder / f"backup-{process}-x").mkdir()
        (places.folder / f"backup-{process}-x" / "schemas.sql").touch()
        (places.database / f"client-{process}.cnf").touch()
    backup._remove_leftovers(places)
    assert [path.name for path in places.folder.glob("backup-*")] == [f"backup-{os.getpid()}-x"]
    assert [path.name for path in places.database.glob("*.cnf")] == [f"client-{os.getpid()}.cnf"]
    assert places.backups.is_dir()
