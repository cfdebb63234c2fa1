"""Memory and time of workers of one host that train on the same large features: one copy for all, or one each.

python -m benchmarks.shared_features [--gib 1] [--workers 1 4] [--epochs 5] [--folder .]

Prepares the slabs of `benchmarks.out_of_core`, and has so many processes load and train on them at the same time. Their
memory is the sum of their proportional set sizes after the last epoch: a page that n processes have in memory counts a
n-th for each. Then one process of each kind trains, one epoch of each in alternation. Only on Linux.
"""

import argparse
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
from ase.io.trajectory import Trajectory

from bdqm_tune.backends import make_backend
from bdqm_tune.config.config import Config, load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning import shared_memory
from bdqm_tune.learning.dataset import prepare
from benchmarks.out_of_core import DESCRIPTOR, GIB, N_FEATURES, slabs

KINDS = {"a copy each": math.inf, "one for all": shared_memory.WORTH_A_FILE}


def configuration(folder: Path) -> Config:
    training = {"epochs": 10**6, "early_stopping": None, "forces": False}
    groups = {"data": {"train": str(folder / "train.traj")}, "descriptor": DESCRIPTOR, "training": training}
    return load_config(None, groups | {"": {"device": "cpu", "memory": 64.0}})


def work(folder: Path, kind: str) -> None:
    """What a worker does: load, say how long that took; then an epoch for each line that it is given, with its time."""
    shared_memory.WORTH_A_FILE = KINDS[kind]  # type: ignore[assignment]
    config = configuration(folder)
    dataset = prepare(config, folder / "home")
    start = time.perf_counter()
    epochs = iter(make_backend(config, dataset).start(Hyperparameters(), seed=0))
    print(time.perf_counter() - start, flush=True)
    for _ in sys.stdin:
        print(next(epochs).epoch_seconds, flush=True)


class Worker:
    """A process that does `work`."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.shared_features", "--folder", str(folder), "--work", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def answer(self) -> float:
        """Seconds that the last thing took, once it is done."""
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())

    def request(self) -> None:
        """Let it train an epoch."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)

    @property
    def memory(self) -> int:
        """Bytes: its proportional set size."""
        return int(psutil.Process(self._process.pid).memory_full_info().pss)

    def end(self) -> None:
        """Wait for its end."""
        self._process.communicate()


def together(folder: Path, kind: str, n: int, epochs: int) -> tuple[float, list[int]]:
    """Seconds until the last of n workers had loaded, and the memory of each after some epochs."""
    workers = [Worker(folder, kind) for _ in range(n)]
    loaded = max(worker.answer() for worker in workers)
    for _ in range(epochs):
        for worker in workers:
            worker.request()
        for worker in workers:
            worker.answer()
    memory = [worker.memory for worker in workers]
    for worker in workers:
        worker.end()
    return loaded, memory


def alternately(folder: Path, epochs: int) -> dict[str, list[float]]:
    """Seconds of the epochs of each kind, after two to warm up."""
    workers, seconds = {kind: Worker(folder, kind) for kind in KINDS}, {kind: list[float]() for kind in KINDS}
    for worker in workers.values():
        worker.answer()
    for _ in range(epochs + 2):
        for kind, worker in workers.items():
            worker.request()
            seconds[kind].append(worker.answer())
    for worker in workers.values():
        worker.end()
    return {kind: found[2:] for kind, found in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0, help="size of the stored features (1)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(), help="where there is room for twice of it (here)")
    parser.add_argument("--work", choices=list(KINDS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.folder, options.work)
        return
    with TemporaryDirectory(prefix="shared-features-", dir=options.folder) as name:
        folder = Path(name).resolve()
        with Trajectory(folder / "train.traj", "w") as trajectory:
            for atoms in slabs(round(options.gib * GIB / (8 * N_FEATURES * 64))):
                trajectory.write(atoms)
        prepare(configuration(folder), folder / "home")
        print(f"{'':<14}{'workers':>8}{'loaded after':>14}{'memory of all':>16}{'of each':>11}")
        for kind in KINDS:
            for n in options.workers:
                loaded, memory = together(folder, kind, n, options.epochs)
                total = sum(memory) / GIB
                print(f"{kind:<14}{n:>8}{loaded:>12.1f} s{total:>12.2f} GiB{total / n:>7.2f} GiB", flush=True)
        for kind, seconds in alternately(folder, options.epochs).items():
            print(f"an epoch, {kind}: {min(seconds):.3f} s at least, {np.median(seconds):.3f} s in the middle")


if __name__ == "__main__":
    main()
