"""The sealed test split: structures that anyone may read, and their labels in a file that only `open_labels` reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import ase.io
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.errors import BdqmError
from bdqm_tune.files import written_whole
from bdqm_tune.structures.copies import geometry_groups
from bdqm_tune.structures.digest import digest
from bdqm_tune.structures.read import Geometries, Structures, read_images

FOLDER = "test"  # of BDQM_HOME, which is `home` below
LABELS = ".labels.npz"  # ends the name of a file
NO_FORCES = np.zeros((0, 3))


@dataclass(frozen=True)
class Unlabelled(Geometries):
    """Structures whose labels are sealed: energies, forces and, where it is one, the stress."""

    source: str
    atoms: list[Atoms]
    images: NDArray[np.int64]
    digest: str  # of geometries and labels: the name of their files


def without_labels(structures: Structures) -> Unlabelled:
    """The structures without their labels."""
    return Unlabelled(structures.source, structures.atoms, structures.images, digest(structures))


def seal(structures: Structures, home: Path) -> None:
    """Write the structures and, in a separate file that only its owner may read, their labels into `home`."""
    identity = digest(structures)
    if is_sealed(home, identity):
        return
    labels: dict[str, Any] = {
        "energies": structures.energies,
        "forces": np.concatenate(structures.forces or [NO_FORCES]),
    }
    if structures.stress_counts:
        labels["stress"] = structures.stresses
    _write(_geometries(home, identity), lambda file: ase.io.write(file, structures.atoms, format="traj"), 0o666)
    # Last, so that where the labels exist, the structures do.
    _write(_labels(home, identity), lambda file: np.savez(file, **labels), 0o600)


def is_sealed(home: Path, identity: str) -> bool:
    """Whether the labels of this digest are in `home`."""
    return _labels(home, identity).exists()


def read_sealed(home: Path, identity: str, source: str) -> Unlabelled:
    """The structures of this digest, without their labels.

    Raises:
        BadInput: the file is damaged.
    """
    images = read_images(_geometries(home, identity))
    return Unlabelled(source, images, np.arange(len(images)), identity)


def open_labels(sealed: Unlabelled, home: Path) -> Structures:
    """The structures with their labels; only for the evaluation, which records that it has read them.

    Raises:
        BdqmError: a file is missing, damaged or changed since it was sealed.
    """
    path = _labels(home, sealed.digest)
    try:
        with np.load(path) as labels:
            energies, forces = labels["energies"], labels["forces"]
            stress = list(labels["stress"]) if "stress" in labels else None
        ends = np.cumsum(sealed.n_atoms)[:-1]
        each = np.split(forces, ends) if len(forces) else None
        counts = stress is not None
        structures = Structures(
            sealed.source, sealed.atoms, energies, each, sealed.images, stress, stress_counts=counts
        )
        intact = len(energies) == len(sealed) and digest(structures) == sealed.digest
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):
        intact = False
    if not intact:
        raise BdqmError(
            f"{path}: this file, or that of the structures beside it, has changed since the study was made; its "
            f"digest is not {sealed.digest[:12]} any more"
        )
    return structures


def sealed_among(home: Path, structures: Sequence[Atoms]) -> NDArray[np.bool_]:
    """Which of some structures (n_structures,) are those of a test split that is sealed in `home`, or copies of them.

    A copy is one of the same geometry, as `copies.geometry_groups` has it, whatever its labels, its file, and the order
    of structures or atoms.

    Raises:
        BadInput: a sealed file is damaged.
    """
    kinds = {_composition(atoms) for atoms in structures}
    sealed = [
        atoms
        for labels in sorted((home / FOLDER).glob(f"*{LABELS}"))
        for atoms in read_images(_geometries(home, labels.name.removesuffix(LABELS)))
        if _composition(atoms) in kinds
    ]
    if not sealed:
        return np.zeros(len(structures), dtype=bool)
    groups = geometry_groups([*sealed, *structures])
    return np.isin(groups[len(sealed) :], groups[: len(sealed)])


def _composition(atoms: Atoms) -> tuple[tuple[int, int], ...]:
    """Elements and their proportions, which a repeated cell has as well."""
    numbers, counts = np.unique(atoms.numbers, return_counts=True)
    return tuple(zip(numbers.tolist(), (counts // np.gcd.reduce(counts)).tolist(), strict=True))


def remove_sealed(home: Path, identity: str) -> None:
    """Remove the structures of this digest and their labels, which no study needs any more."""
    for path in (_labels(home, identity), _geometries(home, identity)):
        path.unlink(missing_ok=True)


def _geometries(home: Path, identity: str) -> Path:
    return home / FOLDER / f"{identity}.traj"


def _labels(home: Path, identity: str) -> Path:
    return home / FOLDER / f"{identity}{LABELS}"


def _write(path: Path, write: Callable[[BinaryIO], object], mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path, mode) as file:
            write(file)
    except OSError as error:
        why = error.strerror or error
        raise BdqmError(f"{path}: cannot be written ({why}); BDQM_HOME names another folder") from None
