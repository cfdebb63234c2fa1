"""What identifies a split, and a geometry to the last bit."""

import hashlib

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from bdqm_tune.structures.read import Structures


def digest(structures: Structures) -> str:
    """SHA-256 over geometries and labels, in order, as 64 hexadecimal digits; the stress counts where it is a label."""
    total = hashlib.sha256()
    stresses = structures.stresses if structures.stress_counts else None
    for i, atoms in enumerate(structures.atoms):
        total.update(geometry_key(atoms))
        total.update(_bytes(structures.energies[i]))
        if structures.forces is not None:
            total.update(_bytes(structures.forces[i]))
        if stresses is not None:
            total.update(_bytes(stresses[i]))
    return total.hexdigest()


def geometry_key(atoms: Atoms) -> bytes:
    """Hash of elements, positions, cell and periodicity, to the last bit; labels do not count."""
    key = hashlib.sha256()
    key.update(np.asarray(atoms.numbers, dtype=np.int64).tobytes())
    key.update(_bytes(atoms.positions))
    key.update(_bytes(atoms.cell))
    key.update(np.asarray(atoms.pbc, dtype=bool).tobytes())
    return key.digest()


def _bytes(values: ArrayLike) -> bytes:
    # Adding 0.0 turns -0.0 into 0.0.
    return (np.asarray(values, dtype=np.float64) + 0.0).tobytes()
