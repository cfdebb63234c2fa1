"""What is so of GMP features alone: their order, roots and floors; what all descriptors keep to is test_conformance."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from bdqm_tune.descriptors import GMP
from tests.descriptors.cases import CUTOFF, TABLE, assert_same, crystal, free

SIGMAS = [0.4, 1.1]
ORDERS = list(range(10))


def features(
    atoms: Atoms, orders: list[int] = ORDERS, sigmas: list[float] = SIGMAS, cutoff: float = CUTOFF, **options: bool
) -> NDArray[np.float64]:
    return GMP(orders, sigmas, cutoff, pseudodensities=TABLE, **options).compute(atoms)


@pytest.mark.parametrize("cubic", [False, True])
def test_a_cell_smaller_than_the_cutoff_is_as_good_as_a_large_cluster(cubic: bool) -> None:
    atoms = bulk("Cu", cubic=cubic)
    atoms.positions += 0.1
    assert np.linalg.norm(atoms.cell[0]) < CUTOFF
    cluster = bulk("Cu", cubic=True).repeat(5)
    cluster.pbc = False
    middle = int(np.argmin(np.linalg.norm(cluster.positions - cluster.positions.mean(axis=0), axis=1)))
    # At an fcc site, with its full cubic symmetry, the other orders vanish.
    symmetric = [0, 4, 6, 8]
    inside = features(cluster, symmetric)[[middle] * len(atoms)]
    assert_same(features(atoms, symmetric), inside)


@pytest.mark.parametrize("pbc", [False, True])
def test_an_atom_without_neighbours_has_order_zero_only(pbc: bool) -> None:
    lone = features(Atoms("Cu", cell=[9, 9, 9], pbc=pbc))
    assert lone.shape == (1, 20)
    assert (lone[:, :2] > 0).all()
    assert (lone[:, 2:] == 0).all()


def test_without_a_smooth_cutoff_neighbours_count_the_same_up_to_it() -> None:
    near, far = (
        features(Atoms("CuH", positions=[[0, 0, 0], [0, 0, CUTOFF + by]]), smooth_cutoff=False) for by in (-1e-6, 1e-6)
    )
    wider = features(Atoms("CuH", positions=[[0, 0, 0], [0, 0, CUTOFF]]), cutoff=2 * CUTOFF, smooth_cutoff=False)
    assert_allclose(near, wider, rtol=1e-4)
    assert_allclose(far, np.concatenate([features(Atoms("Cu")), features(Atoms("H"))]), rtol=1e-12)
    assert (near[:, 2:] > 0).all()


@pytest.mark.parametrize("order", range(10))
def test_each_order_alone_gives_its_columns_of_all(order: int) -> None:
    atoms = crystal(np.random.default_rng(9))
    assert_allclose(features(atoms, [order]), features(atoms)[:, 2 * order : 2 * order + 2], rtol=1e-12)


def test_columns_run_order_by_order_and_then_sigma_as_they_are_given() -> None:
    atoms = crystal(np.random.default_rng(10))
    columns = {(n, s): features(atoms, [n], [s])[:, 0] for n in (0, 2, 5) for s in (0.3, 0.7)}
    mixed = features(atoms, [5, 0, 2], [0.7, 0.3])
    expected = [(n, s) for n in (5, 0, 2) for s in (0.7, 0.3)]
    for column, key in zip(mixed.T, expected, strict=True):
        assert_allclose(column, columns[key], rtol=1e-12)


def test_without_square_the_features_are_roots() -> None:
    atoms = crystal(np.random.default_rng(11))
    assert_allclose(features(atoms, square=False) ** 2, features(atoms), rtol=1e-12)


def test_the_root_floor_sets_what_is_below_it_to_zero() -> None:
    atoms = crystal(np.random.default_rng(12))
    roots = features(atoms, square=False)
    floor = float(np.median(roots))
    cut = GMP(ORDERS, SIGMAS, CUTOFF, square=False, pseudodensities=TABLE, root_floor=floor).compute(atoms)
    assert_allclose(cut, np.where(roots < floor, 0.0, roots), rtol=0)
    assert 0.2 < np.mean(cut == 0) < 0.8


def test_features_depend_smoothly_on_the_positions() -> None:
    atoms = free(np.random.default_rng(13))
    moved = atoms.copy()
    moved.positions[0, 0] += 1e-7
    change = np.abs(features(moved) - features(atoms)).max(axis=0) / np.abs(features(atoms)).max(axis=0)
    assert 0 < change.max() < 1e-5
