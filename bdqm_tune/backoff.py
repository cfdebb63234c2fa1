"""Exponential back-off with jitter."""

import random
from collections.abc import Iterator


def pauses(first: float, longest: float) -> Iterator[float]:
    """Seconds to wait before each next attempt, for ever: they double from `first` to `longest`.

    Each is shortened at random, by half at most: many that failed at one moment do not all retry at one moment.
    """
    wait = first
    while True:
        yield wait * random.uniform(0.5, 1)
        wait = min(2 * wait, longest)
