"""Structures worked on by as many threads as the process may use cores."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.threads import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

ATOMS = 500  # of a piece: enough that Python's share is small, and few enough for the processor's caches


def in_pieces(n_atoms: NDArray[np.int64]) -> list[slice]:
    """Structures of so many atoms, one after another in pieces of about `ATOMS` atoms."""
    piece = (np.cumsum(n_atoms) - n_atoms) // ATOMS
    first = np.flatnonzero(np.diff(piece, prepend=-1)).tolist()
    return [slice(start, stop) for start, stop in zip(first, [*first[1:], len(n_atoms)], strict=True)]


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """What `work` gives for each item, in the order of the items; a few are worked on at once, and few kept waiting.

    Raises:
        What `work` raises for the first item that fails.
    """
    n_threads = usable_cores()
    if n_threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) == 2 * n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
