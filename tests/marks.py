"""Which cases of a test `make test` runs, where the others prove the same of one more value."""

from collections.abc import Sequence
from typing import Any

import pytest


def few(now: Sequence[Any], later: Sequence[Any]) -> list[Any]:
    """The parameters of a test: those of `now` always, those of `later` with the tests of endurance."""
    return [*now, *(pytest.param(value, marks=pytest.mark.endurance) for value in later)]
