"""Structures with their labels, from any file that ASE reads."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io.formats import filetype, open_with_compression
from numpy.typing import NDArray

from bdqm_tune.config.config import Data
from bdqm_tune.errors import BadInput, located, one_line
from bdqm_tune.structures.arrays import checked
from bdqm_tune.structures.contacts import check_contacts
from bdqm_tune.structures.labels import (
    LABEL_FORMS,
    check_others,
    check_unchanged,
    energy_of,
    forces_of,
    free_energy_gap,
    has_volume,
    stress_of,
    unread_labels,
)
from bdqm_tune.structures.sources import ALL, Given, find_sources, shown_source
from bdqm_tune.structures.xyz_frames import check_frames

HEAVIEST = 86  # Rn, the last element of the package's pseudo-densities
# Limits of the neighbour search, Å: coordinates, and the distance between periodic images.
FARTHEST, NEAREST_IMAGE = 1e6, 0.1
# Formats whose readers in ASE read some of the images without the others; of the others all are read first.
BY_INDEX = {"traj", "extxyz"}
DATABASES = {"db", "json"}
DEFAULTS = Data()
ENDLESS = {"cp2k-restart"}  # formats whose readers in ASE never return on a truncated file; none has energies


class Geometries:
    """The common part of labelled and unlabelled structures."""

    source: str  # what error messages call it: the file's name
    atoms: list[Atoms]
    images: NDArray[np.int64]  # (n_structures,) index of each in the source

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def elements(self) -> list[str]:
        """Symbols of the elements present, by atomic number."""
        return [chemical_symbols[z] for z in sorted({int(z) for a in self.atoms for z in a.numbers})]

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """Atoms of each structure, (n_structures,)."""
        return np.array([len(a) for a in self.atoms], dtype=np.int64)


@dataclass(frozen=True)
class Structures(Geometries):
    """Structures with energies; forces where every structure has them, or where those of some are to be used.

    The stress that the files have is a label only after `with_stress`.
    """

    source: str
    atoms: list[Atoms]
    energies: NDArray[np.float64]  # (n_structures,) eV, total
    forces: list[NDArray[np.float64]] | None  # each (n_atoms, 3), eV/Å; NaN where `with_some_forces` has none
    images: NDArray[np.int64]
    stress: list[NDArray[np.float64] | None] | None = None  # each (6,) in Voigt's order, eV/Å³; None: not read
    # What the source has beside them: names of values that may be labels and are not read, by the kind of label, and
    # by how much the free energy differs from the energy that was read, eV an atom at most.
    unread: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    free_energy_gap: float = 0.0
    some_forces: list[NDArray[np.float64]] | None = None  # where some have forces: the same, NaN for the others
    stress_counts: bool = False  # whether the stress is a label, as energies and forces are

    def with_some_forces(self) -> "Structures":
        """The same with the forces of those that have them; those of the others are NaN.

        Apart, as the digest of structures counts their forces: without them it stays what it was.
        """
        return replace(self, forces=self.forces or self.some_forces, some_forces=None)

    def with_stress(self) -> "Structures":
        """The same with their stress among the labels: the digest counts it, and the sealed test split has it.

        Apart, as studies of energies and forces are of files with a stress, too, and their digests stay what they were.
        """
        return replace(self, stress_counts=True)

    @property
    def stresses(self) -> NDArray[np.float64]:
        """Stress (n_structures, 6) in Voigt's order, eV/Å³; NaN where there is none, or no cell with a volume."""
        none = np.full(6, np.nan)
        given = self.stress or [None] * len(self)
        return np.array(
            [none if s is None or not has_volume(a) else s for a, s in zip(self.atoms, given, strict=True)]
        ).reshape(len(self), 6)

    @property
    def n_periodic(self) -> int:
        """How many are in a periodic cell with a volume, without which a stress is none."""
        return sum(map(has_volume, self.atoms))

    def without_stress(self) -> list[int]:
        """Images that have no stress, of those in a periodic cell with a volume."""
        missing = np.isnan(self.stresses).any(axis=1) & np.array([has_volume(atoms) for atoms in self.atoms])
        return [int(image) for image in self.images[missing]]

    def without_forces(self) -> list[int]:
        """Images that have no forces."""
        missing = np.array([np.isnan(forces).all() for forces in self._forces_or_nan()])
        return [int(image) for image in self.images[missing]]

    def _forces_or_nan(self) -> list[NDArray[np.float64]]:
        return self.forces or self.some_forces or [np.full((len(atoms), 3), np.nan) for atoms in self.atoms]

    def select(self, indices: Sequence[int] | NDArray[np.integer]) -> "Structures":
        """The structures at `indices`, in that order."""
        chosen = [int(i) for i in indices]
        return Structures(
            self.source,
            [self.atoms[i] for i in chosen],
            self.energies[chosen],
            None if self.forces is None else [self.forces[i] for i in chosen],
            self.images[chosen],
            None if self.stress is None else [self.stress[i] for i in chosen],
            self.unread,
            self.free_energy_gap,
            None if self.some_forces is None else [self.some_forces[i] for i in chosen],
            self.stress_counts,
        )

    def joined(self, other: "Structures", source: str) -> "Structures":
        """These structures and then the others; each keeps the number of its image."""
        complete = self.forces is not None and other.forces is not None
        some = [*self._forces_or_nan(), *other._forces_or_nan()]
        return Structures(
            source,
            self.atoms + other.atoms,
            np.concatenate([self.energies, other.energies]),
            some if complete else None,
            np.concatenate([self.images, other.images]),
            None if self.stress is None or other.stress is None else self.stress + other.stress,
            {kind: _united(self.unread.get(kind, ()), other.unread.get(kind, ())) for kind in LABEL_FORMS},
            max(self.free_energy_gap, other.free_energy_gap),
            None if complete or all(np.isnan(forces).all() for forces in some) else some,
            self.stress_counts,
        )


