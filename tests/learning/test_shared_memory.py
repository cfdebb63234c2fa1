"""What trains on the CPU lies in a file that all processes map: the same numbers, in memory once."""

import os
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.backends import make_backend
from bdqm_tune.config.config import Config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors.memmap_rows import RowFile
from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.batches import SplitTensors, split_tensors
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.learning.shared_memory import on_device

CPU = torch.device("cpu")
ROWS = np.random.default_rng(0).normal(size=(50, 4))
PER_ELEMENT = {"scaling": "standardise", "scaling_per_element": True}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few numbers there are."""
    monkeypatch.setattr("bdqm_tune.learning.shared_memory.WORTH_A_FILE", 0)


@pytest.fixture
def data(
    alloys: Callable[..., list[Atoms]], config_for: Callable[..., Config], tmp_path: Path
) -> Callable[..., Dataset]:
    def make(**groups: Any) -> Dataset:
        ase.io.write(tmp_path / "train.traj", alloys())
        groups["training"] = {"epochs": 3, **groups.get("training", {})}
        return prepare(config_for(tmp_path / "train.traj", **groups, **{"": {"device": "cpu"}}), tmp_path / "home")

    return make


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "stored.npy"
    np.save(path, ROWS)
    return path


def pieces() -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Out of order, and not contiguous."""
    columns = np.asfortranarray(ROWS)
    for place in (slice(20, 40), slice(0, 20), slice(40, 50)):
        yield place, columns[place]


def made(source: Path, dtype: torch.dtype = torch.float32, *key: bytes) -> torch.Tensor:
    return on_device(pieces, ROWS.shape, dtype, CPU, source, key)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.shared"))


def no_pieces() -> Iterator[tuple[slice, NDArray[np.float64]]]:
    raise AssertionError("made again")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("always")
def test_the_second_process_makes_nothing_and_finds_the_same(source: Path, dtype: torch.dtype) -> None:
    first = made(source, dtype)
    again = on_device(no_pieces, ROWS.shape, dtype, CPU, source, ())
    assert first.dtype == again.dtype == dtype
    assert torch.equal(first, torch.as_tensor(ROWS, dtype=dtype))
    assert torch.equal(again, first)
    assert [path.parent for path in files(source.parent)] == [source.parent]
    assert {path.suffix for path in source.parent.iterdir()} == {".npy", ".shared"}


@pytest.mark.usefixtures("always")
def test_whatever_they_depend_on_has_a_file_of_its_own(source: Path) -> None:
    made(source)
    for count, (dtype, key) in enumerate(
        [(torch.float64, ()), (torch.float32, (b"a",)), (torch.float32, (b"", b"a")), (torch.float32, (b"a", b""))], 2
    ):
        made(source, dtype, *key)
        assert len(files(source.parent)) == count


def test_few_numbers_make_no_file(source: Path) -> None:
    assert torch.equal(made(source), torch.as_tensor(ROWS, dtype=torch.float32))
    assert list(source.parent.iterdir()) == [source]


@pytest.mark.usefixtures("always")
def test_on_another_device_there_is_no_file(source: Path) -> None:
    rows = on_device(pieces, ROWS.shape, torch.float32, torch.device("meta"), source, ())
    assert (rows.device.type, rows.shape) == ("meta", ROWS.shape)
    assert list(source.parent.iterdir()) == [source]


@pytest.mark.usefixtures("always")
def test_what_one_process_writes_to_it_the_others_do_not_see(source: Path) -> None:
    made(source).fill_(7.0)
    assert torch.equal(made(source), torch.as_tensor(ROWS, dtype=torch.float32))


