"""Cache of the features' derivatives by a strain of the structure: computed once, then read from the disk."""

from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.descriptors.base import Descriptor
from bdqm_tune.descriptors.checksummed_file import checksummed, is_whole
from bdqm_tune.descriptors.compute_once import make_once
from bdqm_tune.descriptors.derivative_store import StoredDerivatives, written_folder
from bdqm_tune.descriptors.memmap_rows import RowFile
from bdqm_tune.descriptors.store import structures_key, writing
from bdqm_tune.errors import located
from bdqm_tune.progress import track
from bdqm_tune.structures import Structures
from bdqm_tune.threads import in_threads

VALUES = "values"  # the file in the folder: a folder of its own keeps its copies in memory apart from the features'


def stored_strain_derivatives(structures: Structures, descriptor: Descriptor, folder: Path) -> StoredDerivatives:
    """Derivatives of the features by the strain of their structure, read from the disk when they are used.

    An entry is an atom, `centre` and `atom` alike; its values (n_features, 6), dimensionless, are those of
    `SparseDerivatives.features_by_strain`. Structures without a stress have no entries.

    Args:
        folder: the feature cache, as in `stored_derivatives`.

    Raises:
        BadInput: the descriptor refuses a structure; the message names the image.
        BdqmError: the files cannot be written, as on a full disk.
    """
    known = ~np.isnan(structures.stresses).any(axis=1)
    chosen = structures.select(np.flatnonzero(known))
    path = folder / f"{structures_key(chosen.atoms, descriptor)}.strain"
    what = f"Strain derivatives of {structures.source}"
    with writing(path):
        make_once(path, what, lambda: _write(path, what, chosen, descriptor), _is_whole)
    count = np.where(known, structures.n_atoms, 0)
    first = np.cumsum(count) - count
    atom = np.arange(count.sum()) - np.repeat(first, count)
    values = RowFile(path / VALUES, (len(atom), descriptor.n_features, 6))
    return StoredDerivatives(first=first, count=count, centre=atom, atom=atom, values=values)


def _is_whole(path: Path) -> bool:
    return (path / VALUES).exists() and is_whole(path / VALUES)


def _write(path: Path, what: str, structures: Structures, descriptor: Descriptor) -> None:
    with written_folder(path) as folder, checksummed(folder / VALUES) as values:
        pairs = zip(structures.atoms, structures.images.tolist(), strict=True)
        results = in_threads(lambda pair: _compute(descriptor, *pair, structures.source), pairs)
        for by_strain in track(results, what, total=len(structures)):
            values.write(by_strain)


def _compute(descriptor: Descriptor, atoms: Atoms, image: int, source: str) -> NDArray[np.float64]:
    with located(f"{source}, image {image}"):
        return descriptor.sparse_derivatives(atoms, images=True)[1].features_by_strain(len(atoms))
