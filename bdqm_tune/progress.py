"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")

LINE_EVERY = 5.0  # seconds between two plain lines


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items and show on standard error how far we are.

    Args:
        total: how many there are, where `items` has no length.
    """
    total = len(items) if total is None and isinstance(items, Sized) else total
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as rich_track

        yield from rich_track(
            items, description=description, total=total, console=Console(stderr=True), transient=True
        )
        return
    last = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - last > LINE_EVERY:
            last = time.monotonic()
            print(f"{description}: {done}{f' of {total}' if total else ''}", file=sys.stderr, flush=True)
        yield item
