"""Predictions for the structures of a file, which need no labels; where it has some, errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.config.config import Data
from bdqm_tune.errors import BadInput, located, shown
from bdqm_tune.learning.calculator import untrained_forces
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.extrapolation import far_outside
from bdqm_tune.learning.known_elements import check_elements
from bdqm_tune.learning.potential import Potential
from bdqm_tune.models.label_names import label_names
from bdqm_tune.models.reference_labels import (
    LABELS,
    NONE,
    Labels,
    keep_labels,
    label_errors,
    labels_of,
    name_of,
    other_labels,
)
from bdqm_tune.models.store import computed_in, load_model
from bdqm_tune.models.structure_files import file_format, write_structures
from bdqm_tune.progress import track
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures.contacts import check_contacts
from bdqm_tune.structures.labels import LABEL_FORMS, has_values, other_names, remove_labels
from bdqm_tune.structures.read import check_geometry, read_images
from bdqm_tune.structures.sealed import sealed_among

# What is said of a structure beside energy and forces: by an ensemble (eV; the coverage has no unit), and of its atoms;
# and how far outside the training split of a potential it is.
EXTRAPOLATION = "extrapolation"
COLUMNS = ("energy_std", "energy_low", "energy_high", "energy_coverage", EXTRAPOLATION)
ATOM_COLUMN = "forces_std"  # eV/Å
KINDS = {"energy": "an energy (eV)", "forces": "forces (eV/Å)", "stress": "a stress (eV/Å³) or virial (eV)"}
SEALED = (
    "sealed test structures, or copies of them: {} of {}; they are compared with nothing and written without labels: "
    "their errors are for `bdqm-tune evaluate`, which records that it shows them"
)


@dataclass(frozen=True)
class Predictions:
    """What was written."""

    structures: int
    out: str
    columns: tuple[str, ...]  # of every structure
    trained_on_forces: bool | None  # None: the model does not say
    note: str  # what to know about forces, errors and structures far from the training split; empty: nothing
    errors: dict[str, float] = field(default_factory=dict)  # of `label_errors`, where the file has labels
    compared_with: dict[str, str] = field(default_factory=dict)  # names of those labels: energy, forces, stress
    sealed: int = 0  # structures of a sealed test split, whose labels are not compared
    other_labels: list[str] = field(default_factory=list)  # a line for labels under names that were not read


def predict_file(
    model: str,
    file: str,
    out: Path,
    stores: Stores,
    *,
    precision: str | None = None,
    allow_unknown_elements: bool = False,
    min_covalent_ratio: float = Data().min_covalent_ratio,
    energy_key: str = "",
    forces_key: str = "",
    stress_key: str = "",
) -> Predictions:
    """Write the structures of `file` with predicted energies (eV) and forces (eV/Å) to `out`.

    The format is that of the name: extended XYZ or a trajectory. An ensemble adds its standard deviations, and the ends
    of its intervals where it is calibrated; a potential adds `extrapolation`, see `Scaler.outside`. Energies, forces,
    stress and so on that the file has stay beside the predictions, as REF_energy, …, or under names of their own; the
    stress is predicted (eV/Å³) where the file has one.
    Structures of a sealed test split, and copies of them, are written with their predictions alone, and are not
    compared.

    Args:
        precision: of the network, `float32` or `float64`; None: that of the training, of an ensemble float64.
        allow_unknown_elements: predict elements that the model was not trained on, and warn of them.
        min_covalent_ratio: least distance of two atoms over the sum of their covalent radii; 0: any.
        energy_key: name of the energy in the file; empty: that of the files that the model was trained on, where it is
            known, else `energy`. `forces_key` and `stress_key` likewise.

    Raises:
        BadInput: no such model or file, a structure that cannot be described, such an element, a label that is not in
            the file under the name that is given, or a name of another format.
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
    given = {"energy_key": energy_key, "forces_key": forces_key, "stress_key": stress_key}
    given = {key: name for key, name in given.items() if name}
    names = label_names(model, stores).model_copy(update=given)
    labels = [labels_of(atoms, names) for atoms in images]
    _check_given(file, images, labels, given)
    others = other_labels(images, labels, names, (*COLUMNS, ATOM_COLUMN))
    with_stress = [label.stress is not None for label in labels]
    sealed = sealed_among(stores.home, images) if any(map(has_values, images)) else np.zeros(len(images), dtype=bool)
    for i in np.flatnonzero(sealed).tolist():
        labels[i] = NONE
        remove_labels(images[i], {*LABELS, *(name_of(kind, names) for kind in LABEL_FORMS)})
    keep_labels(images)
    for (i, atoms), stress in zip(track(enumerate(images), "Predictions", len(images)), with_stress, strict=True):
        with located(f"{file}, image {i}"):
            _predict(found, atoms, stress, allow_unknown_elements)
    write_structures(out, images)
    columns = ("energy", "forces", *(name for name in (*COLUMNS, ATOM_COLUMN) if _has(images[0], name)))
    if any("stress" in atoms.calc.results for atoms in images):
        columns += ("stress",)
    n_sealed = int(sealed.sum())
    notes = [untrained_forces(found), SEALED.format(n_sealed, len(images)) if n_sealed else ""]
    outside = [atoms.info.get(EXTRAPOLATION) for atoms in images]
    notes.append(far_outside(outside, [f"{file}, image {i}" for i in range(len(images))]))
    errors = label_errors(labels, images)
    return Predictions(
        len(images),
        str(out),
        columns,
        found.trained_on_forces,
        "; ".join(filter(None, notes)),
        errors,
        {kind: name_of(kind, names) for kind in LABEL_FORMS if any(key.startswith(f"{kind}_") for key in errors)},
        n_sealed,
        others,
    )


def _check_given(file: str, images: Sequence[Atoms], labels: Sequence[Labels], given: Mapping[str, str]) -> None:
    """Raise BadInput where no structure has a label of a name that the user gives."""
    for key, name in given.items():
        kind = key.removesuffix("_key")
        if all(getattr(label, kind) is None for label in labels):
            there = ", ".join(dict.fromkeys(other for atoms in images for other in other_names(atoms, kind, name)))
            has = f"; it has {there}" if there else ""
            raise BadInput(f"{file}: no structure has {KINDS[kind]} under the name {shown(name)}{has} (--{kind}-key)")


def _predict(model: Potential | Ensemble, atoms: Atoms, stress: bool, allow_unknown_elements: bool) -> None:
    """Put predictions into the structure's calculator and, of an ensemble, its arrays."""
    for name in (*COLUMNS, ATOM_COLUMN):  # which another model may have written
        atoms.info.pop(name, None)
        atoms.arrays.pop(name, None)
    results = model.results(atoms, True, allow_unknown_elements)
    labels = ("energy", "forces", "stress") if stress else ("energy", "forces")
    atoms.calc = SinglePointCalculator(atoms, **{name: results[name] for name in labels if name in results})
    if "extrapolation" in results:
        atoms.info[EXTRAPOLATION] = results["extrapolation"]
    if not isinstance(model, Ensemble):
        return
    atoms.info["energy_std"] = results["energy_std"]
    atoms.arrays[ATOM_COLUMN] = results["forces_std"]
    if model.calibration is not None:
        low, high = results["energy_interval"].tolist()
        atoms.info |= {"energy_low": low, "energy_high": high, "energy_coverage": model.calibration.coverage}


def _has(atoms: Atoms, name: str) -> bool:
    return name in atoms.info or name in atoms.arrays
