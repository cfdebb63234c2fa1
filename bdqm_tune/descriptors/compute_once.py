"""Computed by one process, on whatever node, while the others that need the same wait for it."""

import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bdqm_tune.files import open_no_link
from bdqm_tune.progress import check, note

POLL = 0.2  # seconds
_making = threading.Lock()
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # a file system that has none


def make_once(path: Path, what: str, make: Callable[[], None], is_whole: Callable[[Path], bool] = Path.exists) -> None:
    """See that there is a file or folder at `path`: made here, or by another process that has begun to.

    A lock beside it, one for all of the same stem, says that it is being made. The lock ends with its process, however
    that ends, and one of those that wait makes it then. On a file system without locks each process makes its own.

    Args:
        what: is made, for the line that says that another process does.
        make: makes it beside its place, under a name `STEM.*.partial`, and moves it there when it is whole.
        is_whole: whether what is there is as it was made; else it is removed and made anew.
    """
    if path.exists() and is_whole(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_suffix(".lock")
    handle = _locked(lock, f"{what}: another trial or worker computes them; waiting")
    try:
        if handle is not None:
            _remove_left(path)
        if path.exists() and not is_whole(path):
            note(f"{what}: {path} is damaged, and computed again")
            _remove(path)
        if not path.exists():
            with _one_at_a_time():
                make()
    finally:
        if handle is not None:
            # Before it is let go: who waits for it sees that it is gone, and begins anew.
            lock.unlink(missing_ok=True)
            os.close(handle)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    # Of the threads of this process: one takes all cores.
    while not _making.acquire(timeout=POLL):
        check()
    try:
        yield
    finally:
        _making.release()


def _remove_left(path: Path) -> None:
    """Remove what a process that was killed had begun."""
    for left in path.parent.glob(f"{path.stem}.*.partial"):
        _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _locked(lock: Path, waiting: str) -> int | None:
    """The lock's file, open and locked; None where there are no locks."""
    said = False
    try:
        while (handle := _try_to_lock(lock)) is None:
            if not said:
                note(waiting)
            said = True
            check()
            time.sleep(POLL)
        return handle
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise


def _try_to_lock(lock: Path) -> int | None:
    handle = open_no_link(lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is(handle, lock):
            return handle
    except BlockingIOError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _is(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at the path."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(handle)
    return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)
