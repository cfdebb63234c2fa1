"""What a file says of its structures before they are predicted: kept beside the predictions, and compared with them."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.config.config import Data
from bdqm_tune.errors import BadInput
from bdqm_tune.structures.labels import LABEL_FORMS, check_unchanged, energy_of, forces_of, other_names, stress_of

# By ASE's names; of each atom or of the structure.
ATOM_LABELS = ("forces", "energies", "stresses", "charges", "magmoms")
USUAL = Data()  # names of labels, those of ASE
LABELS = ("energy", "free_energy", "stress", *ATOM_LABELS)


@dataclass(frozen=True)
class Labels:
    """Reference values of a structure; None: the file has none, or one that is no finite number."""

    energy: float | None  # eV, total
    forces: NDArray[np.float64] | None  # (n_atoms, 3), eV/Å
    stress: NDArray[np.float64] | None  # (6,), eV/Å³: xx, yy, zz, yz, xz, xy


NONE = Labels(None, None, None)
Value = TypeVar("Value", float, NDArray[np.float64])


def labels_of(atoms: Atoms, names: Data = USUAL) -> Labels:
    """The energy, forces and stress that the file has of a structure, under the names that the options give."""
    try:
        check_unchanged(atoms)
    except BadInput:  # labels of another structure are none of this
        return NONE
    energy = _usable(energy_of, atoms, names.energy_key)
    return Labels(energy, _usable(forces_of, atoms, names.forces_key), _usable(stress_of, atoms, names.stress_key))


def _usable(read: Callable[[Atoms, str | None], Value | None], atoms: Atoms, key: str | None) -> Value | None:
    try:
        return read(atoms, key)
    except BadInput:
        return None


def name_of(kind: str, names: Data) -> str:
    """Under which name the labels of a kind are read: `energy`, `forces` or `stress`, or what the options say."""
    return getattr(names, f"{kind}_key") or kind


def other_labels(images: Sequence[Atoms], labels: Sequence[Labels], names: Data, made: Collection[str]) -> list[str]:
    """What to know of values that may be labels, under names that are not read; a line for each kind of them.

    Args:
        labels: those that were read.
        made: names that a model gives to what it predicts.
    """
    lines = []
    for kind in LABEL_FORMS:
        name = name_of(kind, names)
        has = any(getattr(given, kind) is not None for given in labels)
        ignored = {*made, "kinetic_energy", *(["free_energy"] if has else [])}
        others = list(dict.fromkeys(other for atoms in images for other in other_names(atoms, kind, name)))
        if others := [other for other in others if other not in ignored]:
            read = (
                f"{kind} is compared with {name}" if has else f"{kind} is compared with nothing, as there is no {name}"
            )
            lines.append(f"{read}; the file also has {', '.join(others)}: --{kind}-key NAME says which is meant")
    return lines


def keep_labels(images: Sequence[Atoms]) -> None:
    """Put what a file says of its structures under names of their own, REF_energy and so on, as MACE calls them.

    REF2_ and so on where the file has such names already. What the calculation gave besides goes there as well.
    """
    prefix = next(p for n in count(1) if not _is_taken(p := f"REF{n if n > 1 else ''}_", images))
    for atoms in images:
        values = {name: atoms.info.pop(name) for name in LABELS if name in atoms.info}
        rows = {name: atoms.arrays.pop(name) for name in LABELS if name in atoms.arrays}
        for name, value in getattr(atoms.calc, "results", {}).items():
            (rows if name in ATOM_LABELS and np.shape(value)[:1] == (len(atoms),) else values)[name] = value
        atoms.arrays.update({prefix + name: np.asarray(value) for name, value in rows.items()})
        for name, value in values.items():
            plain = np.asarray(value)
            if plain.dtype.kind in "fiubU":
                atoms.info[prefix + name] = plain if plain.ndim else plain.item()
        atoms.calc = None


def _is_taken(prefix: str, images: Sequence[Atoms]) -> bool:
    names = {name for atoms in images for name in (*atoms.info, *atoms.arrays)}
    return any(prefix + name in names for name in LABELS)


def label_errors(labels: Sequence[Labels], images: Sequence[Atoms]) -> dict[str, float]:
    """Mean absolute and root mean square errors of what was predicted, where the file has labels.

    Args:
        images: with predictions in their calculators.

    Returns:
        energy_mae_per_atom and energy_rmse_per_atom (eV/atom), forces_mae, forces_rmse (eV/Å, of components),
        stress_mae, stress_rmse (eV/Å³, of components), each where there are labels of it.
    """
    errors: dict[str, list[NDArray[np.float64]]] = {"energy": [], "forces": [], "stress": []}
    for given, atoms in zip(labels, images, strict=True):
        found = atoms.calc.results
        if given.energy is not None:
            errors["energy"].append(np.array([(found["energy"] - given.energy) / len(atoms)]))
        if given.forces is not None:
            errors["forces"].append((found["forces"] - given.forces).ravel())
        if given.stress is not None and "stress" in found:
            errors["stress"].append(found["stress"] - given.stress)
    metrics = {}
    for name, values in errors.items():
        if values:
            all_values, after = np.concatenate(values), "_per_atom" if name == "energy" else ""
            metrics[f"{name}_mae{after}"] = float(np.abs(all_values).mean())
            metrics[f"{name}_rmse{after}"] = float(np.sqrt((all_values**2).mean()))
    return metrics
