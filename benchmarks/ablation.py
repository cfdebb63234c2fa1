"""What each default is worth: one training with it, and with one thing changed, on molybdenum and silicon.

python -m benchmarks.ablation [--data ../shared/data] [--only Mo Si] [--seeds 3] [--variants SUBSTRING]

Every row trains the configuration that a study tries first, with one option changed, with as many seeds, of the
validation split and the network alike. It states the mean errors of energies per atom and of forces on the validation
and on the test split, and the seconds of a training on one core. What is chosen is chosen by those of validation.
`docs/accuracy.md` has the table.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from bdqm_tune.backends import make_backend
from bdqm_tune.config.config import Config, load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.structures import Structures, read_structures
from benchmarks.accuracy import DATA

ELEMENTS = ("Mo", "Si")
Groups = Mapping[str, Mapping[str, Any]]
VARIANTS: dict[str, Groups] = {
    "the defaults": {},
    "features: standardised, not whitened": {"descriptor": {"scaling": "standardise"}},
    "features: logarithm, not whitened": {"descriptor": {"scaling": "log"}},
    "features: orders 0 to 3": {"descriptor": {"orders": [0, 1, 2, 3]}},
    "features: 8 widths from 0.1 to 2 Å": {"descriptor": {"sigmas": 8}},
    "features: least variance of an axis 0.01": {"descriptor": {"axis_floor": 0.01}},
    "features: no logarithm before whitening": {"descriptor": {"logarithm": False}},
    "features: symmetry functions": {"descriptor": {"name": "symmetry_functions"}},
    "forces: not trained": {"training": {"forces": False}},
    "weight of forces: 0.1 Å": {"search": {"force_coefficient": 0.1}},
    "weight of forces: 10 Å": {"search": {"force_coefficient": 10.0}},
    "loss: mean square": {"training": {"loss": "mse"}},
    "loss: Huber's": {"training": {"loss": "huber"}},
    "loss: total energies": {"training": {"energy_loss": "total"}, "search": {"force_coefficient": 50.0}},
    "weights: the same to the end": {"training": {"energy_stage": 1.0}},
    "kept: the one best epoch": {"training": {"smoothing": 1}},
    "kept: best by energies alone": {"target": {"objective": "val_energy_mae_per_atom"}},
    "optimizer: AdamW": {"search": {"optimizer": "adamw"}},
    "schedule: steps": {"search": {"scheduler": "step"}},
    "batches of 32": {"search": {"batch_size": 32}},
    "one layer of 16 nodes": {"search": {"num_layers": 1, "num_nodes": 16}},
    "activation: tanh": {"search": {"activation": "tanh"}},
    "activation: gelu": {"search": {"activation": "gelu"}},
    "double precision": {"training": {"precision": "float64"}},
    "300 epochs": {"training": {"epochs": 300}},
    "held out: 5 %": {"data": {"validation": {"fraction": 0.05}}},
    "held out: 20 %": {"data": {"validation": {"fraction": 0.2}}},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is wanted and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--only", nargs="+", choices=ELEMENTS, default=ELEMENTS, help="these elements")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each")
    parser.add_argument("--variants", default="", help="those whose names contain this")
    options = parser.parse_args(arguments)
    rows = []
    for name in (name for name in VARIANTS if options.variants in name):
        row: dict[str, Any] = {"changed": name}
        for element in options.only:
            files = options.data / "mlearn" / f"{element}_train.xyz", options.data / "mlearn" / f"{element}_test.xyz"
            measured = measure(*files, VARIANTS[name], options.seeds)
            row |= {f"{element}, {what}": value for what, value in measured.items()}
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))
    return 0


def measure(train: Path, test: Path, variant: Groups, seeds: int) -> dict[str, float]:
    """Errors of energies (meV/atom) and of forces (eV/Å), and the seconds of a training: means over the seeds."""
    found = []
    with TemporaryDirectory(prefix="ablation-") as home:
        for seed in range(seeds):
            dataset = prepare(configuration(train, variant, seed), Path(home))
            backend = make_backend(dataset.config, dataset)
            structures = read_structures(str(test), dataset.config.data)
            start = time.perf_counter()
            training = backend.start(Hyperparameters(**dataset.config.fixed), seed)
            for _ in training:
                pass
            seconds, best = time.perf_counter() - start, training.best
            assert best is not None
            validated = 1000 * best.val_energy_mae_per_atom, best.val_forces_mae
            found.append((*validated, *errors(training.potential().predict(structures.atoms), structures), seconds))
    names = ("val meV/atom", "val eV/Å", "meV/atom", "eV/Å", "s")
    return dict(zip(names, np.array(found, dtype=float).mean(axis=0).tolist(), strict=True))


def configuration(train: Path, variant: Groups, seed: int = 0) -> Config:
    """The configuration that a study tries first, with the changes of a variant; the seed is of the split."""
    first = Hyperparameters().model_dump(exclude={"hidden_layers"})
    groups = {**variant, "search": {**first, **variant.get("search", {})}}
    data = {"train": str(train), **variant.get("data", {})}
    data["validation"] = {"seed": 12 + seed, **data.get("validation", {})}
    return load_config(None, {**groups, "data": data, "": {"device": "cpu"}})


def errors(predicted: Any, structures: Structures) -> tuple[float, float]:
    """Errors of the energies, meV/atom, and of the components of the forces, eV/Å."""
    per_atom = np.abs(predicted.energies - structures.energies) / structures.n_atoms
    assert structures.forces is not None
    of_forces = np.abs(np.concatenate(predicted.forces) - np.concatenate(structures.forces))
    return 1000 * float(per_atom.mean()), float(of_forces.mean())


if __name__ == "__main__":
    sys.exit(main())
