"""What identifies a split, and what makes two structures the same."""

import hashlib
from collections.abc import Mapping

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from bdqm_tune.errors import BadInput
from bdqm_tune.structures.read import Geometries, Structures

TOLERANCE = 1e-3  # Å


def digest(structures: Structures) -> str:
    """SHA-256 over geometries and labels, in order, as 64 hexadecimal digits."""
    total = hashlib.sha256()
    for i, atoms in enumerate(structures.atoms):
        total.update(geometry_key(atoms))
        total.update(_bytes(structures.energies[i]))
        if structures.forces is not None:
            total.update(_bytes(structures.forces[i]))
    return total.hexdigest()


def geometry_key(atoms: Atoms) -> bytes:
    """Hash of elements, positions, cell and periodicity, to the last bit; labels do not count."""
    key = hashlib.sha256()
    key.update(np.asarray(atoms.numbers, dtype=np.int64).tobytes())
    key.update(_bytes(atoms.positions))
    key.update(_bytes(atoms.cell))
    key.update(np.asarray(atoms.pbc, dtype=bool).tobytes())
    return key.digest()


def same_geometry(one: Atoms, other: Atoms) -> bool:
    """Whether atoms and their order are the same, and positions and cell to `TOLERANCE`, as after rounding."""
    if not (np.array_equal(one.numbers, other.numbers) and np.array_equal(one.pbc, other.pbc)):
        return False
    lengths = ((a.positions, np.asarray(a.cell)) for a in (one, other))
    return all(bool((np.abs(mine - theirs) <= TOLERANCE).all()) for mine, theirs in zip(*lengths, strict=True))


def _bytes(values: ArrayLike) -> bytes:
    # Adding 0.0 turns -0.0 into 0.0.
    return (np.asarray(values, dtype=np.float64) + 0.0).tobytes()


def refuse_shared(splits: Mapping[str, Geometries]) -> None:
    """Raise BadInput, with the indices, if two of the named splits share a structure exactly."""
    seen: dict[bytes, tuple[str, int]] = {}
    shared = []
    for name, structures in splits.items():
        for atoms, image in zip(structures.atoms, structures.images.tolist(), strict=True):
            first = seen.setdefault(geometry_key(atoms), (name, image))
            if first[0] != name:
                shared.append(f"{first[0]} image {first[1]} = {name} image {image}")
    if shared:
        more = f" and {len(shared) - 10} more" if len(shared) > 10 else ""
        raise BadInput(
            f"the same structure in two splits: {', '.join(shared[:10])}{more}; "
            "remove the copies, the errors would look better than they are"
        )
