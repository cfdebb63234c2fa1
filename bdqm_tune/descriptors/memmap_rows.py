"""Rows of an array that stays in its file: read when they are used, so that they take no memory before."""

import os
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.errors import BdqmError

AT_ONCE = 2**24  # bytes


class RowFile:
    """A file of float64, row after row.

    It is read and not mapped, because the touched pages of a mapping count as memory of the process. Reading is
    thread-safe.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], offset: int = 0) -> None:
        """
        Args:
            shape: (n_rows, ...) of all rows in the file.
            offset: bytes before the first row.

        Raises:
            OSError: the file cannot be opened.
        """
        self.path, self.shape, self.offset = path, shape, offset
        # Held open, so that removing the file during a training does no harm.
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __reduce__(self) -> tuple[type["RowFile"], tuple[Path, tuple[int, ...], int]]:
        return RowFile, (self.path, self.shape, self.offset)

    def read(self, first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.float64]:
        """Rows (sum of `count`, ...): for each i, `count[i]` rows from row `first[i]` on, one after the other.

        Args:
            first, count: (n,).

        Raises:
            BdqmError: the file is truncated.
        """
        rows = np.empty((int(count.sum()), *self.shape[1:]))
        into, size = rows.reshape(-1).view(np.uint8), rows.dtype.itemsize * int(np.prod(self.shape[1:]))
        if not len(rows):
            return rows
        # Rows that are consecutive in the file are read at once.
        runs = np.flatnonzero(np.append(True, first[1:] != first[:-1] + count[:-1]))
        place = 0
        for begin, length in zip(first[runs].tolist(), np.add.reduceat(count, runs).tolist(), strict=True):
            self._fill(into[place : place + length * size], self.offset + begin * size)
            place += length * size
        return rows

    def _fill(self, into: NDArray[np.uint8], begin: int) -> None:
        while len(into):
            read = os.pread(self._file, min(len(into), AT_ONCE), begin)  # preadv, which does not copy, is not on macOS
            if not read:
                raise BdqmError(f"{self.path} is cut off; remove it, and it will be computed again")
            into[: len(read)] = np.frombuffer(read, dtype=np.uint8)
            into, begin = into[len(read) :], begin + len(read)
