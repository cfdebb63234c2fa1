"""What the stress in the loss is worth: errors of energies, forces and stress with it and without, on strained alloys.

python -m benchmarks.stress [--structures 200] [--seeds 3] [--weights 0.03 0.1 0.3 1 10]

The data are rattled cells of copper and gold of 4 to 32 atoms, strained by a few per cent along all six components,
with energies, forces and stress of effective medium theory (EMT); 200 more are for the test. Every row trains the
configuration that a study tries first, with as many seeds, and states the mean errors on the test structures and on the
validation split, by which the default weight was chosen, and the CPU seconds of preparing the data (features and
derivatives) and of a training. `docs/accuracy.md` has the table.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ase.io
import numpy as np
import pandas as pd
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.backends import make_backend
from bdqm_tune.config.config import load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.learning.network_potential import NetworkPotential

LATTICE = {"Cu": 3.61, "Au": 4.08}  # Å
STRAIN, DISPLACEMENT = 0.04, 0.1  # standard deviations, the latter in Å
REPEATS = ((1, 1, 1), (1, 1, 2), (1, 2, 2), (2, 2, 2))
N_TEST, TEST_SEED = 200, 1
WEIGHTS = [0.03, 0.1, 0.3, 1.0, 10.0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is wanted and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, default=200, help="to train and to validate on")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each row")
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS, help="stress_coefficient")
    options = parser.parse_args(arguments)
    test = alloys(N_TEST, TEST_SEED)
    with TemporaryDirectory(prefix="stress-") as folder:
        train = Path(folder) / "train.traj"
        ase.io.write(train, alloys(options.structures, seed=0))
        rows = []
        for weight in (None, *options.weights):
            rows.append(measure(train, test, weight, options.seeds))
            print(rows[-1], file=sys.stderr, flush=True)
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.4g}".format))
    return 0


def alloys(n: int, seed: int) -> list[Atoms]:
    """Structures with EMT energies, forces and stress."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True).repeat(REPEATS[random.integers(len(REPEATS))])
        gold = random.random(len(atoms)) < random.random()
        atoms.symbols[gold] = "Au"
        size = 1 + gold.mean() * (LATTICE["Au"] / LATTICE["Cu"] - 1)  # Vegard's rule
        strain = random.normal(scale=STRAIN, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (size * np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.positions += random.normal(scale=DISPLACEMENT, size=(len(atoms), 3))
        emt = EMT()
        results = {name: emt.get_property(name, atoms) for name in ("energy", "forces", "stress")}
        atoms.calc = SinglePointCalculator(atoms, **results)
        images.append(atoms)
    return images


def measure(train: Path, test: Sequence[Atoms], weight: float | None, seeds: int) -> dict[str, Any]:
    """The row of a weight of the stress; None: it is not trained."""
    first = Hyperparameters().model_dump(exclude={"hidden_layers"})
    search = first if weight is None else {**first, "stress_coefficient": weight}
    groups: dict[str, dict[str, Any]] = {
        "data": {"train": str(train)},
        "training": {"stress": weight is not None},
        "search": search,
        "": {"device": "cpu"},
    }
    found = []
    with TemporaryDirectory(prefix="stress-") as home:
        start = time.process_time()
        dataset = prepare(load_config(None, groups), Path(home))
        preparing = time.process_time() - start
        backend = make_backend(dataset.config, dataset)
        for seed in range(seeds):
            start = time.process_time()
            training = backend.start(Hyperparameters(**dataset.config.fixed), seed)
            for _ in training:
                pass
            seconds = time.process_time() - start
            best = training.best
            assert best is not None
            assert best.val_forces_mae is not None
            stress = np.nan if best.val_stress_mae is None else best.val_stress_mae / units.GPa
            held_out = 1000 * best.val_energy_mae_per_atom, best.val_forces_mae, stress
            found.append((*errors(training.potential(), test), *held_out, seconds))
    names = ("meV/atom", "eV/Å", "GPa", "validation: meV/atom", "eV/Å ", "GPa ", "CPU s")
    means = dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))
    ranges = {
        f"{name}, range": f"{low:.3g} to {high:.3g}"
        for name, low, high in zip(names[:3], np.min(found, axis=0), np.max(found, axis=0), strict=False)
    }
    return {
        "stress": "not trained" if weight is None else f"weight {weight:g}",
        **means,
        **ranges,
        "prepare, CPU s": preparing,
    }


def errors(potential: NetworkPotential, test: Sequence[Atoms]) -> tuple[float, float, float]:
    """Mean absolute errors: energies, meV/atom, and components of the forces, eV/Å, and of the stress, GPa."""
    predicted = potential.predict(list(test))
    assert predicted.forces is not None
    energies = [
        abs(energy - atoms.get_potential_energy()) / len(atoms)
        for energy, atoms in zip(predicted.energies, test, strict=True)
    ]
    forces = [found - atoms.get_forces() for found, atoms in zip(predicted.forces, test, strict=True)]
    stress = [potential.stress(atoms) - atoms.get_stress() for atoms in test]
    mean = (1000 * np.mean(energies), np.abs(np.concatenate(forces)).mean(), np.abs(stress).mean() / units.GPa)
    return float(mean[0]), float(mean[1]), float(mean[2])


if __name__ == "__main__":
    sys.exit(main())
