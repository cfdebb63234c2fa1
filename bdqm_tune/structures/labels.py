"""The labels of an image: its energy, forces and stress, under the names that a file gives them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from bdqm_tune.errors import BadInput
from bdqm_tune.structures.arrays import PER_ATOM, SHAPES, Shape, checked

MOST_NAMES = 12  # that a message lists
CHANGED = "has changed since its energy was computed"
NO_LABELS = ("numbers", "positions", "initial_magmoms", "initial_charges", "tags", "momenta", "masses")
CALCULATED = ("energies", "stresses", "stress", "forces")  # arrays of a calculation that are checked wherever they are

# Parts of names that say of a value that it is one of these labels, and the shapes that it then has.
LABEL_FORMS = {
    "energy": (("energy",), SHAPES["energy"]),
    "forces": (("force",), SHAPES["forces"]),
    "stress": (("stress", "virial"), SHAPES["stress"]),
}
NO_RIVALS = ("free_energy", "kinetic_energy")  # of the energy: with a warning of its own, and no potential energy


def energy_of(atoms: Atoms, key: str | None) -> float:
    """The total energy, eV, of the calculation.

    Args:
        key: its name; None: `energy`, which ASE's readers take from VASP as the one extrapolated to 0 K.

    Raises:
        BadInput: there is none, or it is not one finite number.
    """
    name = key or "energy"
    value = _find(atoms, name)
    if value is None:
        what = "energy" if key is None else f"{name}, which data.energy_key names"
        there = ", ".join(other_names(atoms, "energy", name)) or _names(atoms)
        has = f"; it has {there}: data.energy_key says which of them is the energy" if there else ""
        raise BadInput(f"has no {what}; every image needs the total energy in eV of its calculation{has}")
    return float(checked("energy", value, len(atoms), name))


def forces_of(atoms: Atoms, key: str | None) -> NDArray[np.float64] | None:
    """The forces (n_atoms, 3), eV/Å, of the calculation, whatever constraints there are; None where there are none.

    Raises:
        BadInput: they are of another shape, or not all finite.
    """
    name = key or "forces"
    value = _find(atoms, name)
    return None if value is None else checked("forces", value, len(atoms), name)


def stress_of(atoms: Atoms, key: str | None) -> NDArray[np.float64] | None:
    """The stress (6,), eV/Å³, in Voigt's order (xx, yy, zz, yz, xz, xy); None where there is none.

    The file may have six numbers in this order, a matrix (3, 3), or nine numbers, its rows one after the other, as ASE
    reads a comment line of extended XYZ. Of a matrix that is not symmetric the mean with its transpose is taken.

    Args:
        key: its name; None: `stress`. A name with `virial` in it is taken for the virial, eV: -stress × volume, as
            QUIP and MACE have it.

    Raises:
        BadInput: it is of another shape, not all finite, or a virial without a cell.
    """
    name = key or "stress"
    value = _find(atoms, name)
    if value is None:
        return None
    virial = "virial" in name.lower()
    array = checked("virial" if virial else "stress", value, len(atoms), name)
    array = array if array.shape == (6,) else full_3x3_to_voigt_6_stress(array.reshape(3, 3))
    if not virial:
        return array
    if atoms.cell.rank < 3:
        raise BadInput(f"has a virial ({name}) but no cell, whose volume makes a stress of it")
    return -array / atoms.get_volume()


READERS: dict[str, Callable[[Atoms, str | None], float | NDArray[np.float64] | None]] = {
    "energy": energy_of,
    "forces": forces_of,
    "stress": stress_of,
}


def has_volume(atoms: Atoms) -> bool:
    """Whether a structure is periodic in a cell with a volume, as a stress needs."""
    return bool(atoms.pbc.any()) and int(atoms.cell.rank) == 3


def check_others(atoms: Atoms) -> None:
    """Check the arrays of the calculation that are not learned. Raises BadInput as `checked` does."""
    results = _results(atoms)
    for name in CALCULATED:
        if name in results:
            checked(name, results[name], len(atoms))


def check_unchanged(atoms: Atoms) -> None:
    """Raise BadInput if the results of a file are of another structure than that beside them."""
    if isinstance(atoms.calc, SinglePointCalculator) and atoms.calc.check_state(atoms):
        raise BadInput(CHANGED)


def free_energy_gap(atoms: Atoms) -> float:
    """By how much the free energy differs from the energy, eV an atom; 0 where the image does not have both."""
    results = _results(atoms)
    try:
        return abs(float(results["free_energy"]) - float(results["energy"])) / len(atoms)
    except (KeyError, TypeError, ValueError):
        return 0.0


def unread_labels(atoms: Atoms, kind: str, key: str | None, label: float | NDArray[np.float64] | None) -> list[str]:
    """The names of values that may be a label of this kind, and are not read.

    Where there is a label, only those count that differ from it, and none once an option says which is meant. Forces
    that are missing may be any array of three numbers for each atom, whatever its name.

    Args:
        kind: `energy`, `forces` or `stress`.
        key: the name that the option gives; None: ASE's own is read.
        label: what was read; None: there is none under that name.
    """
    names = other_names(atoms, kind, key or kind)
    if label is None:
        return names or (_force_columns(atoms) if kind == "forces" else [])
    if key is not None:
        return []
    return [name for name in names if name not in NO_RIVALS and not _same(atoms, kind, name, label)]


def _same(atoms: Atoms, kind: str, name: str, label: float | NDArray[np.float64]) -> bool:
    """Whether the value of this name is the label that was read, to the digits that files have."""
    try:
        value = READERS[kind](atoms, name)
    except BadInput:  # of an image that changed since, for example: no label
        return True
    return value is None or bool(np.allclose(value, label, rtol=1e-5, atol=1e-5))


def _force_columns(atoms: Atoms) -> list[str]:
    """The names of arrays that may be forces under another name: three numbers for each atom."""
    return [
        name
        for name, array in atoms.arrays.items()
        if array.shape == (len(atoms), 3) and array.dtype.kind == "f" and name not in NO_LABELS
    ]


def remove_labels(atoms: Atoms, names: Collection[str] = ()) -> None:
    """Remove the calculation of a structure in place, and of its other values those that are, or may be, labels.

    Only text, truth values and whole numbers whose names say nothing of labels stay, as identifiers are.

    Args:
        names: of labels.
    """
    atoms.calc = None
    for values in (atoms.info, atoms.arrays):
        for name in [name for name in values if name not in NO_LABELS]:
            called = any(word in str(name).lower() for words, _ in LABEL_FORMS.values() for word in words)
            if called or name in names or (not isinstance(values[name], str) and _kind(values[name]) not in "biuUS"):
                del values[name]


def other_names(atoms: Atoms, kind: str, name: str) -> list[str]:
    """The names of values that may be the energy, the forces or the stress of a structure, other than `name`.

    They say so in their names, and have the shape of one.
    """
    words, shapes = LABEL_FORMS[kind]
    values = {**_results(atoms), **atoms.info, **atoms.arrays}
    return [
        str(key)
        for key, value in values.items()
        if key != name and any(word in str(key).lower() for word in words) and _is_label(value, shapes, len(atoms))
    ]


def _is_label(value: Any, shapes: Sequence[Shape], n_atoms: int) -> bool:
    if _kind(value) not in "iuf":
        return False
    shape = np.shape(value)
    right = any(shape == tuple(n_atoms if n == PER_ATOM else n for n in each) for each in shapes)
    return right and bool(np.isfinite(value).all())


def _kind(value: Any) -> str:
    """What NumPy takes a value for: b, i, u, f, U or S; O where it is nothing of these."""
    try:
        return np.asarray(value).dtype.kind
    except ValueError:  # rows of different lengths
        return "O"


def has_values(atoms: Atoms) -> bool:
    """Whether a structure has anything besides its geometry, as labels would be."""
    return bool(_results(atoms) or atoms.info or any(name not in NO_LABELS for name in atoms.arrays))


def _results(atoms: Atoms) -> Mapping[str, Any]:
    found = getattr(atoms.calc, "results", {})
    return found if isinstance(found, Mapping) else {}


def _find(atoms: Atoms, name: str) -> Any:
    """A value by its name: of the calculation, of the structure or of its atoms; None: there is none."""
    results = _results(atoms)
    if name in results:
        if isinstance(atoms.calc, SinglePointCalculator):  # of a file
            return results[name]
        try:
            if name == "energy":
                # Some calculators would give the free energy, and some constraints add a term of their own.
                return atoms.get_potential_energy(force_consistent=False, apply_constraint=False)
            if name == "forces":
                return atoms.get_forces(apply_constraint=False)
            value = atoms.calc.get_property(name, atoms, allow_calculation=False)
        except PropertyNotImplementedError:
            raise BadInput(CHANGED) from None
        if value is None:
            raise BadInput(CHANGED)
        return value
    return atoms.info.get(name, atoms.arrays.get(name))


def _names(atoms: Atoms) -> str:
    """What the image has beside its geometry, for a message."""
    names = [*_results(atoms), *atoms.info, *(name for name in atoms.arrays if name not in NO_LABELS[:2])]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(map(str, names[:MOST_NAMES])) + more
