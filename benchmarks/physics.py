"""What the potentials of `tune` at its defaults say of materials, beyond the errors on a test split.

python -m benchmarks.physics [--data ../shared/data] [--n-trials 20] [--seeds 1]

The model of a study's best trial, for molybdenum, silicon and water and each seed, is used as potentials are: elastic
constants, energies under strain, the formation of a vacancy, molecular dynamics of silicon at constant energy, and a
molecule of water. C11 and C44 are also fitted to the strained cells of the data, by the energies of DFT and of the
model alike; atoms are unrelaxed there, which makes C44 of silicon larger. The data have no uniform strain and no
relaxed vacancy: no DFT stands beside those. Nothing is chosen by these figures.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ase.io
import numpy as np
import pandas as pd
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.eos import EquationOfState
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from bdqm_tune.learning.calculator import make_calculator
from bdqm_tune.models.store import load_model
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.database_urls import sqlite_url
from benchmarks.accuracy import DATA, command
from benchmarks.energy_conservation import moving

LATTICES = {"Mo": ("bcc", 3.17), "Si": ("diamond", 5.47)}  # Å
TEMPERATURES = (300.0, 1200.0)  # K
STRAINS = np.linspace(-0.06, 0.06, 13)  # of the lattice constant
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Tune the potentials and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder of the data sets ({DATA})")
    parser.add_argument("--n-trials", type=int, default=20, help="of each study")
    parser.add_argument("--seeds", type=int, default=1, help="studies of each data set")
    options = parser.parse_args(arguments)
    tables: dict[str, list[Row]] = {}
    for seed in range(options.seeds):
        for title, row in measure(options.data.resolve(), options.n_trials, seed):
            tables.setdefault(title, []).append({"seed": seed, **row})
            print(f"seed {seed}: {title}: {row}", file=sys.stderr, flush=True)
    for title, rows in tables.items():
        print(f"{title}\n{pd.DataFrame(rows).to_string(index=False, float_format='{:.4g}'.format)}\n")
    return 0


def measure(data: Path, n_trials: int, seed: int) -> list[tuple[str, Row]]:
    """The rows of one seed, each with the title of its table."""
    rows: list[tuple[str, Row]] = []

    def timed(part: str, work: Callable[..., Any], *inputs: Any) -> Any:
        wall, cpu = time.perf_counter(), sum(os.times()[:4])
        result = work(*inputs)
        wall, cpu = time.perf_counter() - wall, sum(os.times()[:4]) - cpu
        rows.append(("Seconds", {"part": part, "wall": wall, "CPU": cpu}))
        return result

    for element, (structure, a) in LATTICES.items():
        files = {split: data / "mlearn" / f"{element}_{split}.xyz" for split in ("train", "test")}
        unit = bulk(element, structure, a, cubic=True)
        unit.calc = calculator = timed(f"{element}: tune", tuned, files["train"], n_trials, seed)
        unit, row = timed(f"{element}: elastic constants", elasticity, unit)
        rows.append(("Lattice constant (Å), bulk modulus and elastic constants (GPa)", {"element": element, **row}))
        cells = timed(f"{element}: strained cells", strained_cells, files, calculator)
        title = "Elastic constants from the energies of the data's strained cells (GPa)"
        rows += [(title, {"element": element, "by": by, **stiffness(cells, by)}) for by in ("DFT", "model")]
        title = "Energy of these cells above the unstrained one (meV/atom)"
        rows += [(title, {"element": element, **row}) for row in compared(cells)]
        crystal = unit.repeat(3 if element == "Mo" else 2)
        crystal.calc = calculator
        if element == "Mo":
            rows += [("Molybdenum under uniform strain", row) for row in uniform_strain(unit)]
            energy = timed("Mo: vacancy", vacancy_energy, crystal)
            images = [atoms for atoms in ase.io.read(files["test"], ":") if atoms.info["group"] == "Vacancy"]
            row = {f"formation energy, {len(crystal)} sites (eV)": energy, **errors(images, calculator)}
            rows.append(("Vacancy of molybdenum, and test structures with one", row))
        else:
            for temperature in TEMPERATURES:
                row = timed(f"Si: dynamics, {temperature:g} K", dynamics, crystal, temperature, 10_000, seed)
                rows.append((f"Silicon, {len(crystal)} atoms, 10 ps at constant energy by steps of 1 fs", row))
    rows.append(("Water", timed("water: tune and test", water, data / "water_2d.traj", n_trials, seed)))
    return rows


def tuned(train: Path, n_trials: int, seed: int) -> Calculator:
    """The model of the best trial of a study at its defaults, in an empty folder."""
    with TemporaryDirectory(prefix="physics-") as folder:
        seeds = {"data": {"validation": {"seed": 12 + seed}}, "study": {"seed": seed}}
        (Path(folder) / "seeds.yaml").write_text(json.dumps(seeds))
        options = ["--train", str(train), "--config", "seeds.yaml", "--n-trials", str(n_trials), "--json"]
        run_id = json.loads(command(folder, "tune", "--study", "physics", *options))["best_run_id"]
        stores = Stores(Path(folder), tracking=sqlite_url(Path(folder) / "mlflow.db"))
        return make_calculator(load_model(run_id, stores))


def deformed(atoms: Atoms, gradient: np.ndarray) -> Atoms:
    """A copy under this deformation gradient (3, 3), with the same calculator."""
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ gradient.T, scale_atoms=True)
    copy.calc = atoms.calc
    return copy


def elasticity(unit: Atoms) -> tuple[Atoms, Row]:
    """A cubic cell at its equilibrium lattice constant (Birch and Murnaghan, ±3 %); this and the elastic constants."""
    cells = [deformed(unit, (1 + strain) * np.eye(3)) for strain in STRAINS / 2]
    volume, _, modulus = EquationOfState(
        [cell.get_volume() for cell in cells], [cell.get_potential_energy() for cell in cells], "birchmurnaghan"
    ).fit()
    relaxed = deformed(unit, np.cbrt(volume / unit.get_volume()) * np.eye(3))
    constants = elastic_constants(relaxed)
    mean = (constants["C11"] + 2 * constants["C12"]) / 3
    return relaxed, {"a": np.cbrt(volume), "B": modulus / units.GPa, **constants, "(C11+2·C12)/3": mean}


def elastic_constants(unit: Atoms, strain: float = 0.005) -> dict[str, float]:
    """C11, C12 and C44 (GPa) of a cubic cell at rest: stresses at strains of both signs, with relaxed atoms."""

    def slopes(direction: np.ndarray) -> np.ndarray:  # (6,), GPa, in Voigt's order
        stresses = []
        for signed in (strain, -strain):
            cell = deformed(unit, np.eye(3) + signed * direction)
            BFGS(cell, logfile=None).run(fmax=1e-3, steps=200)
            stresses.append(cell.get_stress())
        return (stresses[0] - stresses[1]) / (2 * strain) / units.GPa

    uniaxial, shear = slopes(np.diag([1, 0, 0])), slopes(np.array([[0, 0, 0], [0, 0, 0.5], [0, 0.5, 0]]))
    return {"C11": float(uniaxial[0]), "C12": float(uniaxial[1]), "C44": float(shear[3])}


def uniform_strain(unit: Atoms) -> list[Row]:
    """Energies of a cubic cell at lattice constants about its own."""
    cells = [deformed(unit, (1 + strain) * np.eye(3)) for strain in STRAINS]
    energies = [(cell.get_potential_energy() - unit.get_potential_energy()) / len(unit) for cell in cells]
    points = zip(STRAINS, cells, energies, strict=True)
    return [{"strain, %": 100 * s, "a, Å": c.cell.lengths()[0], "meV/atom": 1e3 * energy} for s, c, energy in points]


def strained_cells(files: dict[str, Path], calculator: Calculator) -> pd.DataFrame:
    """Supercells of the group Elastic, one axis or one shear strained, the unstrained one among them.

    Columns: split, kind, strain (as engineers count it), energy by DFT and by the model above the unstrained cell
    (eV/atom), volume of that one (Å³/atom). A primitive cell is left out: its k-points are others.
    """
    images = [(split, atoms) for split, file in files.items() for atoms in ase.io.read(file, ":")]
    images = [(split, atoms) for split, atoms in images if atoms.info["group"] == "Elastic" and len(atoms) > 2]
    side = np.median([atoms.cell.lengths() for _, atoms in images])
    rest = min((atoms for _, atoms in images), key=lambda atoms: np.abs(atoms.cell.array - side * np.eye(3)).max())
    rows = []
    for split, atoms in images:
        gradient = np.linalg.solve(rest.cell.array, atoms.cell.array).T
        right_cauchy_green = gradient.T @ gradient
        stretches = np.sqrt(np.diag(right_cauchy_green)) - 1
        shears = right_cauchy_green[np.triu_indices(3, 1)]
        kind = "none" if atoms is rest else "shear" if np.abs(shears).max() > 1e-3 else "uniaxial"
        components = shears if kind == "shear" else stretches
        row = {"split": split, "kind": kind, "strain": components[np.abs(components).argmax()]}
        row["DFT"] = (atoms.get_potential_energy() - rest.get_potential_energy()) / len(atoms)
        above = calculator.get_potential_energy(atoms.copy()) - calculator.get_potential_energy(rest.copy())
        rows.append({**row, "model": above / len(atoms), "volume": rest.get_volume() / len(rest)})
    return pd.DataFrame(rows)


def stiffness(cells: pd.DataFrame, by: str) -> dict[str, float]:
    """C11 and C44 (GPa) of unrelaxed atoms: the curvature of a quartic through the energies by DFT or the model."""
    constants = {}
    for constant, kind in (("C11", "uniaxial"), ("C44", "shear")):
        chosen = cells[cells["kind"].isin([kind, "none"])]
        curvature = 2 * np.polyfit(chosen["strain"], chosen[by], 4)[-3]
        constants[constant] = float(curvature / chosen["volume"].iloc[0] / units.GPa)
    return constants


def compared(cells: pd.DataFrame) -> list[Row]:
    """Mean energies over the cells of a kind and size of strain, and over them all the mean absolute error by split."""
    strained = cells[cells["kind"] != "none"]
    cells = strained.assign(size=strained["strain"].abs().round(2), error=(strained["model"] - strained["DFT"]).abs())
    rows: list[Row] = []
    for columns in (["kind", "size"], ["split", "kind"]):
        for _, group in cells.groupby(columns):
            row = {"cells of": " ".join(str(group[column].iloc[0]) for column in columns), "number": len(group)}
            means = {by: 1e3 * group[by].mean() for by in ("DFT", "model")}
            rows.append({**row, **means, "MAE": 1e3 * group["error"].mean()})
    return rows


def vacancy_energy(crystal: Atoms) -> float:
    """Energy (eV) of a vacancy in a supercell of N atoms, relaxed in the cell as it is: E(N-1) - (N-1)/N·E(N)."""
    defect = crystal.copy()
    del defect[0]
    defect.calc = crystal.calc
    of_crystal = crystal.get_potential_energy()
    BFGS(defect, logfile=None).run(fmax=0.01, steps=500)
    return float(defect.get_potential_energy() - len(defect) / len(crystal) * of_crystal)


def dynamics(crystal: Atoms, temperature: float, steps: int, seed: int = 0, step: float = 1.0) -> Row:
    """Molecular dynamics at constant energy by velocity Verlet, from a crystal at rest.

    Momenta are drawn for twice the temperature, K, as half of it goes into the potential energy. The drift is the slope
    of a line through all total energies, times the duration. The mean temperature is that of the second half, and the
    smallest distance that of every tenth step.

    Args:
        step: fs.
    """
    atoms = moving(crystal, 2 * temperature, 0.0, seed)
    atoms.calc = crystal.calc
    Stationary(atoms)  # and so there are three degrees of freedom fewer than ASE counts
    freedom = 1 - 1 / len(atoms)
    atoms.set_momenta(atoms.get_momenta() * np.sqrt(2 * temperature * freedom / atoms.get_temperature()))
    verlet, pairs, samples = VelocityVerlet(atoms, step * units.fs), np.triu_indices(len(atoms), 1), []
    start = time.perf_counter()
    for _ in range(steps):
        verlet.run(1)
        displacement = np.linalg.norm(atoms.positions - crystal.positions, axis=1).max()
        distance = atoms.get_all_distances(mic=True)[pairs].min() if verlet.nsteps % 10 == 0 else np.inf
        samples.append((atoms.get_total_energy(), atoms.get_temperature() / freedom, displacement, distance))
    seconds = (time.perf_counter() - start) / steps
    energies, temperatures, displacements, distances = np.array(samples).T
    energies *= 1e3 / len(atoms)
    return {
        "started for, K": temperature,
        "mean T, K": temperatures[steps // 2 :].mean(),
        "drift, meV/atom": np.polyfit(np.arange(steps), energies, 1)[0] * steps,
        "largest less smallest, meV/atom": np.ptp(energies),
        "smallest distance, Å": distances.min(),
        "largest displacement, Å": displacements.max(),
        "s/step": seconds,
    }


def errors(images: Sequence[Atoms], calculator: Calculator) -> Row:
    """Mean absolute errors of the energies per atom and of the components of the forces."""
    copies = [atoms.copy() for atoms in images]
    energies = [
        calculator.get_potential_energy(c) - a.get_potential_energy() for c, a in zip(copies, images, strict=True)
    ]
    forces = [calculator.get_forces(c) - a.get_forces() for c, a in zip(copies, images, strict=True)]
    per_atom = 1e3 * np.mean([abs(energy) / len(atoms) for energy, atoms in zip(energies, images, strict=True)])
    return {"structures": len(images), "MAE, meV/atom": per_atom, "MAE, eV/Å": np.abs(np.concatenate(forces)).mean()}


def water(file: Path, n_trials: int, seed: int) -> Row:
    """Errors on every fifth structure, of a potential that is tuned on the others."""
    images = ase.io.read(file, ":")
    with TemporaryDirectory() as folder:
        train = Path(folder) / "train.traj"
        ase.io.write(train, [atoms for i, atoms in enumerate(images) if i % 5])
        row = errors(images[::5], tuned(train, n_trials, seed))
    return {**row, "MAE, meV/molecule": 3 * row["MAE, meV/atom"]}


if __name__ == "__main__":
    sys.exit(main())
