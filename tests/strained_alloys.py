"""Crystals with a stress: strained and rattled cells of copper and gold, by EMT."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator


def labelled(atoms: Atoms, stress: bool = True) -> Atoms:
    emt = EMT()
    names = ("energy", "forces", *(("stress",) if stress else ()))
    atoms.calc = SinglePointCalculator(atoms, **{name: emt.get_property(name, atoms) for name in names})
    return atoms


def strained_alloys(n: int, seed: int = 0, scale: float = 0.05) -> list[Atoms]:
    """Small strained and rattled cells of copper and gold with EMT energies, forces and stress."""
    random = np.random.default_rng(seed)
    images = []
    for i in range(n):
        atoms = bulk("Cu", cubic=True, a=3.8).repeat((1, 1, 1 + i % 2))
        atoms.symbols[random.random(len(atoms)) < 0.4] = "Au"
        strain = random.normal(scale=scale, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.positions += random.normal(scale=0.08, size=(len(atoms), 3))
        images.append(labelled(atoms))
    return images
