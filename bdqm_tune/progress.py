"""Progress of long work on standard error: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Item = TypeVar("Item")

# Set by a signal that ends the process. The exception that its handler raises is lost where it comes in a callback of
# the garbage collector; long work checks this as well.
told_to_end = threading.Event()
walltime_is_near = threading.Event()  # why it is to end: the scheduler sent its warning
LINE_EVERY = 5.0  # seconds between two plain lines
GRACE = 3.0  # seconds for work that has nearly reached a point from which it can be resumed
_is_over: ContextVar[Callable[[], bool] | None] = ContextVar("is_over", default=None)
_over_since: ContextVar[float | None] = ContextVar("over_since", default=None)  # time of the first such check


class Bar:
    """Shows how much of `total` is done, as a context manager."""

    def __init__(self, description: str, total: int) -> None:
        self._description, self._total = description, total
        self._done, self._last_line = 0, time.monotonic()
        self._rich: Progress | None = None

    def __enter__(self) -> "Bar":
        if sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._rich = Progress(*columns, console=_terminal(), transient=True)
            self._rich.add_task(self._description, total=self._total)
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def advance(self, message: str = "") -> None:
        """One more is done; a message stays as a line of its own."""
        check()
        self._done += 1
        if self._rich is not None:
            if message:
                self._rich.console.print(message, markup=False, highlight=False, soft_wrap=True)
            self._rich.advance(self._rich.task_ids[0])
        elif message:
            print(message, file=sys.stderr, flush=True)
        elif self._done < self._total and time.monotonic() - self._last_line > LINE_EVERY:
            self._last_line = time.monotonic()
            print(f"{self._description}: {self._done} of {self._total}", file=sys.stderr, flush=True)


@cache
def _terminal() -> "Console":
    """The one of all bars, so that one within another is drawn below it."""
    from rich.console import Console

    return Console(stderr=True)


def note(message: str) -> None:
    """A line of its own; above the bars, where there are some."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def interruptible(is_over: Callable[[], bool]) -> Iterator[None]:
    """Let long work in the block check at every step whether it is to end.

    An interruption reaches the main thread only; this is how it comes to the others.
    """
    token, since = _is_over.set(is_over), _over_since.set(None)
    try:
        yield
    finally:
        _is_over.reset(token)
        _over_since.reset(since)


def check(grace: float = 0.0) -> None:
    """Raise KeyboardInterrupt if the process is to end, or the `interruptible` around says that its work is to.

    Args:
        grace: seconds that the work may still take, from the first check in this thread after it was to end.
    """
    is_over = _is_over.get()
    if not (told_to_end.is_set() or (is_over is not None and is_over())):
        _over_since.set(None)
        return
    since, now = _over_since.get(), time.monotonic()
    if since is None:
        _over_since.set(since := now)
    if now - since >= grace:
        raise KeyboardInterrupt


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yield the items, `total` in number, and show on standard error how far we are."""
    with Bar(description, total) as bar:
        for item in items:
            yield item
            bar.advance()
