"""Milliseconds that a trial's epoch takes on one core: compiled epochs, torch's operations, and amptorch.

python -m benchmarks.training [--trials 64] [--epochs 10] [--study] [--data ../shared/data]

It reads the water and the OC20 structures from the folder beside this repository. amptorch's figures are of the same
run, in the same precision, where it is installed and can train the same; else there are none. `--study` also times a
whole study of 50 trials of 100 epochs, on all cores, and the memory of a worker that trains 16 at a time.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from bdqm_tune.backends import make_backend
from bdqm_tune.backends.native import DTYPES, pick_device
from bdqm_tune.config.config import load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.batches import split_tensors
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.learning.fit import Fit

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SIGMAS = [0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 1.75, 2.0]  # of narrower ones amptorch's features are not right
# 40 features, and without a smooth cutoff, which amptorch does not have.
GMP = {"orders": [0, 1, 2, 3, 4], "sigmas": SIGMAS, "cutoff": 6.0, "smooth_cutoff": False}
SMALL = Hyperparameters(num_layers=3, num_nodes=20, batch_size=16)


@dataclass(frozen=True)
class Work:
    """What is trained."""

    name: str
    file: str
    descriptor: dict[str, Any]
    forces: bool
    hyperparameters: Hyperparameters
    limit: float  # ms, what is aimed at


WORKS = [
    Work("water, 3×20 tanh, batch 16", "water_2d.traj", GMP, False, SMALL, 1.5),
    Work("… batch normalisation", "water_2d.traj", GMP, False, SMALL.model_copy(update={"batchnorm": True}), 1.5),
    Work("… and forces", "water_2d.traj", GMP, True, SMALL.model_copy(update={"batchnorm": True}), 8),
    Work(
        "OC20-300, 10×20 tanh, batch 32",
        "oc20_300_train.traj",
        {"sigmas": SIGMAS, "smooth_cutoff": False},
        False,
        Hyperparameters(num_layers=10, num_nodes=20, batch_size=32),
        20,
    ),
]


def milliseconds(trainings: list[Any], epochs: int) -> float:
    """Least mean time of an epoch over the trainings, which take turns, after one to warm up."""
    iterators = [iter(training) for training in trainings]
    times = []
    for _ in range(epochs + 1):
        start = time.perf_counter()
        for iterator in iterators:
            next(iterator)
        times.append((time.perf_counter() - start) / len(iterators) * 1e3)
    return min(times[1:])


def operations(work: Work, dataset: Dataset) -> float:
    """Floating point operations of the products of an epoch.

    In training, a layer's weights meet the values once forward, once backward, and once for their gradient; with
    forces also tangents, and what belongs to them backward, as learning/compiled/tangents.py does it. The first layer
    needs no product backward, except for forces.
    """
    widths = [dataset.descriptor.n_features, *work.hyperparameters.layers, 1]
    products = [2 * a * b for a, b in pairwise(widths)]
    train, validation = (len(split.features) for split in (dataset.train, dataset.validation))
    if work.forces:
        return train * (7 * sum(products) - 2 * products[0]) + validation * 2 * sum(products)
    return train * (3 * sum(products) - products[0]) + validation * sum(products)


def peak(dtype: str) -> float:
    """Operations a second of BLAS on one core, of products of large matrices, as measured now."""
    a = np.random.default_rng(0).normal(size=(1024, 1024)).astype(dtype)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return float(2 * 1024**3 / min(times))


def measure(work: Work, data: Path, home: Path, trials: int, epochs: int) -> dict[str, Any]:
    """A row of the table."""
    training = {"epochs": 1000, "early_stopping": None, "forces": work.forces}
    groups = {"data": {"train": str(data / work.file)}, "descriptor": work.descriptor, "training": training}
    config = load_config(None, groups | {"": {"device": "cpu"}})
    dataset = prepare(config, home)
    backend = make_backend(config, dataset)
    compiled = milliseconds([backend.start(work.hyperparameters, seed) for seed in range(trials)], epochs)
    train, validation = (
        split_tensors(dataset, split, pick_device("cpu"), DTYPES[config.training.precision], work.forces)
        for split in (dataset.train, dataset.validation)
    )
    options = work.hyperparameters, config.training, train, validation, dataset.scale, 0
    by_torch = milliseconds([Fit(*options, compiled=False)], epochs)
    row = {
        "work": work.name,
        "ms": compiled,
        "limit": work.limit,
        "torch": by_torch,
        "torch / ms": by_torch / compiled,
        "GFLOP/s": operations(work, dataset) / compiled / 1e6,
    }
    try:
        theirs = make_backend(config.updated({"": {"backend": "amptorch"}}), dataset)
    except BadInput as error:
        print(f"{work.name}: without amptorch: {error}", file=sys.stderr)
        return row
    row["amptorch"] = milliseconds([theirs.start(work.hyperparameters, 0)], epochs)
    row["amptorch / ms"] = row["amptorch"] / compiled
    return row


def study(data: Path, at_once: str) -> tuple[float, float]:
    """Seconds, and GiB of memory at most, of 50 trials of 100 epochs on OC20-300 with Hyperband: the whole command."""
    with TemporaryDirectory() as folder:
        options = f"--train {data / 'oc20_300_train.traj'} --n-trials 50 --epochs 100 --cohort {at_once}"
        options += " --set search=ampopt,training.forces=false"
        command = [sys.executable, "-m", "bdqm_tune", "tune", *options.split()]
        environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "MLFLOW_DISABLE_TELEMETRY": "true"}
        environ = {name: value for name, value in environ.items() if name not in ("BDQM_HOME", "BDQM_STORAGE")}
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True)
        seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def processor() -> str:
    """The processor's name."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=64, help="trained in turns (64)")
    parser.add_argument("--epochs", type=int, default=10, help="of which the fastest counts (10)")
    parser.add_argument("--study", action="store_true", help="a whole study as well")
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder of the structures ({DATA})")
    options = parser.parse_args()
    try:
        with TemporaryDirectory() as home, threadpool_limits(1):
            best = peak("float32")
            rows = [measure(work, options.data, Path(home), options.trials, options.epochs) for work in WORKS]
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    table = pd.DataFrame(rows)
    table["of the peak"] = [f"{share:.0%}" for share in table["GFLOP/s"] * 1e9 / best]
    print(f"{processor()}, one core; BLAS reaches {best / 1e9:.0f} GFLOP/s in single precision")
    print(f"ms: a trial's epoch in single precision, {options.trials} trials in turns; torch: by its operations, and")
    print("amptorch: through the backend, one trial, both in this run; amptorch where it is installed and can train it")
    print(table.to_string(index=False, float_format="{:.2f}".format, na_rep="–"))
    if options.study:
        seconds, _ = study(options.data, "auto")
        print(f"50 trials × 100 epochs on OC20-300, Hyperband, {os.cpu_count()} cores: {seconds:.0f} s (limit 60 s)")
        _, memory = study(options.data, "16")
        print(f"a worker that trains 16 at the same time: at most {memory:.2f} GiB (limit 1.5 GiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
