"""A file computed once: by one process, on any node, while others that need it wait."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bdqm_tune.files import NO_LOCKS, lock_file, open_no_link
from bdqm_tune.progress import check, note

POLL = 0.2  # seconds
_making = threading.Lock()


def make_once(path: Path, what: str, make: Callable[[], None], is_whole: Callable[[Path], bool] = Path.exists) -> None:
    """Make sure that a file or folder exists at `path`: made here, or by another process that has begun to.

    A lock file beside it, one for all paths of the same stem, is held while it is made. However its process ends, the
    lock is released, and a waiting process makes the file. On a file system without locks each process makes its own.

    Args:
        what: its name in messages, as "another trial or worker computes them".
        make: makes it beside `path`, under a name `STEM.*.partial`, and moves it there when it is whole.
        is_whole: whether an existing file or folder is intact; else it is removed and made again.

    Raises:
        OSError: the folder or the lock file cannot be written; also whatever `make` raises.
    """
    if path.exists() and is_whole(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_suffix(".lock")
    handle = _locked(lock, f"{what}: another trial or worker computes them; waiting")
    try:
        if handle is not None:
            _remove_partial(path)
        if path.exists() and not is_whole(path):
            note(f"{what}: {path} is damaged, and computed again")
            _remove(path)
        if not path.exists():
            with _one_at_a_time():
                make()
    finally:
        if handle is not None:
            # Removed before it is released: a process that waits for it sees so, and locks a new file.
            lock.unlink(missing_ok=True)
            os.close(handle)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    # Among the threads of this process, as one takes all cores.
    while not _making.acquire(timeout=POLL):
        check()
    try:
        yield
    finally:
        _making.release()


def _remove_partial(path: Path) -> None:
    """Remove the partial files of processes that were killed."""
    for partial in path.parent.glob(f"{path.stem}.*.partial"):
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _locked(lock: Path, waiting: str) -> int | None:
    """The lock's file, open and locked; None where there are no locks."""
    reported = False
    try:
        while (handle := _try_to_lock(lock)) is None:
            if not reported:
                note(waiting)
            reported = True
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
        lock_file(handle, wait=False)
        if _is_file_at(handle, lock):
            return handle
    except BlockingIOError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _is_file_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at the path."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(handle)
    return (own.st_dev, own.st_ino) == (status.st_dev, status.st_ino)
