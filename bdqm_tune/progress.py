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
# the garbage collector; long work asks here as well.
told_to_end = threading.Event()
walltime_is_near = threading.Event()  # why it was told so: a scheduler gave its warning
LINE_EVERY = 5.0  # seconds between two plain lines
_asked: ContextVar[Callable[[], None] | None] = ContextVar("asked", default=None)


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
def interruptible(ask: Callable[[], None]) -> Iterator[None]:
    """Let long work in the block ask at every step whether it is to go on: `ask` raises if not.

    An interruption reaches the main thread only; this is how it comes to the others.
    """
    token = _asked.set(ask)
    try:
        yield
    finally:
        _asked.reset(token)


def check() -> None:
    """Raise what the `interruptible` around says, if it says that long work is to end, or the process was told to."""
    if told_to_end.is_set():
        raise KeyboardInterrupt
    if (ask := _asked.get()) is not None:
        ask()


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yield the items, `total` in number, and show on standard error how far we are."""
    with Bar(description, total) as bar:
        for item in items:
            yield item
            bar.advance()
