"""The feature cache: features of a set of structures, computed once and then read from the disk."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0
from numpy.typing import DTypeLike, NDArray

from bdqm_tune.descriptors.base import Descriptor
from bdqm_tune.descriptors.checksummed_file import checksummed, is_whole
from bdqm_tune.descriptors.compute_once import make_once
from bdqm_tune.descriptors.memmap_rows import RowFile
from bdqm_tune.errors import BdqmError
from bdqm_tune.progress import Bar
from bdqm_tune.structures import Geometries
from bdqm_tune.structures.digest import geometry_key
from bdqm_tune.threads import in_threads

PIECE_BYTES = 2**21  # of features processed at once: they fit into a core's cache
ATOMS = 500  # computed at once: enough that Python's share is small, few enough for those caches
ATOMS_ON_DEVICE = 5000  # the same where torch computes; not measured


class Piece(NamedTuple):
    """Features of some consecutive structures."""

    structures: slice
    rows: slice  # the atoms of these structures among all
    features: NDArray[np.float64]  # (n_atoms, n_features)


@dataclass(frozen=True)
class StoredFeatures:
    """Features of some structures, atom after atom, read from the disk when they are used.

    The rows of structure i are at `first[i]:first[i] + count[i]` in the file.
    """

    file: RowFile  # (all atoms, n_features)
    first: NDArray[np.int64]  # (n_structures,)
    count: NDArray[np.int64]  # (n_structures,)

    @property
    def shape(self) -> tuple[int, int]:
        """(total atoms, n_features)."""
        return int(self.count.sum()), self.file.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[np.float64]:
        """All features in memory; only for small data."""
        return np.asarray(self.file.read(self.first, self.count), dtype)

    def select(self, structures: NDArray[np.int64]) -> "StoredFeatures":
        """The structures at these indices, in that order; what is on the disk stays there."""
        return replace(self, first=self.first[structures], count=self.count[structures])

    def pieces(self) -> Iterator[Piece]:
        """All structures in order, in pieces of at most `PIECE_BYTES` of features, or of one larger structure."""
        ends = np.cumsum(self.count)
        at_once = PIECE_BYTES // (8 * self.file.shape[1])
        start, row = 0, 0
        while start < len(ends):
            stop = max(start + 1, int(np.searchsorted(ends, row + at_once, side="right")))
            structures, rows = slice(start, stop), slice(row, int(ends[stop - 1]))
            yield Piece(structures, rows, self.file.read(self.first[structures], self.count[structures]))
            start, row = stop, rows.stop


def stored_features(structures: Geometries, descriptor: Descriptor, folder: Path) -> StoredFeatures:
    """Features of all atoms, structure after structure.

    Args:
        folder: the feature cache, which has a file for every pair of structures and descriptor. A truncated or
            changed file is made again.

    Raises:
        BadInput: the descriptor refuses a structure; the message names the image.
        BdqmError: the file cannot be written, as on a full disk.
    """
    path = folder / f"{structures_key(structures.atoms, descriptor)}.npy"
    with writing(path):
        make_once(path, f"Features of {structures.source}", lambda: _write(path, structures, descriptor), is_whole)
    whole, count = np.load(path, mmap_mode="r"), structures.n_atoms
    return StoredFeatures(RowFile(path, whole.shape, whole.offset), np.cumsum(count) - count, count)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise BdqmError, with `path` in the message, for an OSError in this block."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise BdqmError(f"{path}: cannot be written ({why}); BDQM_HOME names another folder") from None


def structures_key(atoms: list[Atoms], descriptor: Descriptor) -> str:
    """Identifies the features of these structures, as 64 hexadecimal digits."""
    key = hashlib.sha256(json.dumps(descriptor.settings, sort_keys=True).encode())
    for structure in atoms:
        key.update(geometry_key(structure))
    return key.hexdigest()


def in_pieces(n_atoms: NDArray[np.int64], at_once: int | None = None) -> list[slice]:
    """Slices of consecutive structures of about `at_once` atoms each; None: `ATOMS`.

    Args:
        n_atoms: (n_structures,) atoms of each structure.
    """
    piece = (np.cumsum(n_atoms) - n_atoms) // (at_once or ATOMS)
    first = np.flatnonzero(np.diff(piece, prepend=-1)).tolist()
    return [slice(start, stop) for start, stop in zip(first, [*first[1:], len(n_atoms)], strict=True)]


def _write(path: Path, structures: Geometries, descriptor: Descriptor) -> None:
    header = header_data_from_array_1_0(np.empty((0, descriptor.n_features)))
    header["shape"] = (int(structures.n_atoms.sum()), descriptor.n_features)
    names = [f"{structures.source}, image {image}" for image in structures.images.tolist()]
    pieces = in_pieces(structures.n_atoms, ATOMS_ON_DEVICE if descriptor.device else None)
    with checksummed(path) as file, Bar(f"Features of {structures.source}", len(structures)) as bar:
        write_array_header_1_0(start := BytesIO(), header)
        file.write(start.getvalue())
        computed = in_threads(lambda piece: descriptor.compute_all(structures.atoms[piece], names[piece]), pieces)
        for piece, rows in zip(pieces, computed, strict=True):
            file.write(rows.astype(np.float64, copy=False))
            for _ in names[piece]:
                bar.advance()
