"""The model of `training_program.py`: as ASE's calculator, and as a command that reads and writes structures."""

import json
import sys
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes


class Linear(Calculator):
    implemented_properties = ["energy", "forces"]  # noqa: RUF012  (as ASE has it)

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.weights = json.loads((folder / "model.json").read_text())["weights"]

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        numbers = self.atoms.numbers
        energy = float(sum(w * (numbers == z).sum() for w, z in zip(self.weights, (29, 79), strict=True)))
        self.results = {"energy": energy, "forces": np.zeros((len(numbers), 3))}


if __name__ == "__main__":
    structures, predicted, out = sys.argv[1:]
    images = ase.io.read(structures, ":")
    for atoms in images:
        atoms.calc = Linear(Path(out))
        atoms.info["my_energy"], atoms.arrays["my_forces"] = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = None
    ase.io.write(predicted, images)
