"""The file of a checkpoint: read back as it was written, and never taken for whole when it is not."""

import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from bdqm_tune.learning.checkpoint import NoCheckpoint, read_checkpoint, remove_checkpoint, write_checkpoint
from bdqm_tune.learning.fit import Checkpoint, EpochRecord

KEY: dict[str, Any] = {"seed": 3, "training": {"epochs": 5, "early_stopping": None}, "backend": "native"}


def made_up(epochs: int = 2, size: int = 7) -> Checkpoint:
    """A checkpoint after so many epochs, with every kind of number that may stand in one."""
    records = [EpochRecord(i + 1, 0.1 + i, 1 / 3, 2e-17, 0.7, 1e-3, 0.25, None, 0.1 * i) for i in range(epochs)]
    state = {
        "weights": torch.rand(size, 3, generator=torch.Generator().manual_seed(epochs)),
        "double": torch.full((size,), math.pi * epochs, dtype=torch.float64),
        "steps": torch.tensor(5 * epochs),
        "none": torch.zeros(0),
        "bytes": torch.arange(size, dtype=torch.uint8),
    }
    return Checkpoint(records, 1e-3 / 3, {"best": math.inf, "rates": [0.1]}, torch.Generator().get_state(), state)


def same(a: Checkpoint, b: Checkpoint) -> bool:
    """Whether they are equal, types of numbers included."""
    plain = (a.records, a.lr, a.scheduler) == (b.records, b.lr, b.scheduler)
    found, expected = ({**checkpoint.epochs, "order": checkpoint.order} for checkpoint in (a, b))
    return plain and found.keys() == expected.keys() and all(identical(found[name], expected[name]) for name in found)


def identical(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder with one checkpoint, of two epochs."""
    write_checkpoint(tmp_path / "trial.checkpoint", made_up(), KEY)
    return tmp_path / "trial.checkpoint"


def test_what_was_written_is_read(path: Path) -> None:
    assert same(read_checkpoint(path, KEY), made_up())
    write_checkpoint(path, made_up(3), KEY)
    assert same(read_checkpoint(path, KEY), made_up(3))
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_one_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NoCheckpoint, match=r"x\.checkpoint: there is no checkpoint"):
        read_checkpoint(tmp_path / "x.checkpoint", KEY)
    with pytest.raises(NoCheckpoint, match=r"cannot be read \(Is a directory\)"):
        read_checkpoint(tmp_path, KEY)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"seed": 4}, "seed"),
        ({"training": {"epochs": 6, "early_stopping": None}, "data": "abc"}, "data, training"),
        ({"backend": None}, "backend"),
    ],
)
def test_one_of_another_training_is_refused_and_the_difference_named(
    path: Path, other: dict[str, Any], named: str
) -> None:
    with pytest.raises(NoCheckpoint, match=f"of a training with another {named}$"):
        read_checkpoint(path, KEY | other)


def test_one_of_another_format_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdqm_tune.learning.checkpoint.FORMAT", 2)
    with pytest.raises(NoCheckpoint, match="with another format$"):
        read_checkpoint(path, KEY)


@pytest.mark.endurance
def test_every_byte_that_changes_and_every_cut_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 + place % 255
        for damaged in (flipped, whole[:place]):
            path.write_bytes(damaged)
            with pytest.raises(NoCheckpoint, match="is damaged"):
                read_checkpoint(path, KEY)
    path.write_bytes(whole + b"\0")
    with pytest.raises(NoCheckpoint, match="is damaged"):
        read_checkpoint(path, KEY)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Files of this process cannot become larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_leaves_the_one_before(path: Path) -> None:
    with full_disk(3000), pytest.raises(OSError, match="File too large"):
        write_checkpoint(path, made_up(3, size=1000), KEY)
    assert same(read_checkpoint(path, KEY), made_up())
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_at_any_step_leaves_the_one_before(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fail(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patched, pytest.raises(type(error)):
        patched.setattr(step, fail)
        write_checkpoint(path, made_up(3), KEY)
    assert same(read_checkpoint(path, KEY), made_up())
    assert list(path.parent.iterdir()) == [path]


def test_a_file_system_that_cannot_sync_folders_will_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def only_files(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").resolve().is_dir():
            raise OSError(22, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(os, "fsync", only_files)
    write_checkpoint(path, made_up(3), KEY)
    assert same(read_checkpoint(path, KEY), made_up(3))


# Writes one checkpoint after the other, and is killed in the midst of it.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from bdqm_tune.learning.checkpoint import read_checkpoint, write_checkpoint
from tests.learning.test_checkpoint import KEY, made_up, same

path, epochs, seen = Path(sys.argv[1]), 2, set()
write_checkpoint(path, made_up(epochs, size=20_000), KEY)
for attempt in range(40):
    child = os.fork()
    if child == 0:
        while True:
            epochs = epochs % 9 + 1
            write_checkpoint(path, made_up(epochs, size=20_000), KEY)
    time.sleep(random.Random(attempt).uniform(0.01, 0.04))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = read_checkpoint(path, KEY)
    epochs = len(found.records)
    assert same(found, made_up(epochs, size=20_000)), epochs
    seen.add(len(list(path.parent.iterdir())))
print(max(seen))
"""


def test_a_writer_that_is_killed_leaves_a_whole_one(path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", KILLED, str(path)]
    found = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) > 1  # some were killed before the new one had its name
    remove_checkpoint(path)
    assert list(path.parent.iterdir()) == []


def test_removing_one_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    other = tmp_path / "trial.checkpoint2"
    other.touch()
    remove_checkpoint(tmp_path / "trial.checkpoint")
    assert other.exists()