def read_structures(given: Given, options: Data = DEFAULTS) -> Structures:
    """Read the images of one or several files, which `find_sources` says how to name.

    The images of several files, or of a slice, are numbered in the order in which they are read.

    Args:
        options: the names of the labels, and how close atoms may be.

    Raises:
        BadInput: no such file, no format of ASE's, no image, an image twice, or an image without a finite energy,
            without atoms, with arrays of another shape or not finite, with atoms on top of each other, or with an
            element beyond Rn.
    """
    images, names = [], []
    seen: dict[str, set[int]] = {}
    for source in find_sources(given):
        found, numbers = _read(source.path, source.images)
        if not found:
            raise BadInput(f"{source.path}: no structures in it" + ("" if source.images == ALL else " at this index"))
        known = seen.setdefault(str(Path(source.path).resolve()), set())
        if twice := known.intersection(numbers):
            raise BadInput(f"{shown_source(given)}: names image {min(twice)} of {source.path} twice")
        known.update(numbers)
        images += found
        names += [f"{source.path}, image {number}" for number in numbers]
    return from_atoms(images, shown_source(given), options, names)


def read_images(path: str | Path) -> list[Atoms]:
    """All images of a file, unchecked. Raises BadInput if ASE cannot read it."""
    return _read(path, ALL)[0]


def _read(path: str | Path, which: slice) -> tuple[list[Atoms], range]:
    """Images of a file, unchecked, and their numbers in it."""
    try:
        if not Path(path).is_file():
            problem = (
                "is a folder, not a file" if Path(path).is_dir() else f"no such file (working directory {Path.cwd()})"
            )
            raise BadInput(f"{path}: {problem}")
    except OSError as error:  # a name that is too long for one, for example
        raise BadInput(f"{path}: {error.strerror}") from None
    # By its whole path, as ASE takes names that begin with mysql for databases; and an @ in it is no index.
    whole = str(Path(path).absolute())
    images: list[Atoms] = []
    kind = ""
    try:
        kind = filetype(whole)
        if kind in ENDLESS:
            raise BadInput(f"{path}: {kind} has no energies and is not read; extended XYZ (.extxyz), for example, is")
        if kind == "extxyz":
            with located(str(path)), open_with_compression(whole, "r") as text:
                check_frames(text)
        forwards = all(number is None or number >= 0 for number in (which.start, which.stop, which.step))
        some = which if forwards and kind in BY_INDEX else ALL
        reader = ase.io.iread(whole, index=some, format=kind, do_not_split_by_at_sign=True)
        for atoms in _rows(whole, kind) if kind in DATABASES else reader:
            images.append(atoms)
    except BadInput:
        raise
    except Exception as error:  # each of ASE's readers raises its own kinds
        image = f", image {len(images)}" if kind in BY_INDEX and images else ""
        raise BadInput(f"{path}{image}: ASE cannot read it ({one_line(error)})") from None
    if not all(isinstance(atoms, Atoms) for atoms in images):  # as some readers return if they find nothing
        raise BadInput(f"{path}: ASE finds no structures in it (as {kind})")
    if some == ALL:
        numbers = range(len(images))[which]
        return images[which], numbers
    first, step = some.start or 0, some.step or 1
    return images, range(first, first + step * len(images), step)


def _rows(path: str, kind: str) -> Iterator[Atoms]:
    """The structures of a database of ASE's, with the values of their rows, which `ase.io` leaves out."""
    with ase.db.connect(path, type=kind, serial=True) as database:
        for row in database.select():
            atoms = row.toatoms()
            atoms.info |= row.key_value_pairs
            yield atoms


