"""The cores of this process."""

import os

import pytest

from bdqm_tune.threads import usable_cores


@pytest.mark.parametrize(
    ("given", "expected"), [("", 4), ("2", 2), ("16", 4), ("0", 4), ("2,1", 2), ("many", 4), (None, 4)]
)
def test_they_are_those_that_it_was_given_and_not_more_than_openmp_may_use(
    given: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5, 6}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert usable_cores() == expected
