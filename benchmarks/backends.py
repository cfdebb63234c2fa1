"""The validation error that both backends reach with the same configuration, over several seeds.

python -m benchmarks.backends [FILE] [--seeds 10] [--epochs 100] [--forces]

Without a file: the water of amptorch's examples, from the folder beside this repository. It needs amptorch; README.md
says how to install it. The seeds give both backends the same first weights, and each its own order of the structures.
"""

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from bdqm_tune.backends import make_backend
from bdqm_tune.config.config import Config, load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import Dataset, prepare

WATER = Path(__file__).resolve().parents[2] / "shared" / "data" / "water_2d.traj"
# amptorch's reference configuration for it.
DESCRIPTOR = {"orders": [0, 1, 2, 3, 4], "sigmas": [0.4, 0.8, 1.2, 1.6, 2.0], "cutoff": 6.0, "smooth_cutoff": False}
OPTIONS = Hyperparameters(num_layers=3, num_nodes=20, activation="tanh", batch_size=16, lr=3e-3)


def configuration(file: Path, epochs: int, forces: bool) -> Config:
    """What both backends are given."""
    training = {"epochs": epochs, "early_stopping": None, "forces": forces}
    groups = {"data": {"train": str(file)}, "descriptor": DESCRIPTOR, "training": training, "": {"device": "cpu"}}
    return load_config(None, groups)


def errors(dataset: Dataset, seeds: Iterable[int]) -> pd.DataFrame:
    """One row for every backend and seed: the errors of the best epoch, eV and eV/Å, and the seconds of an epoch."""
    rows = []
    for name in ("native", "amptorch"):
        backend = make_backend(dataset.config.updated({"": {"backend": name}}), dataset)
        for seed in seeds:
            run, start = backend.start(OPTIONS, seed), time.perf_counter()
            epochs = sum(1 for _ in run)
            assert run.best is not None
            row = {"backend": name, "seed": seed, "val_energy_mae": run.best.val_energy_mae}
            if run.best.val_forces_mae is not None:
                row["val_forces_mae"] = run.best.val_forces_mae
            rows.append(row | {"epoch_seconds": (time.perf_counter() - start) / epochs})
    return pd.DataFrame(rows)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the seeds, and the standard error of the mean, for every backend."""
    return found.drop(columns="seed").groupby("backend", sort=False).agg(["mean", "std", "sem"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=WATER, help=f"structures ({WATER})")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--forces", action="store_true", help="train on forces as well")
    options = parser.parse_args()
    try:
        with TemporaryDirectory() as home:
            dataset = prepare(configuration(options.file, options.epochs, options.forces), Path(home))
            found = errors(dataset, range(options.seeds))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table(found).T.to_string(float_format="{:.4f}".format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
