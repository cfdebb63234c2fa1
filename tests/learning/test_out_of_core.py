"""A split that does not fit the device is read batch by batch: the same numbers, in little memory."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms

from bdqm_tune.backends import make_backend
from bdqm_tune.config.config import Config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batches import SplitTensors, split_tensors
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.learning.fit import Fit
from bdqm_tune.learning.memory_budget import MemoryBudget

Alloys = Callable[..., list[Atoms]]
ConfigFor = Callable[..., Config]
PER_ELEMENT = {"scaling": "standardise", "scaling_per_element": True}


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features come from the disk in pieces of a few structures."""
    monkeypatch.setattr("bdqm_tune.descriptors.store.PIECE_BYTES", 2000)


def prepared(alloys: Alloys, config_for: ConfigFor, folder: Path, **groups: Any) -> Dataset:
    ase.io.write(folder / "train.traj", alloys())
    groups["training"] = {"epochs": 4, **groups.get("training", {})}
    return prepare(config_for(folder / "train.traj", **groups, **{"": {"device": "cpu"}}), folder / "home")


def trained(
    data: Dataset, options: dict[str, Any], memory: float
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The records, without the clock's part, and the weights of the best epoch."""
    training, room = data.config.training, MemoryBudget.on(torch.device("cpu"), memory)
    dtype = {"float32": torch.float32, "float64": torch.float64}[training.precision]
    train, validation = (
        split_tensors(data, split, torch.device("cpu"), dtype, training.forces, room)
        for split in (data.train, data.validation)
    )
    hyperparameters = Hyperparameters(num_nodes=6, num_layers=2, lr=0.01, batch_size=5, **options)
    # Compiled epochs, which are for what is in memory only, round in another way.
    fit = Fit(hyperparameters, training, train, validation, data.scale, seed=3, compiled=False)
    records = [record.metrics() for record in fit]
    return [{k: v for k, v in r.items() if k != "epoch_seconds"} for r in records], fit.best_network.state_dict()


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    ("options", "descriptor"),
    [({}, {}), ({"batchnorm": True, "dropout": True}, {}), ({"network": "per_element"}, PER_ELEMENT)],
)
@pytest.mark.parametrize("forces", [False, True])
@pytest.mark.usefixtures("small_pieces")
def test_training_from_the_disk_gives_the_same_numbers(
    alloys: Alloys,
    config_for: ConfigFor,
    tmp_path: Path,
    forces: bool,
    options: dict[str, Any],
    descriptor: dict[str, Any],
    precision: str,
) -> None:
    training = {"forces": forces, "precision": precision}
    data = prepared(alloys, config_for, tmp_path, training=training, descriptor=descriptor)
    records, weights = trained(data, options, memory=4.0)
    from_disk, weights_from_disk = trained(data, options, memory=0.1)
    assert len(records) == 4
    assert from_disk == records
    assert all(torch.equal(weights_from_disk[name], value) for name, value in weights.items())


@pytest.mark.parametrize("forces", [False, True])
def test_the_backend_keeps_to_the_memory_it_is_given(
    alloys: Alloys, config_for: ConfigFor, tmp_path: Path, forces: bool
) -> None:
    data, found = prepared(alloys, config_for, tmp_path, training={"forces": forces, "precision": "float64"}), []
    for memory in (4.0, 0.1):
        backend = make_backend(data.config.updated({"": {"memory": memory}}), data)
        records = [r.metrics() for r in backend.start(Hyperparameters(num_nodes=6, lr=0.01, batch_size=5), seed=3)]
        found.append([{k: v for k, v in record.items() if k != "epoch_seconds"} for record in records])
    for in_memory, from_disk in zip(*found, strict=True):
        assert from_disk == pytest.approx(in_memory, rel=1e-6)


