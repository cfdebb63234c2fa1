"""Files and folders where other users may write too: nothing is written through a link or into a file of theirs."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from bdqm_tune.errors import BadInput

STREAMS = ("/dev", "/dev/fd", "/proc/self/fd")  # folders of what is written into, not replaced
NO_LINK = getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def written_whole(path: Path, mode: int = 0o666, on_disk: bool = False) -> Iterator[BinaryIO]:
    """Write a file in the block: whole or not at all, so that a reader never sees half of it.

    It is made beside its place, under a name `NAME.….partial` that nobody can foresee, and then replaces what is
    there; a link is replaced itself, not the file that it leads to.

    Args:
        mode: permissions, less what the umask takes.
        on_disk: force the content to the disk before it takes its place.

    Raises:
        OSError: it cannot be written; an existing file is unchanged.
    """
    if str(path.absolute().parent) in STREAMS:
        with path.open("wb") as file:
            yield file
        return
    partial = path.with_name(f"{path.name[:180]}.{uuid4().hex}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINK, mode), "w+b") as file:
            yield file
            if on_disk:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file as `written_whole` does; text as UTF-8."""
    with written_whole(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def open_no_link(path: Path, flags: int, mode: int = 0o666) -> int:
    """As os.open, for files that are kept open or locked under a known name. Raises OSError, for a link too."""
    try:
        return os.open(path, flags | NO_LINK, mode)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(errno.ELOOP, "it is a symbolic link, through which nothing is written", str(path)) from None


NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # a file system that has none


def lock_file(handle: int, wait: bool = True) -> None:
    """Lock an open file for this process alone, until it is closed.

    Where the file system knows no `flock`, by the locks that SQLite takes; of those one process has all or none.

    Raises:
        BlockingIOError: another process has it, and it is not waited for.
        OSError: one of `NO_LOCKS`, the file system has none at all.
    """
    flags = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(handle, flags)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        fcntl.lockf(handle, flags)


@contextmanager
def locked(path: Path, remedy: str) -> Iterator[None]:
    """Hold the lock of a file, which is made if there is none; it is released when the process ends.

    Args:
        remedy: what to do where the file system has no locks.

    Raises:
        BadInput: it has none.
        OSError: the file cannot be opened.
    """
    handle = open_no_link(path, os.O_RDWR | os.O_CREAT)
    try:
        try:
            lock_file(handle)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise BadInput(f"{path.parent}: the file system has no locks ({error.strerror}); {remedy}") from None
        yield
    finally:
        os.close(handle)


def private_folder(folder: Path) -> None:
    """Make sure that a folder exists which only this user can read.

    Raises:
        BadInput: it is another user's, or reached by a link of theirs, or they could write what is in it.
        OSError: there is no place for it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    link, target = folder.lstat(), folder.stat()
    if {link.st_uid, target.st_uid} != {os.getuid()}:
        what = "is a link that belongs" if stat.S_ISLNK(link.st_mode) and link.st_uid != os.getuid() else "belongs"
        raise BadInput(f"{folder} {what} to another user")
    if target.st_mode & 0o022 and any(folder.iterdir()):
        raise BadInput(f"{folder}: others may have written what is in it; if not, chmod -R go= {folder}")
    if stat.S_IMODE(target.st_mode) != 0o700:
        folder.chmod(0o700)


def is_private(folder: Path) -> bool:
    """Whether it is a folder, no link, of this user alone."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
