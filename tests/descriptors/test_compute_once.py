"""Features that several processes need at once are computed by one of them."""

import fcntl
import os
import queue
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from bdqm_tune.descriptors import compute_once
from bdqm_tune.descriptors.compute_once import make_once
from bdqm_tune.progress import interruptible
from tests.forked import Forked

# A worker that needs what there is of five structures, and writes a line if it computes that itself.
WORKER = """
import os, sys, time
from pathlib import Path
import numpy as np
from ase import Atoms
from bdqm_tune.descriptors import GMP, derivative_store, store
from bdqm_tune.structures import Structures

folder, kind, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
atoms = [Atoms(["Cu", "Cu"], [[0, 0, 0], [0, 0, 2 + 0.1 * i]]) for i in range(5)]
structures = Structures("given.traj", atoms, np.zeros(5), None, np.arange(5))

def counted(write):
    def call(path, *given):
        path.with_suffix(f".{os.getpid()}.begun.partial").touch()
        with (folder / "log").open("a") as log:
            log.write(f"{os.getpid()}\\n")
        time.sleep(seconds)
        write(path, *given)
        path.with_suffix(f".{os.getpid()}.begun.partial").unlink()
    return call

store._write, derivative_store._write = counted(store._write), counted(derivative_store._write)
descriptor = GMP([0, 1], [0.5, 1.0], 4.0)
if kind == "features":
    print(float(np.asarray(store.stored_features(structures, descriptor, folder / "store")).sum()))
else:
    print(int(derivative_store.stored_derivatives(structures, descriptor, folder / "store").count.sum()))
"""


def start(folder: Path, kind: str, seconds: float) -> Forked:
    return Forked(["-c", WORKER, folder, kind, str(seconds)], os.environ | {"OMP_NUM_THREADS": "1"})


def computed(folder: Path) -> list[str]:
    log = folder / "log"
    return log.read_text().split() if log.exists() else []


@pytest.mark.parametrize("kind", ["features", "derivatives"])
def test_of_several_processes_one_computes_and_the_others_wait(tmp_path: Path, kind: str) -> None:
    workers = [start(tmp_path, kind, 2.0) for _ in range(3)]
    ends = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], ends
    assert len({out for out, _ in ends}) == 1
    assert len(computed(tmp_path)) == 1
    said = [
        error
        for _, error in ends
        if f"{kind.capitalize()} of given.traj: another trial or worker computes them" in error
    ]
    assert said  # one that starts late may find all done
    (left,) = (tmp_path / "store").iterdir()
    assert left.suffix in (".npy", ".derivatives")


def test_a_process_that_is_killed_in_the_middle_holds_nobody_up(tmp_path: Path) -> None:
    killed = start(tmp_path, "features", 60.0)
    while not computed(tmp_path):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.05)
    waiting = start(tmp_path, "features", 0.0)
    assert "another trial or worker computes them; waiting" in waiting.stderr.readline()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    out, error = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, error
    assert float(out) > 0
    assert computed(tmp_path) == [str(killed.pid), str(waiting.pid)]
    (left,) = (tmp_path / "store").iterdir()  # neither the lock nor what the other had begun
    assert left.suffix == ".npy"


def test_threads_compute_one_after_the_other_and_can_be_told_to_end(tmp_path: Path) -> None:
    going, enough, over = threading.Event(), threading.Event(), threading.Event()
    ends: queue.SimpleQueue[str] = queue.SimpleQueue()

    def makes(path: Path) -> None:
        going.set()
        assert enough.wait(60)
        path.touch()

    def work(path: Path) -> None:
        try:
            with interruptible(over.is_set):
                make_once(path, "Features", lambda: makes(path))
            ends.put("done")
        except KeyboardInterrupt:
            ends.put("interrupted")

    names = ["first.npy", "first.npy", "other.npy"]  # the second waits for the first, the third for its turn
    threads = [threading.Thread(target=work, args=(tmp_path / name,)) for name in names]
    threads[0].start()
    assert going.wait(60)
    for thread in threads[1:]:
        thread.start()
    with pytest.raises(queue.Empty):
        ends.get(timeout=0.5)
    over.set()
    assert [ends.get(timeout=60), ends.get(timeout=60)] == ["interrupted"] * 2
    enough.set()
    assert ends.get(timeout=60) == "done"
    for thread in threads:
        thread.join(60)
    assert [path.name for path in tmp_path.iterdir()] == ["first.npy"]


def test_after_a_failure_the_next_one_tries(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key.npy"

    def fails() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        make_once(path, "Features", fails)
    assert not list(path.parent.iterdir())
    make_once(path, "Features", lambda: np.save(path, np.zeros(1)))
    make_once(path, "Features", fails)
    assert list(path.parent.iterdir()) == [path]


def test_without_locks_each_process_computes_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(compute_once.NO_LOCKS[0], "no locks here")

    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, no_locks)
    begun = tmp_path / "key.77.partial"
    begun.touch()
    make_once(tmp_path / "key.npy", "Features", (tmp_path / "key.npy").touch)
    assert (tmp_path / "key.npy").exists()
    assert begun.exists()  # by another process, perhaps
