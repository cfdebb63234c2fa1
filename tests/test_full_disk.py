"""A disk that is full, as a small file system of its own: an error that says so, and nothing half there is read."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from bdqm_tune.config import Config
from bdqm_tune.descriptors import GMP, stored_derivatives, stored_features
from bdqm_tune.errors import BdqmError
from bdqm_tune.experiment.journal import Journal, read_journal
from bdqm_tune.experiment.models import load_model
from bdqm_tune.experiment.study import RUN_ID, load_study
from bdqm_tune.experiment.tune import tune
from bdqm_tune.learning.checkpoint import read_checkpoint, write_checkpoint
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures import Structures
from tests.experiment.conftest import configure, files, stores
from tests.experiment.test_journal import ended
from tests.learning.test_checkpoint import KEY, made_up, same
from tests.whole import assert_once

__all__ = ["configure", "files", "stores"]

SIZE = 512 * 1024
EPOCHS = 9


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", folder], capture_output=True, text=True
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
        pytest.raises(BdqmError, match=rf"^{folder}/\w+\.\w+: cannot be written \(No space left on device\)$"),
    ):
        store(structures(), descriptor, folder)
    assert list(folder.iterdir()) == []


def test_a_journal(disk: Path) -> None:
    journal = Journal(disk)
    journal.add(ended(0))
    large = ended(1)
    large.files["model/potential.safetensors"] = "A" * 20_000
    with filled(disk), pytest.raises(OSError, match="No space left on device"):
        journal.add(large)
    journal.add(ended(2))
    assert journal.close() == 2
    content = read_journal(journal.path.read_bytes())
    assert (content.trials, content.damaged) == ([ended(0), ended(2)], [])


@pytest.mark.parametrize("where", ["written", "stored"])
def test_artifacts(
    disk: Path, stores: Stores, configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """In the folder in which they are written, and in MLflow's: the trial waits, and is whole when there is room."""
    search = {"num_layers": 3, "num_nodes": 60}  # 30 kB
    options = {"name": "small", "n_trials": 1, "pruner": "none"}
    config = configure(study=options, training={"epochs": EPOCHS, "early_stopping": None}, search=search)
    dataset, cause = prepare(config, stores.home), "No space left on device"
    message = rf"^artifacts cannot be written to {disk} \(TMPDIR names another folder\): {cause}$"
    if where == "written":
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
    else:
        message = rf"^the MLflow tracking store .* failed: .*{cause}"
        Path("mlruns").symlink_to(disk)
    with filled(disk), pytest.raises(BdqmError, match=message):
        tune(dataset, config, stores)
    tune(dataset, config.updated({"study": {"n_trials": 1}}), stores)
    assert_once(stores, "small", 2, EPOCHS)
    for trial in load_study(stores, "small").trials:
        (energy,) = load_model(trial.user_attrs[RUN_ID], stores).predict([bulk("Cu", cubic=True)]).energies
        assert np.isfinite(energy)
