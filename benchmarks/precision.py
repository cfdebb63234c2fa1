"""CPU milliseconds of an epoch in single and in double precision, in turns in one run: medians of three.

python -m benchmarks.precision [FILE] [--epochs 10] [--repeats 3]

Without a file: molybdenum, from the folder beside this repository. Trains the configuration that a study tries first,
with each activation, on energies and forces, on one thread; the first epoch, in which much is set up, does not count.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pandas as pd
from threadpoolctl import threadpool_limits

from bdqm_tune.backends import make_backend
from bdqm_tune.config.config import load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.learning.networks import ACTIVATIONS
from benchmarks.backend_speed import milliseconds
from benchmarks.training import DATA, processor

PRECISIONS = ("float32", "float64")


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=DATA / "mlearn" / "Mo_train.xyz", help="structures")
    parser.add_argument("--epochs", type=int, default=10, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each")
    options = parser.parse_args()
    training = {"epochs": options.epochs + 1, "early_stopping": None}
    config = load_config(None, {"data": {"train": str(options.file)}, "training": training, "": {"device": "cpu"}})
    rows = []
    with TemporaryDirectory() as home, threadpool_limits(1):
        dataset = prepare(config, Path(home))
        backends = {
            name: make_backend(config.updated({"training": {"precision": name}}), dataset) for name in PRECISIONS
        }
        for activation in ACTIVATIONS:
            tried = Hyperparameters(activation=activation)
            found: dict[str, list[float]] = {name: [] for name in PRECISIONS}
            for repeat in range(options.repeats):
                for name, backend in backends.items():
                    found[name].append(milliseconds(backend, repeat, options.epochs, tried))
            single, double = (median(found[name]) for name in PRECISIONS)
            rows.append(
                {"activation": activation, "single, ms": single, "double, ms": double, "ratio": double / single}
            )
            print(rows[-1], file=sys.stderr, flush=True)
    print(processor())
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.2f}".format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
