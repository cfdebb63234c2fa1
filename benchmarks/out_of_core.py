"""Memory and time that preparing and training take on features of a given size, against a limit.

python -m benchmarks.out_of_core [--gib 8] [--limit 4] [--epochs 3] [--precision float32] [--folder .]

Makes slabs of copper and gold with energies of a Morse potential, as many as have so many GiB of features (1000
symmetry functions an atom), and runs `bdqm-tune prepare` and `bdqm-tune tune` on them, each in a process of its own.
Everything lies in a folder that is removed in the end. Exit status 1 where a process took more than the limit.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import yaml
from ase import Atoms
from ase.build import fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory
from ase.neighborlist import primitive_neighbor_list

GIB = 2**30
N_FEATURES = 1000  # 25 widths by 20 distances, for each of two elements
DESCRIPTOR = {
    "name": "symmetry_functions",
    "cutoff": 3.2,
    "g2": {"etas": np.geomspace(0.05, 20.0, 25).tolist(), "rs": np.linspace(0.0, 3.0, 20).tolist()},
    "g4": None,
}
DEPTH, WIDTH, BOND = 0.34, 1.4, 2.7  # eV, 1/Å, Å: of the Morse potential


@dataclass(frozen=True)
class Phase:
    """What a process took."""

    name: str
    seconds: float
    peak: int  # bytes, resident


def slabs(n: int, seed: int = 0) -> Iterator[Atoms]:
    """Rattled slabs of 64 atoms with their energies."""
    random = np.random.default_rng(seed)
    ideal = fcc111("Cu", size=(4, 4, 4), a=3.75, vacuum=6.0)
    i, j, shift = primitive_neighbor_list("ijS", ideal.pbc, np.asarray(ideal.cell), ideal.positions, 3.2)
    for _ in range(n):
        atoms = ideal.copy()
        atoms.numbers[random.random(len(atoms)) < 0.3] = 79
        atoms.positions += random.normal(scale=0.1, size=(len(atoms), 3))
        distance = np.linalg.norm(atoms.positions[j] + shift @ np.asarray(atoms.cell) - atoms.positions[i], axis=1)
        gold = (atoms.numbers[i] == 79).astype(float) + (atoms.numbers[j] == 79)
        well = (1 - np.exp(-WIDTH * (distance - BOND - 0.1 * gold))) ** 2 - 1
        atoms.calc = SinglePointCalculator(atoms, energy=float(0.5 * DEPTH * well.sum()))
        yield atoms


def measure(name: str, command: list[str], folder: Path) -> Phase:
    """Run a command of bdqm-tune to its end.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "bdqm_tune", *command],
        cwd=folder,
        env={**os.environ, "BDQM_HOME": str(folder / "home"), "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), process.args)
    process.returncode = 0
    return Phase(name, time.perf_counter() - start, usage.ru_maxrss * 1024)


def run(gib: float, limit: float, epochs: int, precision: str, folder: Path) -> list[Phase]:
    """Prepare and train in the folder; prints what the commands do."""
    n = round(gib * GIB / (8 * N_FEATURES * 64))
    with Trajectory(folder / "train.traj", "w") as trajectory:
        for atoms in slabs(n):
            trajectory.write(atoms)
    config = {
        "data": {"train": "train.traj"},
        "descriptor": DESCRIPTOR,
        "training": {"epochs": epochs, "early_stopping": None, "precision": precision},
        "study": {"n_trials": 1},
        "memory": limit,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    phases = [
        measure("prepare", ["prepare", "--config", "config.yaml"], folder),
        measure("tune", ["tune", "--config", "config.yaml"], folder),
    ]
    (features,) = (folder / "home" / "features").glob("*.npy")
    (history,) = folder.glob("mlruns/**/history.csv")
    epoch = pd.read_csv(history)["epoch_seconds"].mean()
    print(f"\n{n} structures, {n * 64} atoms, {N_FEATURES} features each: {features.stat().st_size / GIB:.2f} GiB")
    print(f"an epoch took {epoch:.1f} s")
    return phases


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=8.0, help="size of the features (8)")
    parser.add_argument("--limit", type=float, default=4.0, help="resident memory to keep to, GiB (4)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--precision", choices=["float32", "float64"], default="float32")
    parser.add_argument("--folder", type=Path, default=Path(), help="where there is room for all of it (here)")
    options = parser.parse_args()
    free = shutil.disk_usage(options.folder).free / GIB
    if free < 2 * options.gib:
        print(f"error: {options.folder.resolve()}: {free:.1f} GiB are free; give a --folder on a larger disk")
        return 2
    with TemporaryDirectory(prefix="out-of-core-", dir=options.folder) as folder:
        phases = run(options.gib, options.limit, options.epochs, options.precision, Path(folder).resolve())
    print(f"{'':<10}{'seconds':>9}{'peak memory':>14}{'of the limit':>14}{'of the features':>17}")
    for phase in phases:
        peak = phase.peak / GIB
        ratios = f"{peak / options.limit:>14.2f}{peak / options.gib:>17.2f}"
        print(f"{phase.name:<10}{phase.seconds:>9.0f}{peak:>10.2f} GiB{ratios}")
    return 0 if all(phase.peak <= options.limit * GIB for phase in phases) else 1


if __name__ == "__main__":
    sys.exit(main())
