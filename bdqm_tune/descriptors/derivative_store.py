"""Cache of feature derivatives: computed once for a set of structures, then read from the disk."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.descriptors.base import Descriptor, SparseDerivatives
from bdqm_tune.descriptors.checksummed_file import checksummed, is_whole, read_array
from bdqm_tune.descriptors.compute_once import make_once
from bdqm_tune.descriptors.memmap_rows import RowFile
from bdqm_tune.descriptors.store import structures_key, writing
from bdqm_tune.errors import located
from bdqm_tune.progress import track
from bdqm_tune.structures import Structures
from bdqm_tune.threads import in_threads

FILES = ("centre", "atom", "values", "count")


@dataclass(frozen=True)
class StoredDerivatives:
    """Derivatives of the features of some structures: an entry for each pair of a centre and an atom near it.

    The entries of structure i are at `first[i]:first[i] + count[i]`, sorted by centre.
    """

    first: NDArray[np.int64]  # (n_structures,)
    count: NDArray[np.int64]  # (n_structures,)
    centre: NDArray[np.int64]  # (n_entries,) index in its structure of the atom whose features change
    atom: NDArray[np.int64]  # (n_entries,) index in its structure of the atom that is moved
    values: RowFile  # (n_entries, n_features, 3), 1/Å; or what `stored_strain_derivatives` gives

    def select(self, indices: NDArray[np.int64]) -> "StoredDerivatives":
        """The structures at `indices`, in that order; what is on the disk stays there."""
        return replace(self, first=self.first[indices], count=self.count[indices])


def stored_derivatives(structures: Structures, descriptor: Descriptor, folder: Path) -> StoredDerivatives:
    """Derivatives of all structures, read from the disk when they are used.

    Args:
        folder: the feature cache, which has a folder for every pair of structures and descriptor. A folder with a
            truncated or changed file is made again.

    Raises:
        BadInput: the descriptor refuses a structure; the message names the image.
        BdqmError: the files cannot be written, as on a full disk.
    """
    path = folder / f"{structures_key(structures.atoms, descriptor)}.derivatives"
    with writing(path):
        make_once(path, f"Derivatives of {structures.source}", lambda: _write(path, structures, descriptor), _is_whole)
    count = read_array(path / "count", np.int64)
    shape = (int(count.sum()), descriptor.n_features, 3)
    return StoredDerivatives(
        first=np.cumsum(count) - count,
        count=count,
        centre=read_array(path / "centre", np.int64),
        atom=read_array(path / "atom", np.int64),
        values=RowFile(path / "values", shape),
    )


def _is_whole(path: Path) -> bool:
    return all((path / name).exists() and is_whole(path / name) for name in FILES)


@contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """A folder to write in this block, beside its place; at its end it is moved to `path`, whole or not at all."""
    partial = path.with_suffix(f".{uuid4().hex}.partial")
    partial.mkdir()
    try:
        yield partial
        try:
            partial.rename(path)
        except OSError:
            if not path.exists():  # else another worker was first, with the same
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(path: Path, structures: Structures, descriptor: Descriptor) -> None:
    with (
        written_folder(path) as folder,
        checksummed(folder / "centre") as centre,
        checksummed(folder / "atom") as atom,
        checksummed(folder / "values") as values,
        checksummed(folder / "count") as count,  # the number of entries is known at the end only
    ):
        pairs = zip(structures.atoms, structures.images.tolist(), strict=True)
        results = in_threads(lambda pair: _compute(descriptor, *pair, structures.source), pairs)
        for derivatives in track(results, f"Derivatives of {structures.source}", total=len(structures)):
            centre.write(derivatives.centre.astype(np.int64))
            atom.write(derivatives.atom.astype(np.int64))
            values.write(derivatives.values.astype(np.float64))
            count.write(np.array([len(derivatives.centre)]))


def _compute(descriptor: Descriptor, atoms: Atoms, image: int, source: str) -> SparseDerivatives:
    with located(f"{source}, image {image}"):
        return descriptor.sparse_derivatives(atoms)[1]
