"""Forces and derivatives by a strain, contracted in the loops over neighbours: those of all derivatives."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from bdqm_tune.descriptors import GMP, Descriptor
from tests.descriptors.cases import CASES, crystal, free, gmp

FLOORED = {"gmp, floor": gmp(smooth=False, orders=range(4), derivative_floor=0.3)}


@pytest.fixture(params=[*CASES, *FLOORED])
def descriptor(request: pytest.FixtureRequest) -> Descriptor:
    return (CASES | FLOORED)[request.param].descriptor


@pytest.mark.parametrize("pbc", [[True, True, True], [True, False, True], [False, False, False]])
@pytest.mark.parametrize("n_energies", [1, 3])
def test_they_are_those_of_the_derivatives_of_all_entries(
    descriptor: Descriptor, pbc: list[bool], n_energies: int
) -> None:
    random = np.random.default_rng(11)
    atoms = crystal(random, pbc)
    features, backward = descriptor.with_backward(atoms)
    np.testing.assert_array_equal(features, descriptor.compute(atoms))
    # Weighted so that all features count, whatever their size.
    by_features = random.normal(size=(n_energies, *features.shape)) / (np.abs(features).max(axis=0) + 1e-3)
    found = backward(by_features)
    _, summed = descriptor.sparse_derivatives(atoms)
    _, images = descriptor.sparse_derivatives(atoms, images=True)
    forces = np.stack([summed.forces(each) for each in by_features])
    by_strain = np.stack([images.by_strain(each) for each in by_features])
    assert found.forces.shape == (n_energies, len(atoms), 3)
    assert found.by_strain.shape == (n_energies, 3, 3)
    np.testing.assert_allclose(found.forces, forces, rtol=1e-9, atol=1e-11 * np.abs(forces).max())
    np.testing.assert_allclose(found.by_strain, by_strain, rtol=1e-9, atol=1e-11 * np.abs(by_strain).max())


def test_energies_do_not_influence_each_other(descriptor: Descriptor) -> None:
    random = np.random.default_rng(12)
    features, backward = descriptor.with_backward(crystal(random))
    by_features = random.normal(size=(2, *features.shape))
    together = backward(by_features)
    for k in range(2):
        alone = backward(by_features[k : k + 1])
        np.testing.assert_array_equal(alone.forces[0], together.forces[k])
        np.testing.assert_array_equal(alone.by_strain[0], together.by_strain[k])


def test_it_works_in_the_way_that_the_base_class_describes() -> None:
    """A descriptor that has only `sparse_derivatives` has forces, too."""
    descriptor, atoms = CASES["gmp"].descriptor, crystal(np.random.default_rng(13))
    by_features = np.random.default_rng(14).normal(size=(2, len(atoms), descriptor.n_features))
    features, backward = descriptor.with_backward(atoms)
    expected, other = Descriptor.with_backward(descriptor, atoms)
    np.testing.assert_array_equal(features, expected)
    for found, reference in zip(backward(by_features), other(by_features), strict=True):
        np.testing.assert_allclose(found, reference, rtol=1e-9, atol=1e-11 * np.abs(reference).max())


def test_a_floor_cuts_forces_but_not_the_derivative_by_a_strain() -> None:
    atoms = crystal(np.random.default_rng(15))
    exact, floored = gmp(smooth=False, orders=range(4)).descriptor, FLOORED["gmp, floor"].descriptor
    assert isinstance(floored, GMP)
    by_features = np.random.default_rng(16).normal(size=(1, len(atoms), exact.n_features))
    true, cut = exact.with_backward(atoms)[1](by_features), floored.with_backward(atoms)[1](by_features)
    np.testing.assert_array_equal(true.by_strain, cut.by_strain)
    assert np.abs(true.forces - cut.forces).max() > 1e-3


@pytest.mark.parametrize("pbc", [False, True])
def test_a_lone_atom_feels_nothing(descriptor: Descriptor, pbc: bool) -> None:
    features, backward = descriptor.with_backward(Atoms("Cu", cell=[9, 9, 9], pbc=pbc))
    found = backward(np.ones((1, *features.shape)))
    assert (found.forces == 0).all()
    assert (found.by_strain == 0).all()


def test_many_structures_have_the_rows_of_each_to_the_last_bit(descriptor: Descriptor) -> None:
    random = np.random.default_rng(17)
    structures = [crystal(random), molecule("H2O"), Atoms("Cu"), free(random), crystal(random, [True, False, True])]
    together = descriptor.compute_all(structures, [""] * len(structures))
    np.testing.assert_array_equal(together, np.concatenate([descriptor.compute(atoms) for atoms in structures]))
