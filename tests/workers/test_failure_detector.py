"""Of many workers each looks at the others only now and then, and together they still notice who is gone."""

from pathlib import Path

import pytest

from bdqm_tune.services.connection import Stores
from bdqm_tune.storage.database import opened
from bdqm_tune.workers.failure_detector import DEAD_AFTER, HEARTBEAT_SECONDS, FailureDetector
from bdqm_tune.workers.registry import LOST, RUNNING, Workers

STUDY = 1


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize(("n_workers", "share"), [(3, 1.0), (9, 1.0), (36, 0.5), (144, 0.25)])
def test_a_worker_looks_at_a_share_of_its_turns(
    n_workers: int, share: float, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(Stores(workdir)) as storage:
        workers = Workers(storage.backend.engine, storage.backend.patience, STUDY)
        for number in range(n_workers):
            workers.add(str(number), {})
        watch = FailureDetector(storage.backend, STUDY, lambda worker, why: None, lambda trial: None)
        watch.look()
        looks: list[str] = []
        monkeypatch.setattr(watch, "look", looks.append)
        for drawn in range(1000):
            monkeypatch.setattr("random.random", lambda drawn=drawn: drawn / 1000)
            watch.take_turn("me")
        assert looks == ["me"] * int(1000 * share)


def test_who_is_gone_is_noticed_by_a_worker_that_looks_seldom(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lost = Clock(), []
    with opened(Stores(workdir)) as storage:
        workers = Workers(storage.backend.engine, storage.backend.patience, STUDY)
        for number in range(100):
            workers.add(str(number), {})
        watch = FailureDetector(
            storage.backend, STUDY, lambda worker, why: lost.append(worker.name), lambda trial: None, clock
        )
        watch.look("0")
        monkeypatch.setattr("random.random", lambda: 1.0)
        for _ in range(9):
            clock.seconds += HEARTBEAT_SECONDS
            watch.take_turn("0")
        assert clock.seconds >= DEAD_AFTER
        assert len(workers.all(RUNNING)) == 100  # it did not look
        for number in range(99):
            workers.count(str(number))
        monkeypatch.setattr("random.random", lambda: 0.0)
        watch.take_turn("0")
        assert lost == [worker.name for worker in workers.all(LOST)] == ["99"]
