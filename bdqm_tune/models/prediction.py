"""Predictions for the structures of a file, which need no labels."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import ase.io
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.config.config import Data
from bdqm_tune.errors import BadInput, BdqmError, located
from bdqm_tune.files import write_whole
from bdqm_tune.learning.calculator import untrained_forces
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.known_elements import check_elements
from bdqm_tune.learning.potential import Potential
from bdqm_tune.models.store import computed_in, load_model
from bdqm_tune.progress import track
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures.contacts import check_contacts
from bdqm_tune.structures.read import check_geometry, read_images

# What an ensemble says beside energy and forces: of a structure (eV; the coverage has no unit), and of its atoms.
COLUMNS = ("energy_std", "energy_low", "energy_high", "energy_coverage")
ATOM_COLUMN = "forces_std"  # eV/Å
# What a file may hold of its structures already, as labels or by another model.
EARLIER = ("energy", "free_energy", "energies", "forces", "stress", "stresses", *COLUMNS, ATOM_COLUMN)


@dataclass(frozen=True)
class Predictions:
    """What was written."""

    structures: int
    out: str
    columns: tuple[str, ...]  # of every structure
    trained_on_forces: bool | None  # None: the model does not say
    note: str  # what to know about the forces; empty where they were trained


def predict_file(
    model: str,
    file: str,
    out: Path,
    stores: Stores,
    *,
    precision: str | None = None,
    allow_unknown_elements: bool = False,
    min_covalent_ratio: float = Data().min_covalent_ratio,
) -> Predictions:
    """Write the structures of `file` with predicted energies (eV) and forces (eV/Å) to `out`, as extended XYZ.

    An ensemble adds its standard deviations, and the ends of its intervals where it is calibrated.

    Args:
        precision: of the network, `float32` or `float64`; None: that of the training, of an ensemble float64.
        allow_unknown_elements: predict elements that the model was not trained on, and warn of them.
        min_covalent_ratio: least distance of two atoms over the sum of their covalent radii; 0: any.

    Raises:
        BadInput: no such model or file, a structure that cannot be described, or such an element.
        BdqmError: `out` cannot be written.
    """
    found = computed_in(load_model(model, stores), precision)
    images = read_images(file)
    if not images:
        raise BadInput(f"{file}: no structures in it")
    for i, atoms in enumerate(images):
        with located(f"{file}, image {i}"):
            check_geometry(atoms)
            check_contacts(atoms, min_covalent_ratio)
            if not allow_unknown_elements:
                check_elements(found.known_elements, [atoms], allow_unknown=False)
    if out.is_dir() or not out.parent.is_dir():
        problem = "is a folder, not a file" if out.is_dir() else f"there is no folder {out.parent}"
        raise BadInput(f"{out}: {problem}")
    for i, atoms in track(enumerate(images), "Predictions", len(images)):
        with located(f"{file}, image {i}"):
            _predict(found, atoms, allow_unknown_elements)
    try:
        with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
            made = Path(folder) / out.name  # whose suffix says whether it is compressed
            ase.io.write(made, images, format="extxyz")
            write_whole(out, made.read_bytes())
    except OSError as error:
        raise BdqmError(f"{out}: cannot be written ({error.strerror or error})") from None
    columns = ("energy", "forces", *(name for name in (*COLUMNS, ATOM_COLUMN) if _has(images[0], name)))
    return Predictions(len(images), str(out), columns, found.trained_on_forces, untrained_forces(found))


def _predict(model: Potential | Ensemble, atoms: Atoms, allow_unknown_elements: bool) -> None:
    """Replace the structure's labels with what is predicted."""
    for name in EARLIER:
        atoms.info.pop(name, None)
        atoms.arrays.pop(name, None)
    if isinstance(model, Potential):
        (energy,), forces = model.predict([atoms], True, allow_unknown_elements)
        assert forces is not None
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy), forces=forces[0])
        return
    results = model.results(atoms, True, allow_unknown_elements)
    atoms.calc = SinglePointCalculator(atoms, energy=results["energy"], forces=results["forces"])
    atoms.info["energy_std"] = results["energy_std"]
    atoms.arrays[ATOM_COLUMN] = results["forces_std"]
    if model.calibration is not None:
        low, high = results["energy_interval"].tolist()
        atoms.info |= {"energy_low": low, "energy_high": high, "energy_coverage": model.calibration.coverage}


def _has(atoms: Atoms, name: str) -> bool:
    return name in atoms.info or name in atoms.arrays