def from_atoms(
    images: Sequence[Atoms], source: str, options: Data = DEFAULTS, names: Sequence[str] | None = None
) -> Structures:
    """Check images that carry energies (and perhaps forces) and take the labels out of their calculators.

    Args:
        names: what messages call the images; None: by their numbers in the source.

    Raises:
        BadInput: as `read_structures`.
    """
    if not images:
        raise BadInput(f"{source}: no structures in it")
    energies, forces, stress = np.zeros(len(images)), [], []
    unread: dict[str, tuple[str, ...]] = {}
    gap = 0.0
    for i, atoms in enumerate(images):
        with located(f"{source}, image {i}" if names is None else names[i]):
            check_geometry(atoms)
            check_unchanged(atoms)
            energies[i] = energy_of(atoms, options.energy_key)
            forces.append(forces_of(atoms, options.forces_key))
            stress.append(stress_of(atoms, options.stress_key))
            check_others(atoms)
            check_contacts(atoms, options.min_covalent_ratio)
            for kind, key, label in (
                ("energy", options.energy_key, energies[i]),
                ("forces", options.forces_key, forces[-1]),
                *([("stress", options.stress_key, stress[-1])] if has_volume(atoms) else []),
            ):
                unread[kind] = _united(unread.get(kind, ()), unread_labels(atoms, kind, key, label))
        if options.energy_key is None:
            gap = max(gap, free_energy_gap(atoms))
    complete = [f for f in forces if f is not None]
    some = [np.full((len(a), 3), np.nan) if f is None else f for a, f in zip(images, forces, strict=True)]
    return Structures(
        source,
        [Atoms(a.numbers, a.positions, cell=a.cell, pbc=a.pbc, info=_marks(a)) for a in images],
        energies,
        complete if len(complete) == len(images) else None,
        np.arange(len(images)),
        stress,
        unread,
        gap,
        some if 0 < len(complete) < len(images) else None,
    )


def _united(names: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*names, *more)))


def _marks(atoms: Atoms) -> dict[str, str]:
    """What a frame says of its kind: whether it is an isolated atom, for example."""
    return {name: str(atoms.info[name]) for name in ("config_type",) if name in atoms.info}


def check_geometry(atoms: Atoms) -> None:
    """Raise BadInput unless the structure has atoms of known elements at finite positions in a usable cell."""
    if len(atoms) == 0:
        raise BadInput("has no atoms")
    positions, cell, numbers = atoms.positions, np.asarray(atoms.cell), atoms.numbers
    if not _are_usual(positions, cell, numbers, len(atoms)):
        checked("positions", positions, len(atoms))
        checked("cell", cell, len(atoms))
        checked("atomic numbers", numbers, len(atoms))
        unknown = sorted({int(z) for z in numbers if not 1 <= z <= HEAVIEST})
        if unknown:
            names = ", ".join(chemical_symbols[z] if 0 <= z < len(chemical_symbols) else str(z) for z in unknown)
            raise BadInput(f"element {names} is not supported, only H to Rn are")
        if max(np.abs(positions).max(), np.abs(cell).max()) > FARTHEST:
            raise BadInput(f"positions and cell must be within {FARTHEST:g} Å")
    if atoms.pbc.any():
        nearest = _nearest_images(cell.tobytes(), atoms.pbc.tobytes())
        if nearest is None:
            raise BadInput("is periodic along a direction in which its cell has no extent")
        if nearest < NEAREST_IMAGE:
            raise BadInput(
                f"its periodic images are {nearest:.2g} Å apart, less than {NEAREST_IMAGE} Å; lengths are in Å"
            )


def _are_usual(positions: NDArray[Any], cell: NDArray[Any], numbers: NDArray[Any], n_atoms: int) -> bool:
    """Whether nothing is wrong with these, as far as it is seen at once: every step of a simulation is checked."""
    return bool(
        positions.dtype == cell.dtype == np.float64
        and numbers.dtype == np.int64
        and (positions.shape, cell.shape, numbers.shape) == ((n_atoms, 3), (3, 3), (n_atoms,))
        and positions.min() >= -FARTHEST
        and positions.max() <= FARTHEST
        and np.abs(cell).max() <= FARTHEST
        and numbers.min() >= 1
        and numbers.max() <= HEAVIEST
    )


@lru_cache(maxsize=16)  # a simulation has the same cell step after step, and this takes a tenth of a small step
def _nearest_images(cell: bytes, pbc: bytes) -> float | None:
    """Least distance of the lattice planes of a periodic cell, Å; None: it has no extent in a periodic direction."""
    periodic = np.frombuffer(cell).reshape(3, 3)[np.frombuffer(pbc, dtype=bool)]
    if np.linalg.matrix_rank(periodic) < len(periodic):
        return None
    # Distances between its lattice planes: those of the reciprocal lattice, inverted.
    return float(1 / np.linalg.norm(np.linalg.pinv(periodic), axis=0).max())
