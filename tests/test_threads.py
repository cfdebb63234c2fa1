"""The cores of this process, and work on them: in order, bounded, and ended by the first failure."""

import os
import threading
import time
from collections.abc import Iterator

import pytest

from bdqm_tune import threads
from bdqm_tune.errors import BadInput
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


@pytest.fixture(params=[1, 4])
def n_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(threads, "usable_cores", lambda: request.param)
    return int(request.param)


def test_results_come_in_the_order_of_the_items(n_threads: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        return item * item

    assert list(threads.in_threads(work, range(50))) == [item * item for item in range(50)]


def test_as_many_are_worked_on_at_once_as_there_are_cores(n_threads: int) -> None:
    together = threading.Barrier(n_threads, timeout=10)
    assert len(list(threads.in_threads(lambda item: together.wait(), range(4 * n_threads)))) == 4 * n_threads


def test_few_items_are_taken_before_their_turn(n_threads: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    for done, _ in enumerate(threads.in_threads(lambda item: item, items())):
        assert len(taken) <= done + 2 * n_threads


def test_the_first_failure_is_raised_and_the_rest_left(n_threads: int) -> None:
    started = []

    def work(item: int) -> int:
        started.append(item)
        if item in (3, 4):
            raise BadInput(f"item {item}")
        return item

    done = []
    with pytest.raises(BadInput, match="item 3"):
        done.extend(threads.in_threads(work, range(1000)))
    assert len(started) < 100
