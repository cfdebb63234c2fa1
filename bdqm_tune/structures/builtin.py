"""Built-in structures with energies and forces of effective medium theory (EMT), for trying everything out."""

from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc100, fcc111, molecule
from ase.calculators.emt import EMT
from ase.data import atomic_numbers, reference_states

from bdqm_tune.structures.read import Structures, from_atoms

METALS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")
ADSORBATES = ("none", "H", "O", "N", "C", "CO", "OH")
SITES = {"111": ("ontop", "bridge", "fcc", "hcp"), "100": ("ontop", "bridge", "hollow")}
HEIGHTS = {"H": 1.0, "O": 1.3, "N": 1.3, "C": 1.3, "CO": 1.8, "OH": 1.7}  # Å above the site
SIZES = {"train": 480, "test": 120}
LARGEST_FORCE = 20.0  # eV/Å; a draw in which two atoms collide is drawn again
SEEDS = {"train": 20261, "test": 20262}


@cache
def builtin_structures(split: Literal["train", "test"]) -> Structures:
    """480 structures to train on, or 120 others to test on; the same on every machine, in a few seconds.

    Rattled and strained fcc metals and binary alloys as bulk (one in four) and as slabs, bare or with an adsorbate.
    They come without a stress: that of a slab is by the volume of a cell that is mostly vacuum.
    """
    random = np.random.default_rng(SEEDS[split])
    images: list[Atoms] = []
    while len(images) < SIZES[split]:
        atoms = _draw(METALS[len(images) % len(METALS)], random)
        atoms.calc = EMT()
        if np.linalg.norm(atoms.get_forces(), axis=1).max() < LARGEST_FORCE:
            images.append(atoms)
    return replace(from_atoms(images, source="builtin" if split == "train" else "builtin test"), stress=None)


def _draw(metal: str, random: np.random.Generator) -> Atoms:
    atoms = _bulk(metal, random) if random.random() < 0.25 else _slab(metal, random)
    _alloy(atoms, metal, random)
    atoms.set_cell(atoms.cell * (1 + random.uniform(-0.03, 0.03)), scale_atoms=True)
    atoms.positions += random.normal(scale=random.uniform(0.02, 0.12), size=(len(atoms), 3))
    return atoms


def _bulk(metal: str, random: np.random.Generator) -> Atoms:
    return bulk(metal, cubic=True).repeat((int(random.integers(1, 3)), 2, 2))


def _slab(metal: str, random: np.random.Generator) -> Atoms:
    facet = str(random.choice(list(SITES)))
    build = {"111": fcc111, "100": fcc100}[facet]
    slab = build(metal, size=(2, 2, int(random.integers(2, 5))), vacuum=6.0)
    adsorbate = str(random.choice(ADSORBATES))
    if adsorbate != "none":
        species = molecule(adsorbate) if len(adsorbate) > 1 else Atoms(adsorbate)
        if adsorbate in ("CO", "OH"):
            # The anchor comes first and the other atom points away from the surface.
            anchor = "C" if adsorbate == "CO" else "O"
            species = species[np.argsort([s != anchor for s in species.get_chemical_symbols()])]
            length = species.get_distance(0, 1)
            species.positions = [[0, 0, 0], [0, 0, length]]
        add_adsorbate(slab, species, HEIGHTS[adsorbate] + random.uniform(-0.2, 0.5), str(random.choice(SITES[facet])))
    slab.pbc = True
    return slab


def _alloy(atoms: Atoms, metal: str, random: np.random.Generator) -> None:
    """In one structure of two, replace a random share of the metal by another and scale the cell by Vegard's rule."""
    if random.random() < 0.5:
        return
    second = str(random.choice(METALS))
    hosts = np.flatnonzero([s == metal for s in atoms.get_chemical_symbols()])
    replaced = hosts[random.random(len(hosts)) < random.uniform(0.1, 0.6)]
    atoms.symbols[replaced] = second
    share = len(replaced) / len(hosts)
    ratio = _lattice_constant(second) / _lattice_constant(metal)
    atoms.set_cell(atoms.cell * (1 + share * (ratio - 1)), scale_atoms=True)


def _lattice_constant(metal: str) -> float:
    return float(reference_states[atomic_numbers[metal]]["a"])
