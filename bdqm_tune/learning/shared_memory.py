"""Rows computed from a cached file, all of them on a device; on the CPU all processes of a host share one copy.

The copy is a file beside its source, which each process maps: the system has its pages in memory once. Anyone who
removes the source by hand may remove the copy too; else the next process that writes a copy does.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bdqm_tune.descriptors.compute_once import make_once
from bdqm_tune.errors import BdqmError
from bdqm_tune.files import written_whole
from bdqm_tune.progress import note

# Gives rows and their slice among all rows; each call starts from the first.
Pieces = Callable[[], Iterable[tuple[slice, NDArray[np.float64]]]]
WORTH_A_FILE = 2**24  # bytes; a process takes many times that besides


def on_device(
    pieces: Pieces, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, source: Path, key: Iterable[bytes]
) -> torch.Tensor:
    """All rows (n_rows, ...) on a device.

    On the CPU, what a process writes to them is not shared.

    Args:
        pieces: computes the rows.
        shape: (n_rows, ...).
        source: the file that they are computed from.
        key: all that they depend on besides the source.

    Raises:
        BdqmError: an existing copy is truncated.
    """
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    if device.type == "cpu" and n_bytes >= WORTH_A_FILE:
        path = _path(source, [str((shape, dtype)).encode(), *key])
        try:
            make_once(path, "Inputs of the training", lambda: _write(path, source, pieces, dtype))
            return _mapped(path, shape, dtype, n_bytes)
        except OSError as error:
            why = error.strerror or error
            note(f"{path}: cannot be written ({why}); this process keeps {n_bytes / 2**30:.2f} GiB for itself")
    rows = torch.empty(shape, dtype=dtype, device=device)
    for place, piece in pieces():
        rows[place] = torch.from_numpy(piece)
    return rows


def _path(source: Path, key: Iterable[bytes]) -> Path:
    digest = hashlib.sha256()
    for part in key:
        digest.update(hashlib.sha256(part).digest())
    return source.with_name(f"{source.stem}-{digest.hexdigest()}.shared")


def _mapped(path: Path, shape: tuple[int, ...], dtype: torch.dtype, n_bytes: int) -> torch.Tensor:
    if path.stat().st_size != n_bytes:
        raise BdqmError(f"{path} is cut off; remove it, and it will be made again")
    # A private mapping: its pages are those of the file until they are written to.
    return torch.from_file(str(path), shared=False, size=int(np.prod(shape)), dtype=dtype).reshape(shape)


def _write(path: Path, source: Path, pieces: Pieces, dtype: torch.dtype) -> None:
    _remove_orphans(source)
    with written_whole(path) as file:
        # Written and not mapped, because on a full disk a mapping kills the process.
        for place, piece in pieces():
            file.seek(place.start * piece[0].size * dtype.itemsize)
            file.write(torch.from_numpy(piece).to(dtype).contiguous().numpy().data)


def _remove_orphans(source: Path) -> None:
    """Remove the files beside the source whose own sources are gone."""
    for path in source.parent.glob("*-*.shared"):
        if not path.with_name(path.name.partition("-")[0] + source.suffix).exists():
            path.unlink(missing_ok=True)
