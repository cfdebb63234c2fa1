"""A disk that is full, as a small file system of its own: an error that says so, and nothing half there is read."""

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from optuna.trial import TrialState

from bdqm_tune.config.config import Config
from bdqm_tune.descriptors import GMP, stored_derivatives, stored_features
from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.checkpoint import read_checkpoint, write_checkpoint
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.store import load_model
from bdqm_tune.services.connection import Stores, find_stores
from bdqm_tune.structures import Structures
from bdqm_tune.study.study import RUN_ID, load_study
from bdqm_tune.tracking.client import is_passing, tracking_client
from bdqm_tune.tracking.embedded import make_tracking_file
from bdqm_tune.tuning.tune import tune
from tests.forked import Forked
from tests.learning.test_checkpoint import KEY, made_up, same
from tests.whole import assert_once

SIZE, STORES_SIZE = 512 * 1024, 8 * 1024**2
EPOCHS = 9


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of half a megabyte, unless the test says another size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', SIZE)}", "none", folder],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"only who may mount has a small disk: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Take what room there is on the disk, but for some kilobytes."""
    free = shutil.disk_usage(disk).free
    (disk / "other").write_bytes(bytes(max(0, free - 8192)))
    try:
        yield
    finally:
        (disk / "other").unlink()


def structures() -> Structures:
    atoms = [bulk("Cu", cubic=True) for _ in range(40)]
    for i, image in enumerate(atoms):
        image.positions += np.random.default_rng(i).normal(scale=0.05, size=(4, 3))
    return Structures("here", atoms, np.zeros(40), None, np.arange(40))


def test_a_checkpoint(disk: Path) -> None:
    path = disk / "trial-000.checkpoint"
    write_checkpoint(path, made_up(), KEY)
    with filled(disk), pytest.raises(OSError, match="No space left on device"):
        write_checkpoint(path, made_up(3, size=10_000), KEY)
    assert same(read_checkpoint(path, KEY), made_up())
    assert list(disk.iterdir()) == [path]


