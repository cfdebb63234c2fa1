"""Structures with their labels, from any file that ASE reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.data import chemical_symbols
from ase.io.formats import filetype, open_with_compression
from numpy.typing import NDArray

from bdqm_tune.errors import BadInput, located, one_line
from bdqm_tune.structures.xyz_frames import check_frames

HEAVIEST = 86  # Rn, the last element of the package's pseudo-densities
# Limits of the neighbour search, Å: coordinates, and the distance between periodic images.
FARTHEST, NEAREST_IMAGE = 1e6, 0.1
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
    """Structures with energies; forces where every structure has them."""

    source: str
    atoms: list[Atoms]
    energies: NDArray[np.float64]  # (n_structures,) eV, total
    forces: list[NDArray[np.float64]] | None  # each (n_atoms, 3), eV/Å
    images: NDArray[np.int64]

    def select(self, indices: Sequence[int] | NDArray[np.integer]) -> "Structures":
        """The structures at `indices`, in that order."""
        chosen = [int(i) for i in indices]
        return Structures(
            self.source,
            [self.atoms[i] for i in chosen],
            self.energies[chosen],
            None if self.forces is None else [self.forces[i] for i in chosen],
            self.images[chosen],
        )


def read_structures(path: str | Path) -> Structures:
    """Read all images of a file.

    Raises:
        BadInput: no such file, no format of ASE's, no image, or an image without a finite energy, without atoms,
            with positions, cell or forces that are not finite, or with an element beyond Rn.
    """
    return from_atoms(read_images(path), source=str(path))


def read_images(path: str | Path) -> list[Atoms]:
    """All images of a file, unchecked. Raises BadInput if ASE cannot read it."""
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
    try:
        kind = filetype(whole)
        if kind in ENDLESS:
            raise BadInput(f"{path}: {kind} has no energies and is not read; extended XYZ (.extxyz), for example, is")
        if kind == "extxyz":
            with located(str(path)), open_with_compression(whole, "r") as text:
                check_frames(text)
        images = ase.io.read(whole, index=":", format=kind, do_not_split_by_at_sign=True)
    except BadInput:
        raise
    except Exception as error:  # each of ASE's readers raises its own kinds
        raise BadInput(f"{path}: ASE cannot read it ({one_line(error)})") from None
    images = images if isinstance(images, list) else [images]
    if not all(isinstance(atoms, Atoms) for atoms in images):  # as some readers return if they find nothing
        raise BadInput(f"{path}: ASE finds no structures in it (as {kind})")
    return images


def from_atoms(images: Sequence[Atoms], source: str) -> Structures:
    """Check images that carry energies (and perhaps forces) and take the labels out of their calculators.

    Raises:
        BadInput: as `read_structures`.
    """
    if not images:
        raise BadInput(f"{source}: no structures in it")
    energies, forces = np.zeros(len(images)), []
    for i, atoms in enumerate(images):
        with located(f"{source}, image {i}"):
            check_geometry(atoms)
            energies[i] = _energy(atoms)
            forces.append(_forces(atoms))
    complete = [f for f in forces if f is not None]
    return Structures(
        source,
        [Atoms(a.numbers, a.positions, cell=a.cell, pbc=a.pbc) for a in images],
        energies,
        complete if len(complete) == len(images) else None,
        np.arange(len(images)),
    )


def check_geometry(atoms: Atoms) -> None:
    """Raise BadInput unless the structure has atoms of known elements at finite positions in a usable cell."""
    if len(atoms) == 0:
        raise BadInput("has no atoms")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(np.asarray(atoms.cell)).all()):
        raise BadInput("positions and cell must be finite")
    unknown = sorted({int(z) for z in atoms.numbers if not 1 <= z <= HEAVIEST})
    if unknown:
        names = ", ".join(chemical_symbols[z] if 0 <= z < len(chemical_symbols) else str(z) for z in unknown)
        raise BadInput(f"element {names} is not supported, only H to Rn are")
    if max(np.abs(atoms.positions).max(), np.abs(np.asarray(atoms.cell)).max()) > FARTHEST:
        raise BadInput(f"positions and cell must be within {FARTHEST:g} Å")
    periodic = np.asarray(atoms.cell)[atoms.pbc]
    if len(periodic) and np.linalg.matrix_rank(periodic) < len(periodic):
        raise BadInput("is periodic along a direction in which its cell has no extent")
    # Distances between its lattice planes: those of the reciprocal lattice, inverted.
    if len(periodic) and (nearest := 1 / np.linalg.norm(np.linalg.pinv(periodic), axis=0).max()) < NEAREST_IMAGE:
        raise BadInput(f"its periodic images are {nearest:.2g} Å apart, less than {NEAREST_IMAGE} Å; lengths are in Å")


def _energy(atoms: Atoms) -> float:
    if atoms.calc is None or "energy" not in getattr(atoms.calc, "results", {}):
        raise BadInput("has no energy; every image needs the total energy in eV of its calculation")
    try:
        # Without force_consistent=False some readers give the free energy instead of the one extrapolated to 0 K.
        energy = float(atoms.get_potential_energy(force_consistent=False))
    except PropertyNotImplementedError:
        raise BadInput("has changed since its energy was computed") from None
    if not np.isfinite(energy):
        raise BadInput(f"the energy must be finite, got {energy}")
    return energy


def _forces(atoms: Atoms) -> NDArray[np.float64] | None:
    try:
        # Constraints would set forces to zero; the labels are those of the calculation.
        forces = np.asarray(atoms.get_forces(apply_constraint=False), dtype=np.float64)
    except (PropertyNotImplementedError, RuntimeError):
        return None
    if not np.isfinite(forces).all():
        raise BadInput("forces must be finite")
    return forces
