"""Predictions for the structures of a file, which need no labels."""

from pathlib import Path

import ase.io
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.errors import BadInput, located
from bdqm_tune.experiment.evaluation import load_potential
from bdqm_tune.progress import track
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures.read import check_geometry, read_images


def predict_file(model: str, file: str, out: Path, stores: Stores) -> int:
    """Write the structures of `file` with predicted energies (eV) and forces (eV/Å) to `out`, as extended XYZ.

    Returns how many there are.

    Raises:
        BadInput: no such model or file, or a structure that cannot be described.
    """
    potential = load_potential(model, stores)
    images = read_images(file)
    for i, atoms in enumerate(images):
        with located(f"{file}, image {i}"):
            check_geometry(atoms)
    if not out.parent.is_dir():
        raise BadInput(f"{out}: there is no folder {out.parent}")
    for atoms in track(images, "Predictions", len(images)):
        (energy,), forces = potential.predict([atoms])
        assert forces is not None
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy), forces=forces[0])
    ase.io.write(out, images, format="extxyz")
    return len(images)
