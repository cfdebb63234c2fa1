"""CPU milliseconds of an epoch by both backends, in turns in one run and in the same precision: medians of three.

python -m benchmarks.backend_speed [FILE] [--epochs 5] [--repeats 3]

Without a file: the OC20 structures in the folder beside this repository. Both train one trial on one thread with the
default descriptor, but for its smooth cutoff, which amptorch does not have; 10 layers of 20 nodes, tanh, batches of 32.
The first epoch, in which much is set up, does not count. Times are of the CPU, for other work on a machine disturbs
those of a clock. It needs amptorch; README.md says how to install it.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from threadpoolctl import threadpool_limits

from bdqm_tune.backends import Backend, make_backend
from bdqm_tune.config.config import load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import prepare
from benchmarks.training import DATA, processor

OPTIONS = Hyperparameters(num_layers=10, num_nodes=20, activation="tanh", batch_size=32)


def milliseconds(backend: Backend, seed: int, epochs: int, hyperparameters: Hyperparameters = OPTIONS) -> float:
    """CPU milliseconds of an epoch, the mean of all but the first."""
    run = iter(backend.start(hyperparameters, seed))
    next(run)
    start = time.process_time()
    for _ in range(epochs):
        next(run)
    return (time.process_time() - start) / epochs * 1e3


def rows(file: Path, epochs: int, repeats: int) -> Iterator[dict[str, object]]:
    """One row for each precision, without and with forces."""
    for forces in (False, True):
        training = {"epochs": epochs + 1, "early_stopping": None, "forces": forces}
        groups = {"data": {"train": str(file)}, "training": training, "descriptor": {"smooth_cutoff": False}}
        config = load_config(None, {**groups, "": {"device": "cpu"}})
        with TemporaryDirectory() as home:
            try:
                dataset = prepare(config, Path(home))
            except BadInput as error:
                if not forces:
                    raise
                print(f"without forces only: {error}", file=sys.stderr)
                return
            for precision in ("float32", "float64"):
                found: dict[str, list[float]] = {"native": [], "amptorch": []}
                given = config.updated({"training": {"precision": precision}})
                backends = {name: make_backend(given.updated({"": {"backend": name}}), dataset) for name in found}
                for repeat in range(repeats):
                    for name, backend in backends.items():
                        found[name].append(milliseconds(backend, repeat, epochs))
                medians = {name: float(pd.Series(times).median()) for name, times in found.items()}
                yield {
                    "trained on": "energies and forces" if forces else "energies",
                    "precision": precision,
                    **{f"{name}, ms": value for name, value in medians.items()},
                    "ratio": medians["amptorch"] / medians["native"],
                    **{f"{name}, range": f"{min(times):.1f}–{max(times):.1f}" for name, times in found.items()},
                }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=DATA / "oc20_300_train.traj", help="structures")
    parser.add_argument("--epochs", type=int, default=5, help="of each repeat, after one that does not count (5)")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    try:
        with threadpool_limits(1):
            table = pd.DataFrame(rows(options.file, options.epochs, options.repeats))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{processor()}, one thread, {options.file.name}; CPU time of an epoch, medians of {options.repeats}")
    print(table.to_string(index=False, float_format="{:.1f}".format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
