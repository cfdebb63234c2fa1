"""What moves a structure as a whole, or describes it otherwise, leaves the features of its atoms as they are."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bdqm_tune.descriptors import GMP
from bdqm_tune.descriptors.pseudodensity import PseudoDensity, Table

# No lattice here has a pair at exactly this distance: the features jump there.
CUTOFF = 4.3
SIGMAS = [0.4, 1.1]
ORDERS = list(range(10))
TABLE: Table = {
    1: PseudoDensity(np.array([0.8]), np.array([1.1])),
    6: PseudoDensity(np.array([2.0, -0.7]), np.array([1.3, 2.4])),
    8: PseudoDensity(np.array([3.1, 0.4, -0.2]), np.array([1.9, 0.9, 3.0])),
    29: PseudoDensity(np.array([5.0, -1.0]), np.array([2.2, 1.5])),
}
SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=15, deadline=None)


def features(
    atoms: Atoms, orders: list[int] = ORDERS, sigmas: list[float] = SIGMAS, cutoff: float = CUTOFF, square: bool = True
) -> NDArray[np.float64]:
    return GMP(orders, sigmas, cutoff, square, TABLE).compute(atoms)


def assert_same(left: NDArray[np.float64], right: NDArray[np.float64]) -> None:
    """Equal to rounding, measured by each column's largest value."""
    assert left.shape == right.shape
    scale = np.maximum(np.abs(left).max(axis=0), np.abs(right).max(axis=0))
    assert (scale > 0).all()
    assert (np.abs(left - right).max(axis=0) <= 1e-9 * scale).all()


def free(random: np.random.Generator, n: int = 6) -> Atoms:
    """A molecule of atoms thrown into a box, none closer than 0.7 Å to another."""
    places: list[NDArray[np.float64]] = []
    while len(places) < n:
        place = random.uniform(0, 4, 3)
        if all(np.linalg.norm(place - other) > 0.7 for other in places):
            places.append(place)
    return Atoms(random.choice(list(TABLE), n), positions=np.array(places))


def crystal(random: np.random.Generator, pbc: list[bool] | None = None) -> Atoms:
    """A few atoms in a skewed cell that is shorter than the cutoff in one direction."""
    atoms = free(random)
    atoms.cell = np.diag([5.0, 6.0, 3.5]) + random.uniform(-0.8, 0.8, (3, 3))
    atoms.pbc = [True, True, True] if pbc is None else pbc
    return atoms


@given(seed=SEEDS, periodic=st.booleans(), mirrored=st.booleans())
@few
def test_rotated_or_mirrored(seed: int, periodic: bool, mirrored: bool) -> None:
    random = np.random.default_rng(seed)
    atoms = crystal(random) if periodic else free(random)
    turn = Rotation.random(random_state=random).as_matrix() * (-1 if mirrored else 1)
    turned = Atoms(atoms.numbers, atoms.positions @ turn, cell=np.asarray(atoms.cell) @ turn, pbc=atoms.pbc)
    assert_same(features(atoms), features(turned))


@given(seed=SEEDS, periodic=st.booleans())
@few
def test_translated(seed: int, periodic: bool) -> None:
    random = np.random.default_rng(seed)
    atoms = crystal(random) if periodic else free(random)
    moved = atoms.copy()
    moved.positions += random.uniform(-30, 30, 3)
    assert_same(features(atoms), features(moved))


@given(seed=SEEDS, periodic=st.booleans())
@few
def test_atoms_in_another_order_have_their_rows_in_that_order(seed: int, periodic: bool) -> None:
    random = np.random.default_rng(seed)
    atoms = crystal(random) if periodic else free(random)
    order = random.permutation(len(atoms))
    assert_same(features(atoms)[order], features(atoms[order]))


@given(seed=SEEDS)
@few
def test_atoms_put_into_other_periodic_images(seed: int) -> None:
    random = np.random.default_rng(seed)
    atoms = crystal(random)
    wrapped, scattered = atoms.copy(), atoms.copy()
    wrapped.wrap()
    scattered.positions += random.integers(-3, 4, (len(atoms), 3)) @ np.asarray(atoms.cell)
    assert_same(features(atoms), features(wrapped))
    assert_same(features(atoms), features(scattered))


