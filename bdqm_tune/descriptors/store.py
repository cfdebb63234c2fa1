"""The feature store: features of a set of structures, computed once and memory-mapped afterwards."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from bdqm_tune.descriptors.base import Descriptor
from bdqm_tune.errors import located
from bdqm_tune.progress import track
from bdqm_tune.structures import Structures
from bdqm_tune.structures.digest import geometry_key


def stored_features(structures: Structures, descriptor: Descriptor, folder: Path) -> NDArray[np.float64]:
    """Features of all atoms, structure after structure: (total atoms, n_features), read-only from the disk.

    Args:
        folder: where the feature files lie; one is made for every pair of structures and descriptor.

    Raises:
        BadInput: the descriptor refuses a structure; the message names the image.
    """
    path = folder / f"{structures_key(structures.atoms, descriptor)}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, structures, descriptor)
    features: NDArray[np.float64] = np.load(path, mmap_mode="r")
    return features


def structures_key(atoms: list[Atoms], descriptor: Descriptor) -> str:
    """Identifies the features of these structures, as 64 hexadecimal digits."""
    key = hashlib.sha256(json.dumps(descriptor.settings, sort_keys=True).encode())
    for structure in atoms:
        key.update(geometry_key(structure))
    return key.hexdigest()


def _write(path: Path, structures: Structures, descriptor: Descriptor) -> None:
    # Written beside its place and moved there when whole, so that a reader never sees half a file.
    partial = path.with_suffix(f".{os.getpid()}.partial")
    shape = (int(structures.n_atoms.sum()), descriptor.n_features)
    try:
        features = open_memmap(partial, mode="w+", dtype=np.float64, shape=shape)
        start = 0
        pairs = zip(structures.atoms, structures.images.tolist(), strict=True)
        for atoms, image in track(pairs, f"Features of {structures.source}", total=len(structures)):
            with located(f"{structures.source}, image {image}"):
                features[start : start + len(atoms)] = descriptor.compute(atoms)
            start += len(atoms)
        features.flush()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