@pytest.mark.parametrize("forces", [False, True])
@pytest.mark.usefixtures("small_pieces")
def test_what_fits_the_device_is_kept_there(
    alloys: Alloys, config_for: ConfigFor, tmp_path: Path, forces: bool
) -> None:
    data = prepared(alloys, config_for, tmp_path, training={"forces": forces})
    rows, columns = data.train.features.shape
    n_bytes = 4 * rows * columns

    def kept(room: MemoryBudget | None) -> SplitTensors:
        return split_tensors(data, data.train, torch.device("cpu"), torch.float32, forces, room)

    assert kept(None).loaded
    assert kept(MemoryBudget.on(torch.device("cpu"), 4.0)).loaded
    features = kept(MemoryBudget(n_bytes)).features
    assert features is not None
    expected = data.scaler(np.asarray(data.train.features), data.train.numbers)
    assert torch.equal(features, torch.as_tensor(expected, dtype=torch.float32))
    assert kept(MemoryBudget(n_bytes - 1)).features is None
    assert not kept(MemoryBudget(n_bytes - 1)).loaded


def test_room_is_given_to_who_comes_first() -> None:
    room = MemoryBudget.on(torch.device("cpu"), memory=3.5)
    assert [room.take(n * 2**30) for n in (1.5, 0.75, 0.25, 0.25, 0.25)] == [True, False, True, True, False]
    assert not MemoryBudget.on(torch.device("cpu"), memory=0.5).take(1)


@pytest.mark.usefixtures("small_pieces")
def test_scalers_do_not_depend_on_the_pieces(
    alloys: Alloys, config_for: ConfigFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pieces = prepared(alloys, config_for, tmp_path, descriptor={"scaling": "log"})
    assert len(list(in_pieces.train.pieces())) > 3
    monkeypatch.undo()
    whole = prepare(in_pieces.config, tmp_path / "home")
    assert len(list(whole.train.pieces())) == 1
    for name in ("offset", "divisor", "floor"):
        np.testing.assert_allclose(getattr(in_pieces.scaler, name), getattr(whole.scaler, name), rtol=1e-12)


@pytest.mark.usefixtures("small_pieces")
def test_a_training_that_is_left_leaves_no_thread(alloys: Alloys, config_for: ConfigFor, tmp_path: Path) -> None:
    data = prepared(alloys, config_for, tmp_path)
    split = split_tensors(data, data.train, torch.device("cpu"), torch.float32, room=MemoryBudget(0))
    before = threading.active_count()
    batches = split.in_batches(torch.arange(len(split)), 2)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


MEASURED = """
import resource, sys
from pathlib import Path

from bdqm_tune.backends import make_backend
from bdqm_tune.config.config import load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.dataset import prepare

small, large = (load_config(None, {
    "data": {"train": str(Path(sys.argv[1]) / name)},
    "descriptor": {
        "name": "symmetry_functions", "cutoff": 2.5, "g4": None, "scaling": "standardise",
        "g2": {"etas": [0.1 * i for i in range(100)], "rs": [0.01 * i for i in range(25)]},
    },
    "training": {"epochs": 1, "forces": False},
    "": {"device": "cpu", "memory": 1.6},  # that is 0.1 GiB for features
}) for name in ("small.xyz", "large.xyz"))

def peak(config):
    data = prepare(config, Path(sys.argv[1]) / "home")
    list(make_backend(config, data).start(Hyperparameters(num_nodes=4, num_layers=1, batch_size=16), seed=0))
    return data.train.features.shape, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

peak(small)  # what the libraries take
_, before = peak(small)
(rows, columns), after = peak(large)
print(8 * rows * columns, after - before)
"""


@pytest.mark.endurance
def test_memory_does_not_grow_with_the_features(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, n in (("small.xyz", 40), ("large.xyz", 4000)):
        images = []
        for i in range(n):
            atoms = Atoms("H8", positions=2.0 * np.indices((2, 2, 2)).reshape(3, 8).T)
            atoms.positions += random.normal(scale=0.1, size=(8, 3))
            atoms.info["energy"] = float(i)
            images.append(atoms)
        ase.io.write(tmp_path / name, images, format="extxyz")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    n_bytes, grown = map(int, done.stdout.split())
    assert n_bytes > 500e6
    assert grown < 0.3 * n_bytes  # in float32 they would take 0.5
