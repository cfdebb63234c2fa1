"""Whether molecular dynamics at constant energy conserves it the better, the smaller its time step is.

python -m benchmarks.energy_conservation [--data ../shared/data] [--epochs 80] [--duration 150] [--abrupt]

A potential of each descriptor at its defaults is trained on copper (cells of EMT that are made here) and on water
(water_2d.traj, from the folder beside this repository). Velocity Verlet at 2, 1 and 0.5 fs then follows it from four
starts: copper at 900 K, where a shell of neighbours crosses the cutoff of 6 Å all the time, and a molecule of water at
30 K. The table has the largest less the smallest total energy, the mean over the starts. It falls as the square of the
time step, by 4 with each halving, where forces are the continuous derivative of the energy. `--abrupt` adds those that
may be without a smooth cutoff. Exit status 1 if one of the others falls by less than 3.

Water is cold for the sake of the longest step: its bonds vibrate with ω = 0.7/fs, and velocity Verlet is unstable
where ω times the step exceeds 2. At 2 fs that is 1.4 at rest, and more in a compressed bond: at 300 K it breaks.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ase.io
import numpy as np
import pandas as pd
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.verlet import VelocityVerlet

from bdqm_tune.backends import make_backend
from bdqm_tune.config.config import load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.calculator import make_calculator
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.learning.network_potential import NetworkPotential

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
DESCRIPTORS: dict[str, dict[str, Any]] = {
    "gmp": {},
    "gmp_groups": {"name": "gmp_groups"},
    "symmetry_functions": {"name": "symmetry_functions"},
}
ABRUPT = {f"{name}, abrupt": DESCRIPTORS[name] | {"smooth_cutoff": False} for name in ("gmp", "gmp_groups")}
STARTS = range(4)
STEPS = (2.0, 1.0, 0.5)  # fs
FALLS = 3.0  # with each halving, at least
OPTIONS = Hyperparameters(
    hidden_layers=[16, 16], activation="silu", batch_size=8, lr=0.01, scheduler="cosine", force_coefficient=0.3
)


def copper(n: int = 60) -> list[Atoms]:
    """Cells of eight atoms, strained, and rattled by a little or much, with energies and forces of EMT."""
    random, images = np.random.default_rng(5), []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True).repeat((2, 1, 1))
        atoms.set_cell(atoms.cell * random.uniform(0.97, 1.05), scale_atoms=True)
        atoms.positions += random.normal(scale=random.uniform(0.02, 0.2), size=atoms.positions.shape)
        images.append(_labelled(atoms, EMT()))
    return images


def water(file: Path) -> list[Atoms]:
    """The images of a file, each turned at random: `gmp_groups` depends on how a molecule lies in space."""
    random, images = np.random.default_rng(6), []
    for atoms in ase.io.read(file, ":"):
        turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
        turned = Atoms(atoms.numbers, (atoms.positions - atoms.positions.mean(axis=0)) @ turn)
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces() @ turn}
        turned.calc = SinglePointCalculator(turned, **results)
        images.append(turned)
    return images


def _labelled(atoms: Atoms, calculator: Calculator) -> Atoms:
    results = {"energy": calculator.get_potential_energy(atoms), "forces": calculator.get_forces(atoms)}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def hot_copper(seed: int = 0) -> Atoms:
    """Eight atoms at 900 K whose shell of neighbours at 6 Å crosses the default cutoff all the time."""
    atoms = bulk("Cu", cubic=True, a=3.795).repeat((2, 1, 1))
    return moving(atoms, 900, 0.03, seed)


def moving(atoms: Atoms, temperature: float, displacement: float, seed: int) -> Atoms:
    """A copy with atoms moved by that displacement or so, Å, and momenta drawn for that temperature, K."""
    moved, random = atoms.copy(), np.random.default_rng(seed)
    moved.positions += random.normal(scale=displacement, size=moved.positions.shape)
    scale = np.sqrt(moved.get_masses() * temperature * units.kB)[:, None]
    moved.set_momenta(random.normal(size=moved.positions.shape) * scale)
    return moved


def trained(images: Sequence[Atoms], descriptor: dict[str, Any], epochs: int, **options: Any) -> NetworkPotential:
    """A potential that is trained on these energies and forces.

    Args:
        options: hyperparameters, in the place of those of `OPTIONS`.
    """
    with TemporaryDirectory() as folder:
        train = Path(folder) / "train.traj"
        ase.io.write(train, images)
        training = {"epochs": epochs, "forces": True, "early_stopping": None}
        groups = {"data": {"train": str(train)}, "descriptor": descriptor, "training": training, "": {"device": "cpu"}}
        dataset = prepare(load_config(None, groups), Path(folder))
        run = make_backend(dataset.config, dataset).start(OPTIONS.model_copy(update=options), 0)
        for _ in run:
            pass
        return run.potential()


def spread(atoms: Atoms, step: float, duration: float) -> float:
    """Largest less smallest total energy, eV, of molecular dynamics at constant energy by velocity Verlet.

    Args:
        atoms: with momenta and a calculator; they stay where they are.
        step: fs.
        duration: fs.
    """
    moved, energies = atoms.copy(), []
    moved.calc = atoms.calc
    dynamics = VelocityVerlet(moved, step * units.fs)
    dynamics.attach(lambda: energies.append(moved.get_total_energy()))
    dynamics.run(round(duration / step))
    return float(np.ptp(energies))


def measure(
    name: str,
    images: Sequence[Atoms],
    starts: Sequence[Atoms],
    descriptors: dict[str, Any],
    epochs: int,
    duration: float,
) -> list[Any]:
    """A row of the table for each descriptor: the spreads, meV, and by what they fall with each halving."""
    rows = []
    for descriptor, given in descriptors.items():
        calculator = make_calculator(trained(images, given, epochs))
        for start in starts:
            start.calc = calculator
        spreads = [1e3 * np.mean([spread(start, step, duration) for start in starts]) for step in STEPS]
        rows.append([name, descriptor, *spreads, *(coarse / fine for coarse, fine in pairwise(spreads))])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder of water_2d.traj ({DATA})")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--duration", type=float, default=150.0, help="fs (150)")
    parser.add_argument("--abrupt", action="store_true", help="also without a smooth cutoff")
    options = parser.parse_args()
    how = DESCRIPTORS | (ABRUPT if options.abrupt else {}), options.epochs, options.duration
    rows = measure("copper", copper(), [hot_copper(seed) for seed in STARTS], *how)
    file = options.data / "water_2d.traj"
    if file.is_file():
        images = water(file)
        lowest = min(images, key=lambda atoms: atoms.get_potential_energy())
        rows += measure("water", images, [moving(lowest, 30, 0.005, seed) for seed in STARTS], *how)
    else:
        print(f"{file} is not there: copper only", file=sys.stderr)
    columns = ["", "descriptor", *(f"{step:g} fs (meV)" for step in STEPS), "falls by", "and by"]
    print(pd.DataFrame(rows, columns=columns).to_string(index=False, float_format="{:.4g}".format))
    return 0 if all(min(row[-2:]) >= FALLS for row in rows if row[1] in DESCRIPTORS) else 1


if __name__ == "__main__":
    sys.exit(main())
