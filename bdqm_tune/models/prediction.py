"""Predictions for the structures of a file, which need no labels; where it has some, errors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.config.config import Data
from bdqm_tune.errors import BadInput, located
from bdqm_tune.learning.calculator import untrained_forces
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.known_elements import check_elements
from bdqm_tune.learning.potential import Potential
from bdqm_tune.models.reference_labels import Labels, keep_labels, label_errors, labels_of
from bdqm_tune.models.store import computed_in, load_model
from bdqm_tune.models.structure_files import file_format, write_structures
from bdqm_tune.progress import track
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures.contacts import check_contacts
from bdqm_tune.structures.digest import digest
from bdqm_tune.structures.read import check_geometry, from_atoms, read_images
from bdqm_tune.structures.sealed import is_sealed

# What an ensemble says beside energy and forces: of a structure (eV; the coverage has no unit), and of its atoms.
COLUMNS = ("energy_std", "energy_low", "energy_high", "energy_coverage")
ATOM_COLUMN = "forces_std"  # eV/Å
SEALED = "these are sealed test structures: their errors are for `bdqm-tune evaluate`, which records that it shows them"


@dataclass(frozen=True)
class Predictions:
    """What was written."""

    structures: int
    out: str
    columns: tuple[str, ...]  # of every structure
    trained_on_forces: bool | None  # None: the model does not say
    note: str  # what to know about the forces, or about errors; empty: nothing
    errors: dict[str, float] = field(default_factory=dict)  # of `label_errors`, where the file has labels


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
    """Write the structures of `file` with predicted energies (eV) and forces (eV/Å) to `out`.

    The format is that of the name: extended XYZ or a trajectory. An ensemble adds its standard deviations, and the ends
    of its intervals where it is calibrated. Energies, forces, stress and so on that the file has stay beside the
    predictions, as REF_energy, …; the stress is predicted (eV/Å³) where the file has one. Of a file that is a sealed
    test split no errors are given.

    Args:
        precision: of the network, `float32` or `float64`; None: that of the training, of an ensemble float64.
        allow_unknown_elements: predict elements that the model was not trained on, and warn of them.
        min_covalent_ratio: least distance of two atoms over the sum of their covalent radii; 0: any.

    Raises:
        BadInput: no such model or file, a structure that cannot be described, such an element, or a name of another
            format.
        BdqmError: `out` cannot be written.
    """
    file_format(out)
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
    labels = [labels_of(atoms) for atoms in images]
    sealed = _is_sealed(images, labels, file, stores)
    keep_labels(images)
    for (i, atoms), given in zip(track(enumerate(images), "Predictions", len(images)), labels, strict=True):
        with located(f"{file}, image {i}"):
            _predict(found, atoms, given.stress is not None, allow_unknown_elements)
    write_structures(out, images)
    columns = ("energy", "forces", *(name for name in (*COLUMNS, ATOM_COLUMN) if _has(images[0], name)))
    if any("stress" in atoms.calc.results for atoms in images):
        columns += ("stress",)
    notes = [untrained_forces(found), SEALED if sealed else ""]
    errors = {} if sealed else label_errors(labels, images)
    return Predictions(len(images), str(out), columns, found.trained_on_forces, "; ".join(filter(None, notes)), errors)


def _is_sealed(images: Sequence[Atoms], labels: Sequence[Labels], file: str, stores: Stores) -> bool:
    """Whether the labels are those of a test split that lies in `BDQM_HOME`."""
    if any(given.energy is None for given in labels):  # of test structures all have one
        return False
    structures = from_atoms(images, file)
    return any(is_sealed(stores.home, digest(part)) for part in (structures, structures.with_some_forces()))


def _predict(model: Potential | Ensemble, atoms: Atoms, stress: bool, allow_unknown_elements: bool) -> None:
    """Put predictions into the structure's calculator and, of an ensemble, its arrays."""
    for name in (*COLUMNS, ATOM_COLUMN):  # which another model may have written
        atoms.info.pop(name, None)
        atoms.arrays.pop(name, None)
    more = {"stress": model.stress(atoms)} if stress and atoms.pbc.any() and atoms.cell.rank == 3 else {}
    if isinstance(model, Potential):
        (energy,), forces = model.predict([atoms], True, allow_unknown_elements)
        assert forces is not None
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy), forces=forces[0], **more)
        return
    results = model.results(atoms, True, allow_unknown_elements)
    atoms.calc = SinglePointCalculator(atoms, energy=results["energy"], forces=results["forces"], **more)
    atoms.info["energy_std"] = results["energy_std"]
    atoms.arrays[ATOM_COLUMN] = results["forces_std"]
    if model.calibration is not None:
        low, high = results["energy_interval"].tolist()
        atoms.info |= {"energy_low": low, "energy_high": high, "energy_coverage": model.calibration.coverage}


def _has(atoms: Atoms, name: str) -> bool:
    return name in atoms.info or name in atoms.arrays
