"""What comes to be in its own time."""

import time
from collections.abc import Callable

import pytest


def eventually(
    condition: Callable[[], bool], seconds: float = 180.0, what: str | Callable[[], str] = "it did not come to be"
) -> None:
    """Wait until the condition holds, and fail, saying `what`, if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            pytest.fail(what if isinstance(what, str) else what())
        time.sleep(0.1)
