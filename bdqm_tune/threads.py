"""The cores that this process may use, and work on them that comes back in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Cores that this process was given, by the system or a scheduler, or OMP_NUM_THREADS of them where that is set."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(available, int(wanted)) if wanted.isdecimal() and int(wanted) > 0 else available


@contextmanager
def torch_threads(n_threads: int) -> Iterator[None]:
    """Let torch use this many threads in one operation."""
    import torch  # which light commands do not load

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], n_threads: int | None = None, ahead: int | None = None
) -> Iterator[Result]:
    """The results of `work` for each item, in the order of the items.

    Args:
        n_threads: None: as many as the process may use cores.
        ahead: items that are started before their result is requested, at most; None: two for each thread.

    Raises:
        What `work` raises for the first item that fails; no more are begun then.
    """
    n_threads = n_threads or usable_cores()
    ahead = ahead or 2 * n_threads
    pool = ThreadPoolExecutor(n_threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