@pytest.mark.usefixtures("always")
def test_on_a_full_disk_a_process_keeps_its_own(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        rows = made(source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(rows, torch.as_tensor(ROWS, dtype=torch.float32))
    assert re.fullmatch(
        r".*/stored-\w+\.shared: cannot be written \(File too large\); this process keeps 0\.00 GiB for itself\n",
        capsys.readouterr().err,
    )
    assert list(source.parent.iterdir()) == [source]


@pytest.mark.usefixtures("always")
def test_a_file_that_was_cut_off_is_named(source: Path) -> None:
    made(source)
    os.truncate(files(source.parent)[0], 100)
    with pytest.raises(BdqmError, match=r"\.shared is cut off; remove it, and it will be made again$"):
        made(source)


@pytest.mark.usefixtures("always")
def test_a_file_goes_after_what_it_was_made_of(source: Path) -> None:
    rows, other = made(source), source.with_name("other.npy")
    other.write_bytes(source.read_bytes())
    source.unlink()
    assert len(files(source.parent)) == 1
    made(other)
    assert [path.name.partition("-")[0] for path in files(source.parent)] == ["other"]
    assert torch.equal(rows, torch.as_tensor(ROWS, dtype=torch.float32))


def splits(data: Dataset) -> list[SplitTensors]:
    dtype = {"float32": torch.float32, "float64": torch.float64}[data.config.training.precision]
    return [
        split_tensors(data, split, CPU, dtype, data.config.training.forces) for split in (data.train, data.validation)
    ]


def history(data: Dataset) -> list[dict[str, float]]:
    run = make_backend(data.config, data).start(Hyperparameters(num_nodes=6, lr=0.01, batch_size=5), seed=3)
    return [{k: v for k, v in record.metrics().items() if k != "epoch_seconds"} for record in run]


@pytest.mark.parametrize(
    ("training", "descriptor"),
    [
        ({"precision": "float32"}, {}),
        ({"precision": "float64"}, PER_ELEMENT),
        ({"precision": "float32", "forces": True}, {"scaling": "log"}),
    ],
)
def test_training_gives_the_same_numbers_to_the_last_bit(
    data: Callable[..., Dataset], training: dict[str, Any], descriptor: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = data(training=training, descriptor=descriptor)
    expected, own = history(alone), splits(alone)
    monkeypatch.setattr("bdqm_tune.learning.shared_memory.WORTH_A_FILE", 0)
    assert history(alone) == expected
    for one, shared in zip(own, splits(alone), strict=True):
        of_one, of_shared = (kept.batch(torch.arange(len(one) - 1, -1, -1)) for kept in (one, shared))
        assert torch.equal(of_one.features, of_shared.features)
        if of_one.forces is not None:
            assert of_shared.forces is not None
            assert torch.equal(of_one.forces.values, of_shared.forces.values)
    store = alone.train.features.file.path.parent
    assert len(files(store)) == (4 if alone.config.training.forces else 2)


@pytest.mark.usefixtures("always")
def test_the_next_worker_reads_no_stored_features(
    data: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = data(training={"forces": True})
    splits(prepared)
    monkeypatch.setattr(RowFile, "read", lambda *_: pytest.fail("read"))
    splits(prepared)


@pytest.mark.usefixtures("always")
def test_another_scaling_or_another_split_has_files_of_its_own(data: Callable[..., Dataset]) -> None:
    counts = []
    for groups in (
        {},
        {"descriptor": {"scaling": "normalise"}},
        {"descriptor": PER_ELEMENT},
        {"data": {"validation": {"fraction": 0.25, "seed": 5}}},
    ):
        prepared = data(**groups)
        splits(prepared)
        counts.append(len(files(prepared.train.features.file.path.parent)))
    assert counts == [2, 4, 6, 8]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not say what is mapped")
@pytest.mark.usefixtures("always")
def test_an_epoch_leaves_the_pages_shared(data: Callable[..., Dataset]) -> None:
    prepared = data(training={"forces": True})
    run = make_backend(prepared.config, prepared).start(Hyperparameters(num_nodes=6, lr=0.01, batch_size=5), seed=3)
    assert len(list(run)) == 3
    # Pages that the process no longer has in common with the file.
    own = re.findall(r"\.shared\n(?:.*\n)*?Anonymous: +(\d+) kB", Path("/proc/self/smaps").read_text())
    assert own == ["0"] * 4