@pytest.mark.parametrize("store", [stored_features, stored_derivatives])
def test_features_and_derivatives(disk: Path, store: Callable[..., object]) -> None:
    descriptor, folder = GMP(list(range(4)), [0.25, 0.5, 1.0, 2.0], 5.0), disk / "features"
    with (
        filled(disk),
        pytest.raises(
            BdqmError, match=rf"^{folder}/\w+\.\w+: cannot be written \(No space left on device\); BDQM_HOME "
        ),
    ):
        store(structures(), descriptor, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("where", ["written", "stored"])
def test_artifacts(
    disk: Path, stores: Stores, configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """In the folder in which they are written, and in MLflow's: the trial waits, and is whole when there is room."""
    search = {"num_layers": 3, "num_nodes": 60}  # 30 kB
    options = {"name": "small", "n_trials": 1, "pruner": "none"}
    training, workers = {"epochs": EPOCHS, "early_stopping": None}, {"cohort": 1, "patience": 0.05}
    config = configure(study=options, training=training, search=search, **{"": workers})
    dataset, cause = prepare(config, stores.home), "No space left on device"
    message = rf"^artifacts cannot be written to {disk} \(TMPDIR names another folder\): {cause}$"
    if where == "written":
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
    else:
        message = "^the MLflow tracking store .* failed: the disk is full$"
        Path("mlruns").symlink_to(disk)
    with filled(disk), pytest.raises(BdqmError, match=message):
        tune(dataset, config, stores)
    tune(dataset, config.updated({"study": {"n_trials": 1}}), stores)
    assert_once(stores, "small", 2, EPOCHS)
    for trial in load_study(stores, "small").trials:
        (energy,) = load_model(trial.user_attrs[RUN_ID], stores).predict([bulk("Cu", cubic=True)]).energies
        assert np.isfinite(energy)


TUNE = "tune --train train.traj --config small.yaml --study small --n-trials"
# A worker that trains slowly, and says when its second trial does: both stores have something to write then.
WORKER = """
import sys, time
from bdqm_tune.__main__ import main
from bdqm_tune.learning.fit import Fit
epoch, fits = Fit._run, []

def slowly(self, number):
    time.sleep(0.1)
    record = epoch(self, number)
    if id(self) not in fits:
        fits.append(id(self))
        if len(fits) == 2:
            print("the second trial trains", file=sys.stderr, flush=True)
    return record

Fit._run = slowly
main()
"""
SMALL = """
descriptor: {orders: [0, 1], sigmas: 3, cutoff: 4.0}
search: {num_layers: 1, num_nodes: 4, batch_size: 8}
training: {epochs: 9, early_stopping: null}
study: {pruner: none}
cohort: 1
"""


@pytest.fixture
def here(disk: Path, files: dict[str, str], workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small disk is the working folder, with what `TUNE` needs."""
    monkeypatch.chdir(disk)
    shutil.copy(files["train"], "train.traj")
    Path("small.yaml").write_text(SMALL)
    return disk


@contextmanager
def filled_during(worker: Forked, disk: Path) -> Iterator[list[str]]:
    """Fill the disk while the worker's second trial trains; its lines so far, both stores' complaints among them."""
    lines = [next(worker.stderr)]
    while lines[-1] != "the second trial trains\n":
        lines.append(next(worker.stderr))
    del lines[-1]
    with filled(disk):
        while sum("the disk is full" in line for line in lines) < 2:
            lines.append(next(worker.stderr))
        yield lines


@pytest.mark.parametrize("disk", [STORES_SIZE], indirect=True)
def test_embedded_stores_wait_for_room(here: Path) -> None:
    worker = Forked(["-c", WORKER, *TUNE.split(), "3"])
    with filled_during(worker, here) as lines:
        time.sleep(2)
    lines += worker.communicate(120)[1].splitlines()
    assert worker.returncode == 0, lines
    assert sum(line.startswith("trial ") and " complete: " in line for line in lines) == 3
    said = [line.strip() for line in lines if " complete: " not in line and "Features" not in line]
    assert sum("the disk is full; " in line and f"{here}/mlflow.db" in line for line in said) == 1
    assert sum("the disk is full; " in line and f"{here}/.bdqm/optuna.db" in line for line in said) == 1
    assert sum("answers again" in line for line in said) == 2
    assert len(said) <= 7, said
    assert_once(find_stores(), "small", 3, EPOCHS)


@pytest.mark.endurance
@pytest.mark.parametrize("disk", [STORES_SIZE], indirect=True)
def test_a_worker_that_waits_for_room_in_vain_ends_with_few_lines(here: Path) -> None:
    worker = Forked(["-c", WORKER, *TUNE.split(), "3", "--patience", "0.05"])
    with filled_during(worker, here) as lines:
        lines += worker.communicate(120)[1].splitlines()
    assert worker.returncode == 1, lines
    assert re.search(rf"^bdqm-tune: .* sqlite:///{here}/\S+\.db failed: the disk is full$", lines[-1])
    assert len(lines) <= 12, lines
    assert not any("Traceback" in line for line in lines)
    again = Forked(["-m", "bdqm_tune", *TUNE.split(), "1"])
    again.communicate(120)
    assert again.returncode == 0
    assert {trial.state for trial in load_study(find_stores(), "small").trials} == {TrialState.COMPLETE}


def test_a_trial_for_whose_features_there_is_no_room_waits(
    disk: Path, workdir: Path, configure: Callable[..., Config]
) -> None:
    stores = Stores(disk, f"sqlite:///{workdir}/optuna.db", f"sqlite:///{workdir}/mlflow.db")
    config = configure(search={"descriptor.cutoff": {"float": [3.0, 5.0]}, "num_layers": 1, "num_nodes": 4})
    dataset = prepare(config, stores.home)
    with filled(disk), pytest.raises(BdqmError, match=r"^trial \d: .*No space left on device"):
        tune(dataset, config, stores)
    study = load_study(stores, "small")
    assert TrialState.FAIL not in {trial.state for trial in study.trials}
    waiting = next(trial for trial in study.trials if trial.state == TrialState.WAITING)
    run = tracking_client(stores).get_run(waiting.user_attrs[RUN_ID])
    assert (run.info.status, run.data.tags["trial_state"]) == ("SCHEDULED", "waiting")


def test_mlflows_embedded_store_is_made_whole_or_not_at_all(disk: Path, workdir: Path) -> None:
    """Its tables need more than this disk has; what is there of them would be of no use to any later command."""
    with pytest.raises(BdqmError, match=f"{disk}/mlflow.db: the disk is full$") as raised:
        tracking_client(Stores(workdir, None, f"sqlite:///{disk}/mlflow.db"))
    assert is_passing(raised.value)
    assert list(disk.iterdir()) == []


def test_mlflows_embedded_store_may_be_made_by_several_at_once(workdir: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for made in [pool.submit(make_tracking_file, "sqlite:///some/folder/mlflow.db") for _ in range(4)]:
            made.result()
    assert [path.name for path in Path("some/folder").iterdir()] == ["mlflow.db"]
    client = tracking_client(Stores(workdir, None, "sqlite:///some/folder/mlflow.db"))
    assert client.get_experiment_by_name("Default") is not None
