"""Derivatives of every descriptor: against finite differences, the laws that they obey, and their sparse form."""

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from bdqm_tune.descriptors import Descriptor
from tests.descriptors.cases import CASES, Case, gmp, gmp_groups


@pytest.fixture(params=CASES)
def descriptor(request: pytest.FixtureRequest) -> Descriptor:
    return CASES[request.param].descriptor


def structure(seed: int = 0, pbc: bool | list[bool] = True) -> Atoms:
    """A few atoms in a skewed cell, shorter than the cutoff in one direction: atoms see themselves and others twice."""
    random = np.random.default_rng(seed)
    places: list[np.ndarray] = []
    while len(places) < 5:
        place = random.uniform(0, 3.6, 3)
        if all(np.linalg.norm(place - other) > 0.8 for other in places):
            places.append(place)
    cell = np.diag([5.0, 6.0, 3.7]) + random.uniform(-0.3, 0.3, (3, 3))
    return Atoms([29, 8, 1, 8, 1], positions=np.array(places), cell=cell, pbc=pbc)


def finite_differences(descriptor: Descriptor, atoms: Atoms, step: float = 2e-4) -> np.ndarray:
    """(n_atoms, n_features, n_atoms, 3), 1/Å, from differences of fourth order."""
    found = np.zeros((len(atoms), descriptor.n_features, len(atoms), 3))
    for j in range(len(atoms)):
        for axis in range(3):
            for times, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
                moved = atoms.copy()
                moved.positions[j, axis] += times * step
                found[:, :, j, axis] += weight / (12 * step) * descriptor.compute(moved)
    return found


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-7) -> None:
    """Equal, measured by the largest value of each feature."""
    scale = np.abs(expected).max(axis=(0, 2, 3))
    assert (np.abs(found - expected).max(axis=(0, 2, 3)) <= tolerance * scale + 1e-9).all()


@pytest.mark.parametrize("pbc", [True, False, [True, False, True]])
def test_derivatives_are_those_of_the_features(descriptor: Descriptor, pbc: bool | list[bool]) -> None:
    atoms = structure(1, pbc)
    derivatives = descriptor.derivatives(atoms)
    assert derivatives.shape == (5, descriptor.n_features, 5, 3)
    assert np.abs(derivatives).max() > 1e-3
    assert_close(derivatives, finite_differences(descriptor, atoms))


def test_the_features_that_come_with_them_are_the_same(descriptor: Descriptor) -> None:
    atoms = structure(2)
    features, _ = descriptor.sparse_derivatives(atoms)
    np.testing.assert_allclose(features, descriptor.compute(atoms), rtol=1e-12, atol=1e-14)


def test_moving_all_atoms_changes_nothing(descriptor: Descriptor) -> None:
    derivatives = descriptor.derivatives(structure(3))
    assert np.abs(derivatives.sum(axis=2)).max() <= 1e-12 * np.abs(derivatives).max()


def test_each_pair_of_atoms_stands_once_sorted_and_with_itself(descriptor: Descriptor) -> None:
    atoms = structure(4)
    _, sparse = descriptor.sparse_derivatives(atoms)
    pairs = list(zip(sparse.centre.tolist(), sparse.atom.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert pairs == sorted(pairs)
    assert {(i, i) for i in range(len(atoms))} <= set(pairs)
    assert sparse.values.shape == (len(pairs), descriptor.n_features, 3)
    assert (sparse.centre.dtype, sparse.atom.dtype, sparse.values.dtype) == (np.int64, np.int64, np.float64)
    dense = sparse.dense(len(atoms))
    for place, (i, j) in enumerate(pairs):
        assert np.array_equal(dense[i, :, j], sparse.values[place])


def test_memory_is_in_proportion_to_the_neighbours(descriptor: Descriptor) -> None:
    row = Atoms("H60", positions=[[2.0 * i, 0.1 * (i % 3), 0] for i in range(60)])
    _, sparse = descriptor.sparse_derivatives(row)
    assert len(sparse.centre) < 60 * 6


def test_a_lone_atom_has_derivatives_of_zero(descriptor: Descriptor) -> None:
    for pbc in (False, True):
        derivatives = descriptor.derivatives(Atoms("Cu", cell=[9, 9, 9], pbc=pbc))
        assert derivatives.shape == (1, descriptor.n_features, 1, 3)
        assert (derivatives == 0).all()


def test_where_features_vanish_by_symmetry_derivatives_are_finite(descriptor: Descriptor) -> None:
    crystal = bulk("Cu", cubic=True)
    derivatives = descriptor.derivatives(crystal)
    assert np.isfinite(derivatives).all()
    pair = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.5]])
    assert np.isfinite(descriptor.derivatives(pair)).all()


@pytest.mark.parametrize("make", [gmp, lambda **arguments: gmp_groups("exchanges", **arguments)])
def test_below_the_floor_a_root_has_no_derivative(make: Callable[..., Case]) -> None:
    atoms = structure(5)
    free, cut = make(square=False).descriptor, make(square=False, root_floor=0.5).descriptor
    floored = cut.compute(atoms) != free.compute(atoms)
    assert 0.02 < floored.mean() < 0.98
    assert (cut.compute(atoms)[floored] == 0).all()
    assert (cut.derivatives(atoms)[floored] == 0).all()
    np.testing.assert_allclose(cut.derivatives(atoms)[~floored], free.derivatives(atoms)[~floored], rtol=1e-12)


def test_a_root_that_vanishes_by_symmetry_has_no_derivative() -> None:
    """There it would point where rounding has it."""
    flat = Atoms("CuH3", positions=[[0, 0, 0], [1.5, 0.3, 0], [-0.7, 1.1, 0], [0.2, -1.6, 0]])
    flat.rotate(40, (1, 2, 3))
    roots = gmp(square=False).descriptor
    line = Atoms("HCuH", positions=[[0, 0, -1.5], [0, 0, 0], [0, 0, 1.5]])  # a centre of inversion: no odd orders
    odd = np.repeat(np.arange(10) % 2 == 1, 2)
    assert (np.abs(roots.compute(line)[1, odd]) < 1e-8).all()
    assert (roots.derivatives(line)[1, odd] == 0).all()
    assert (np.abs(roots.derivatives(flat)).max(axis=(0, 2, 3)) > 0).all()
