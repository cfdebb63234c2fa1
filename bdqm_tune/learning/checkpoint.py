"""A checkpoint as one file: a SHA-256 digest, and safetensors with JSON in them; no pickle."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from bdqm_tune.errors import BdqmError
from bdqm_tune.files import written_whole
from bdqm_tune.learning.fit import Checkpoint, EpochRecord

FORMAT = 1
DIGEST = hashlib.sha256().digest_size
ORDER, PLAIN, EPOCHS = "order", "plain", "epochs."  # names of the tensors; those of the network follow the last


class NoCheckpoint(BdqmError):
    """There is no checkpoint from which this training can resume; the message says why. It may start again."""


def write_checkpoint(path: Path, checkpoint: Checkpoint, key: Mapping[str, Any]) -> None:
    """Replace a checkpoint atomically: the previous one stays whole if this fails or is killed.

    Args:
        key: identifies the training, in plain JSON; only a training with the same key resumes from the checkpoint.

    Raises:
        OSError: the file cannot be written.
    """
    plain = {
        "key": _with_format(key),
        "records": [asdict(record) for record in checkpoint.records],
        "lr": checkpoint.lr,
        "scheduler": checkpoint.scheduler,  # in which the best value before the first is infinite, as Python's JSON has
    }
    tensors = {EPOCHS + name: value.contiguous() for name, value in checkpoint.epochs.items()}
    tensors |= {ORDER: checkpoint.order, PLAIN: torch.frombuffer(bytearray(_json(plain)), dtype=torch.uint8)}
    content = save(tensors)
    with written_whole(path, on_disk=True) as file:
        file.write(hashlib.sha256(content).digest())
        file.write(content)
    sync_folder(path.parent)


def read_checkpoint(path: Path, key: Mapping[str, Any]) -> Checkpoint:
    """Read the checkpoint of the training with this key.

    Raises:
        NoCheckpoint: there is none, it is damaged, or it is of another training.
    """
    try:
        file = path.read_bytes()
    except FileNotFoundError:
        raise NoCheckpoint(f"{path}: there is no checkpoint") from None
    except OSError as error:
        raise NoCheckpoint(f"{path}: the checkpoint cannot be read ({error.strerror})") from None
    digest, content = file[:DIGEST], file[DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        raise NoCheckpoint(f"{path}: the checkpoint is damaged, its digest is not that of its content")
    tensors = load(content)
    plain = json.loads(tensors[PLAIN].numpy().tobytes())
    wanted, stored = json.loads(_json(_with_format(key))), plain["key"]
    if wanted != stored:
        names = sorted(name for name in wanted.keys() | stored.keys() if wanted.get(name) != stored.get(name))
        raise NoCheckpoint(f"{path}: the checkpoint is of a training with another {', '.join(names)}")
    return Checkpoint(
        [EpochRecord(**record) for record in plain["records"]],
        plain["lr"],
        plain["scheduler"],
        tensors[ORDER],
        {name.removeprefix(EPOCHS): value for name, value in tensors.items() if name.startswith(EPOCHS)},
    )


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, if there is one, and the partial files of writers that were killed."""
    for file in (path, *path.parent.glob(f"{path.name}.*.partial")):
        file.unlink(missing_ok=True)


def _with_format(key: Mapping[str, Any]) -> dict[str, Any]:
    return {**key, "format": FORMAT}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that the name of a new file is on the disk as well."""
    with suppress(OSError):  # which some file systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
