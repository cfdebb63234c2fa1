"""What a user did wrong, and what failed: each with the exit status that a shell sees."""

import errno
import reprlib
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class BdqmError(Exception):
    """Something failed that the user can act on; the message says what to do. Exit status 1."""

    exit_code = 1


class BadInput(BdqmError):
    """Invalid input; the message says what, where, and what would be valid. Exit status 2."""

    exit_code = 2


class DiskFull(BdqmError):
    """Something could not be written for want of room."""


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put the place, as a file and an image, in front of the message of a BadInput."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def one_line(error: BaseException) -> str:
    """The message of an error in one line of at most 300 characters; its kind, where it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__


NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# How libraries pass that on: the system's words, and SQLite's.
SAY_NO_ROOM = ("No space left on device", "Disk quota exceeded", "database or disk is full")
DISK_FULL = "the disk is full"


def is_disk_full(error: BaseException | None) -> bool:
    """Whether something could not be written for want of room, on the disk or of a quota."""
    while error is not None:
        if getattr(error, "errno", None) in NO_ROOM or any(text in str(error) for text in SAY_NO_ROOM):
            return True
        error = error.__cause__
    return False


def printable(text: str) -> str:
    """The text in one line; what is no character to print, as in names of files, is written as Python writes it."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def argument(name: str) -> str:
    """A name as the last argument of a command in a message, so that the command works where it is pasted.

    After an option, `shlex.quote` is enough.
    """
    return f"{'-- ' if name.startswith('-') else ''}{shlex.quote(name)}"


_shortened = reprlib.Repr()
_shortened.maxlevel, _shortened.maxlist, _shortened.maxtuple, _shortened.maxdict = 3, 10, 10, 10
_shortened.maxstring = _shortened.maxlong = _shortened.maxother = 100


def shown(value: Any) -> str:
    """The repr of a value for a message, at most a line or two of it."""
    try:
        text = _shortened.repr(value)
    except ValueError:  # an integer has more digits than Python writes
        text = "a number that is too long to be shown"
    return text if len(text) <= 300 else f"{text[:300]}…"
