"""Derivatives image by image: their sums are those of the atoms, and they give the derivatives by a strain."""

import numpy as np
import pytest
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.descriptors import Descriptor
from tests.descriptors.cases import CASES, assert_same, crystal, free


@pytest.fixture(params=CASES)
def descriptor(request: pytest.FixtureRequest) -> Descriptor:
    return CASES[request.param].descriptor


@pytest.mark.parametrize("pbc", [[True, True, True], [True, False, True], [False, False, False]])
def test_images_of_an_atom_add_up_to_the_atom(descriptor: Descriptor, pbc: list[bool]) -> None:
    atoms = crystal(np.random.default_rng(1), pbc)
    features, summed = descriptor.sparse_derivatives(atoms)
    same, images = descriptor.sparse_derivatives(atoms, images=True)
    np.testing.assert_array_equal(same, features)
    assert (np.diff(images.centre) >= 0).all()
    dense = np.zeros((len(atoms), len(atoms), *summed.values.shape[1:]))
    np.add.at(dense, (images.centre, images.atom), images.values)
    expected = summed.dense(len(atoms)).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(dense, expected, rtol=1e-9, atol=1e-10 * np.abs(expected).max())


def test_vectors_lead_from_the_centre_to_images_of_the_atom(descriptor: Descriptor) -> None:
    atoms = crystal(np.random.default_rng(2))
    _, images = descriptor.sparse_derivatives(atoms, images=True)
    assert images.vector is not None
    shift = images.vector - (atoms.positions[images.atom] - atoms.positions[images.centre])
    cells = np.linalg.solve(np.asarray(atoms.cell).T, shift.T)
    np.testing.assert_allclose(cells, np.round(cells), atol=1e-9)
    assert len(np.unique(np.column_stack([images.centre, images.atom, np.round(cells.T)]), axis=0)) == len(cells.T)


def strained(atoms: Atoms, strain: NDArray[np.float64]) -> Atoms:
    copy = atoms.copy()
    copy.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + strain))
    copy.positions = atoms.positions @ (np.eye(3) + strain)
    return copy


@pytest.mark.parametrize("periodic", [False, True])
def test_derivatives_by_a_strain_are_those_of_finite_differences(descriptor: Descriptor, periodic: bool) -> None:
    random = np.random.default_rng(3)
    atoms = crystal(random) if periodic else free(random)
    features, images = descriptor.sparse_derivatives(atoms, images=True)
    strain, step = random.normal(size=(3, 3)), 1e-5
    assert images.vector is not None
    by_strain = np.zeros(features.shape)
    np.add.at(by_strain, images.centre, np.einsum("efa,eb,ba->ef", images.values, images.vector, strain))
    ahead, behind = (descriptor.compute(strained(atoms, sign * step * strain)) for sign in (1, -1))
    difference = (ahead - behind) / (2 * step)
    np.testing.assert_allclose(by_strain, difference, rtol=1e-5, atol=1e-6 * np.abs(difference).max())
    assert_same(features, descriptor.compute(atoms))


def test_derivatives_by_the_strain_are_those_of_its_six_components(descriptor: Descriptor) -> None:
    random = np.random.default_rng(4)
    atoms = crystal(random)
    features, images = descriptor.sparse_derivatives(atoms, images=True)
    by_strain, step = images.features_by_strain(len(atoms)), 1e-5
    assert by_strain.shape == (*features.shape, 6)
    for component, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        strain = np.zeros((3, 3))
        strain[a, b] += 0.5
        strain[b, a] += 0.5
        ahead, behind = (descriptor.compute(strained(atoms, sign * step * strain)) for sign in (1, -1))
        difference = (ahead - behind) / (2 * step)
        scale = np.abs(difference).max()
        np.testing.assert_allclose(by_strain[:, :, component], difference, rtol=1e-5, atol=1e-6 * scale)
