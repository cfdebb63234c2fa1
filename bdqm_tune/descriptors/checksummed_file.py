"""Files that end with the SHA-256 digest of their content, so that a truncated or changed file is detected."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bdqm_tune.files import written_whole

DIGEST = hashlib.sha256().digest_size  # bytes
AT_ONCE = 2**24  # bytes

_checked: dict[Path, tuple[int, int, int]] = {}  # inode, size and time of files that this process found whole


class ChecksummedFile:
    """A file being written, and the digest of its content so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def write(self, content: bytes | NDArray[Any]) -> None:
        """Write bytes, or the elements of an array."""
        data = content if isinstance(content, bytes) else np.ascontiguousarray(content).data
        self._file.write(data)
        self._digest.update(data)

    def end(self) -> None:
        """Write the digest."""
        self._file.write(self._digest.digest())


@contextmanager
def checksummed(path: Path) -> Iterator[ChecksummedFile]:
    """Write a file in this block; at its end the digest is added and the file moved to `path`, whole or not at all."""
    with written_whole(path) as file:
        content = ChecksummedFile(file)
        yield content
        content.end()


def is_whole(path: Path) -> bool:
    """Whether the file ends with the digest of its content; a process reads an unchanged file once. Raises OSError."""
    with path.open("rb") as file:
        status = path.stat()
        state = status.st_ino, status.st_size, status.st_mtime_ns
        if _checked.get(path) == state:
            return True
        digest, left = hashlib.sha256(), status.st_size - DIGEST
        while left > 0 and (content := file.read(min(left, AT_ONCE))):
            digest.update(content)
            left -= len(content)
        if left != 0 or file.read() != digest.digest():
            return False
    _checked[path] = state
    return True


def read_array(path: Path, dtype: DTypeLike) -> NDArray[Any]:
    """The elements of a file, (n,), without its digest."""
    return np.fromfile(path, dtype, count=(path.stat().st_size - DIGEST) // np.dtype(dtype).itemsize)
