"""What a file says of its structures before they are predicted: kept beside the predictions, and compared with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

# By ASE's names; of each atom or of the structure.
ATOM_LABELS = ("forces", "energies", "stresses", "charges", "magmoms")
LABELS = ("energy", "free_energy", "stress", *ATOM_LABELS)


@dataclass(frozen=True)
class Labels:
    """Reference values of a structure; None: the file has none, or one that is no finite number."""

    energy: float | None  # eV, total
    forces: NDArray[np.float64] | None  # (n_atoms, 3), eV/Å
    stress: NDArray[np.float64] | None  # (6,), eV/Å³: xx, yy, zz, yz, xz, xy


def labels_of(atoms: Atoms) -> Labels:
    """The energy, forces and stress that the file has of a structure."""
    energy = _values(atoms, "energy", ())
    stress = _values(atoms, "stress", (6,))
    if stress is None and (full := _values(atoms, "stress", (3, 3))) is not None:
        stress = full_3x3_to_voigt_6_stress(full)
    return Labels(None if energy is None else float(energy), _values(atoms, "forces", (len(atoms), 3)), stress)


def _values(atoms: Atoms, name: str, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    if atoms.calc is None:
        return None
    try:
        given = atoms.calc.get_property(name, atoms, allow_calculation=False)
        values = np.asarray(given, dtype=np.float64)
    except (PropertyNotImplementedError, TypeError, ValueError, AttributeError):
        return None
    return values if values.shape == shape and np.isfinite(values).all() else None


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
