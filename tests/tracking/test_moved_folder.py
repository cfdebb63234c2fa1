"""A project's folder that is moved: the artifacts of its runs are found in it."""

from pathlib import Path

import pytest

from bdqm_tune.services.connection import Stores
from bdqm_tune.services.database_urls import sqlite_url
from bdqm_tune.tracking.client import tracking_client


def _names(folder: Path, run_id: str) -> list[str]:
    client = tracking_client(Stores(folder, tracking=sqlite_url(folder / "mlflow.db")))
    return [file.path for file in client.list_artifacts(run_id)]


@pytest.fixture
def moved(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, str]:
    """Where a folder was, where it is, and a run with an artifact in it."""
    old, new = workdir / "old", workdir / "new? name"
    old.mkdir()
    monkeypatch.chdir(old)
    client = tracking_client(Stores(old, tracking=sqlite_url(old / "mlflow.db")))
    run_id = client.create_run(client.create_experiment("e")).info.run_id
    client.log_text(run_id, "text", "file.txt")
    monkeypatch.chdir(workdir)
    old.rename(new)
    monkeypatch.chdir(new)
    return old, new, run_id


def test_artifacts_of_a_moved_folder_are_found_and_new_ones_lie_there(
    moved: tuple[Path, Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, run_id = moved
    assert _names(new, run_id) == ["file.txt"]
    assert capsys.readouterr().err == (
        f"bdqm-tune: {old}/mlruns was moved; mlflow.db names the artifacts in {new}/mlruns from now on\n"
    )
    client = tracking_client(Stores(new, tracking=sqlite_url(new / "mlflow.db")))
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None
    client.log_text(client.create_run(experiment.experiment_id).info.run_id, "text", "second.txt")
    assert sorted(path.name for path in (new / "mlruns").rglob("*.txt")) == ["file.txt", "second.txt"]
    assert not old.exists()
    assert capsys.readouterr().err == ""


def test_artifacts_that_are_where_they_were_are_left_alone(
    moved: tuple[Path, Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, run_id = moved
    old.mkdir()
    (new / "mlruns").rename(old / "mlruns")
    assert _names(new, run_id) == ["file.txt"]
    assert capsys.readouterr().err == ""