@given(seed=SEEDS)
@few
def test_other_vectors_of_the_same_lattice(seed: int) -> None:
    random = np.random.default_rng(seed)
    atoms = crystal(random)
    change = np.eye(3, dtype=int)
    for _ in range(3):
        i, j = random.permutation(3)[:2]
        change[i] += random.choice([-1, 1]) * change[j]
    other = atoms.copy()
    other.set_cell(change @ np.asarray(atoms.cell), scale_atoms=False)
    assert abs(round(np.linalg.det(change))) == 1
    assert_same(features(atoms), features(other))


@pytest.mark.parametrize("repeats", [(2, 1, 1), (1, 3, 1), (2, 2, 2)])
def test_a_supercell_repeats_the_rows(repeats: tuple[int, int, int]) -> None:
    atoms = crystal(np.random.default_rng(5))
    assert_same(np.tile(features(atoms), (int(np.prod(repeats)), 1)), features(atoms.repeat(repeats)))


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


def test_a_low_symmetry_cell_smaller_than_the_cutoff_is_as_good_as_a_large_cluster() -> None:
    atoms = crystal(np.random.default_rng(6))
    cluster = atoms.repeat((5, 5, 7))
    cluster.pbc = False
    middle = (2 * 5 * 7 + 2 * 7 + 3) * len(atoms)  # the cell at (2, 2, 3)
    assert_same(features(atoms), features(cluster)[middle : middle + len(atoms)])


def slab(vacuum: float, pbc: bool | list[bool]) -> Atoms:
    atoms = fcc111("Cu", size=(1, 2, 3), vacuum=vacuum)
    atoms.positions += np.random.default_rng(7).normal(scale=0.1, size=(len(atoms), 3))
    atoms.pbc = pbc
    return atoms


def test_a_slab_is_periodic_along_two_directions_only() -> None:
    two = [True, True, False]
    thick = features(slab(10.0, True))
    assert_same(thick, features(slab(10.0, two)))
    assert_same(thick, features(slab(0.1, two)))
    flat = slab(10.0, two)
    flat.cell[2] = 0
    assert_same(thick, features(flat))
    assert np.abs(thick - features(slab(0.1, True))).max() > 1e-3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_wire_is_periodic_along_one_direction_only(axis: int) -> None:
    atoms = crystal(np.random.default_rng(8), pbc=[i == axis for i in range(3)])
    chain = atoms.repeat([5 if i == axis else 1 for i in range(3)])
    chain.pbc = False
    n = len(atoms)
    assert_same(features(atoms), features(chain)[2 * n : 3 * n])


@given(seed=SEEDS)
@few
def test_a_cell_without_periodicity_means_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    atoms = free(random)
    boxed = crystal(random, pbc=[False] * 3)
    boxed.positions, boxed.numbers = atoms.positions, atoms.numbers
    assert_same(features(atoms), features(boxed))


def test_a_molecule_in_a_large_box_is_a_molecule() -> None:
    water = molecule("H2O")
    boxed = water.copy()
    boxed.set_cell([10, 11, 12])
    boxed.pbc = True
    assert_same(features(water), features(boxed))


@pytest.mark.parametrize("pbc", [False, True])
def test_an_atom_without_neighbours_has_order_zero_only(pbc: bool) -> None:
    lone = features(Atoms("Cu", cell=[9, 9, 9], pbc=pbc))
    assert lone.shape == (1, 20)
    assert (lone[:, :2] > 0).all()
    assert (lone[:, 2:] == 0).all()


def test_atoms_beyond_the_cutoff_do_not_see_each_other() -> None:
    near, far = (features(Atoms("CuH", positions=[[0, 0, 0], [0, 0, CUTOFF + by]])) for by in (-1e-6, 1e-6))
    assert_allclose(far, np.concatenate([features(Atoms("Cu")), features(Atoms("H"))]), rtol=1e-12)
    assert (near[:, 2:] > 0).all()


def test_elements_are_told_apart() -> None:
    pair = [[0, 0, 0], [0, 0, 1.5]]
    assert np.abs(features(Atoms("CuH", positions=pair)) - features(Atoms("CuO", positions=pair)))[0].max() > 1e-3


def test_rows_follow_the_atoms_whatever_the_order_of_their_elements() -> None:
    pair = [[0, 0, 0], [0, 0, 1.5]]
    assert_allclose(features(Atoms("HCu", positions=pair)), features(Atoms("CuH", positions=pair))[::-1], rtol=1e-12)


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


def test_computing_leaves_the_structure_alone() -> None:
    atoms = crystal(np.random.default_rng(14))
    before = atoms.copy()
    features(atoms)
    assert atoms == before
