"""The laws that every descriptor keeps to."""

import json
import pickle  # nosec B403  (of what was just pickled here)
from collections.abc import Sequence

import numpy as np
from ase import Atoms

from bdqm_tune.descriptors import Descriptor, descriptor_from_settings
from bdqm_tune.testing.requirements import (
    difference,
    displaced,
    require,
    require_equal,
    rotation,
    strained,
    turned,
)


def check_descriptor(
    descriptor: Descriptor, structures: Sequence[Atoms], tolerance: float = 1e-6, step: float = 1e-3
) -> None:
    """Check that a descriptor keeps to its contract, on structures of elements that it knows.

    There is a row for each atom and a column for each feature, in float64. Features do not change with translation and
    rotation, and follow the order of the atoms. Derivatives by positions and by strain are those by differences; each
    pair of atoms has one entry, and each atom one with itself. A descriptor from `settings`, and one by pickle, gives
    the same features.

    Args:
        tolerance: of features and derivatives, by the largest of each structure.
        step: of the differences, Å, and of a strain.

    Raises:
        AssertionError: which law is broken, and by how much.
    """
    settings = descriptor.settings
    require(json.loads(json.dumps(settings)) == settings, f"settings are not plain JSON: {settings}")
    copies = {
        "from its settings": descriptor_from_settings(settings),
        "by pickle": pickle.loads(pickle.dumps(descriptor)),  # nosec B301
    }
    for how, copy in copies.items():
        require(copy.settings == settings, f"a copy {how} has other settings: {copy.settings}")
    for number, atoms in enumerate(structures):
        where = f"structure {number}, {atoms.get_chemical_formula()}"
        features = descriptor.compute(atoms)
        shape = (len(atoms), descriptor.n_features)
        require(features.shape == shape, f"{where}: features are {features.shape}, not {shape}")
        require(features.dtype == np.float64, f"{where}: features are {features.dtype}")
        for how, copy in copies.items():
            require_equal(copy.compute(atoms), features, 0.0, f"{where}: features of a copy {how}")
        _check_invariance(descriptor, atoms, tolerance, where)
        _check_derivatives(descriptor, atoms, tolerance, step, where)


def _check_invariance(descriptor: Descriptor, atoms: Atoms, tolerance: float, where: str) -> None:
    random, features = np.random.default_rng(0), descriptor.compute(atoms)
    scale = tolerance * max(1.0, float(np.abs(features).max()))
    moved, order = atoms.copy(), random.permutation(len(atoms))
    moved.positions += random.uniform(-10, 10, 3)
    require_equal(descriptor.compute(moved), features, scale, f"{where}: features after a translation")
    require_equal(
        descriptor.compute(turned(atoms, rotation(random))), features, scale, f"{where}: features after a rotation"
    )
    require_equal(descriptor.compute(atoms[order]), features[order], scale, f"{where}: features in another order")


def _check_derivatives(descriptor: Descriptor, atoms: Atoms, tolerance: float, step: float, where: str) -> None:
    features, sparse = descriptor.sparse_derivatives(atoms)
    pairs = set(zip(sparse.centre.tolist(), sparse.atom.tolist(), strict=True))
    require(len(pairs) == len(sparse.centre), f"{where}: a pair of atoms has more than one entry")
    require(all((i, i) in pairs for i in range(len(atoms))), f"{where}: an atom has no entry with itself")
    require(bool((np.diff(sparse.centre) >= 0).all()), f"{where}: centres are not in ascending order")
    scale = tolerance * max(1.0, float(np.abs(features).max()))
    require_equal(features, descriptor.compute(atoms), scale, f"{where}: features beside the derivatives")
    dense = sparse.dense(len(atoms))
    scale = tolerance * max(1.0, float(np.abs(dense).max()))
    for j in range(len(atoms)):
        for axis in range(3):
            by_differences = difference(
                lambda by, j=j, axis=axis: descriptor.compute(displaced(atoms, j, axis, by)),  # type: ignore[misc]
                step,
            )
            require_equal(dense[:, :, j, axis], by_differences, scale, f"{where}: derivatives by atom {j}, axis {axis}")
    _, of_images = descriptor.sparse_derivatives(atoms, images=True)
    require(of_images.vector is not None, f"{where}: no vectors to the images")
    if atoms.cell.volume > 0:
        by_strain = of_images.features_by_strain(len(atoms))
        for i, (a, b) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
            by_differences = difference(
                lambda by, a=a, b=b: descriptor.compute(strained(atoms, a, b, by)),  # type: ignore[misc]
                step,
            )
            scale = tolerance * max(1.0, float(np.abs(by_strain).max()))
            require_equal(by_strain[:, :, i], by_differences, scale, f"{where}: derivatives by strain {a}{b}")
