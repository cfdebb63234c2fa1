"""What every descriptor keeps to: shapes, rotation, translation and permutation, periodic images, refusals."""

import json
from itertools import pairwise

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bdqm_tune.descriptors import Descriptor, descriptor_from_settings
from bdqm_tune.errors import BadInput
from tests.descriptors.cases import CASES, CUTOFF, Case, assert_same, crystal, free

SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def descriptor(case: Case) -> Descriptor:
    return case.descriptor


def test_there_is_a_row_for_each_atom_and_a_column_for_each_feature(descriptor: Descriptor) -> None:
    for atoms in (crystal(np.random.default_rng(0)), free(np.random.default_rng(0), 3), molecule("H2O")):
        features = descriptor.compute(atoms)
        assert features.shape == (len(atoms), descriptor.n_features)
        assert features.dtype == np.float64
        assert np.isfinite(features).all()
        assert (np.abs(features) > 0).any(axis=1).all()


@given(seed=SEEDS, periodic=st.booleans())
@few
def test_turned(case: Case, seed: int, periodic: bool) -> None:
    random = np.random.default_rng(seed)
    atoms = crystal(random) if periodic else free(random)
    turn = case.turn(random)
    turned = Atoms(atoms.numbers, atoms.positions @ turn, cell=np.asarray(atoms.cell) @ turn, pbc=atoms.pbc)
    assert_same(case.descriptor.compute(atoms), case.descriptor.compute(turned))


@given(seed=SEEDS, periodic=st.booleans())
@few
def test_translated(descriptor: Descriptor, seed: int, periodic: bool) -> None:
    random = np.random.default_rng(seed)
    atoms = crystal(random) if periodic else free(random)
    moved = atoms.copy()
    moved.positions += random.uniform(-30, 30, 3)
    assert_same(descriptor.compute(atoms), descriptor.compute(moved))


@given(seed=SEEDS, periodic=st.booleans())
@few
def test_atoms_in_another_order_have_their_rows_in_that_order(
    descriptor: Descriptor, seed: int, periodic: bool
) -> None:
    random = np.random.default_rng(seed)
    atoms = crystal(random) if periodic else free(random)
    order = random.permutation(len(atoms))
    assert_same(descriptor.compute(atoms)[order], descriptor.compute(atoms[order]))


@given(seed=SEEDS)
@few
def test_atoms_put_into_other_periodic_images(descriptor: Descriptor, seed: int) -> None:
    random = np.random.default_rng(seed)
    atoms = crystal(random)
    wrapped, scattered = atoms.copy(), atoms.copy()
    wrapped.wrap()
    scattered.positions += random.integers(-3, 4, (len(atoms), 3)) @ np.asarray(atoms.cell)
    assert_same(descriptor.compute(atoms), descriptor.compute(wrapped))
    assert_same(descriptor.compute(atoms), descriptor.compute(scattered))


@given(seed=SEEDS)
@few
def test_other_vectors_of_the_same_lattice(descriptor: Descriptor, seed: int) -> None:
    random = np.random.default_rng(seed)
    atoms = crystal(random)
    change = np.eye(3, dtype=int)
    for _ in range(3):
        i, j = random.permutation(3)[:2]
        change[i] += random.choice([-1, 1]) * change[j]
    other = atoms.copy()
    other.set_cell(change @ np.asarray(atoms.cell), scale_atoms=False)
    assert abs(round(np.linalg.det(change))) == 1
    assert_same(descriptor.compute(atoms), descriptor.compute(other))


@pytest.mark.parametrize("repeats", [(2, 1, 1), (1, 3, 1), (2, 2, 2)])
def test_a_supercell_repeats_the_rows(descriptor: Descriptor, repeats: tuple[int, int, int]) -> None:
    atoms = crystal(np.random.default_rng(5))
    repeated = np.tile(descriptor.compute(atoms), (int(np.prod(repeats)), 1))
    assert_same(repeated, descriptor.compute(atoms.repeat(repeats)))


def test_a_cell_smaller_than_the_cutoff_is_as_good_as_a_large_cluster(descriptor: Descriptor) -> None:
    atoms = crystal(np.random.default_rng(6))
    cluster = atoms.repeat((5, 5, 7))
    cluster.pbc = False
    middle = (2 * 5 * 7 + 2 * 7 + 3) * len(atoms)  # the cell at (2, 2, 3)
    assert_same(descriptor.compute(atoms), descriptor.compute(cluster)[middle : middle + len(atoms)])


def slab(vacuum: float, pbc: bool | list[bool]) -> Atoms:
    atoms = fcc111("Cu", size=(1, 2, 3), vacuum=vacuum)
    atoms.positions += np.random.default_rng(7).normal(scale=0.1, size=(len(atoms), 3))
    atoms.numbers[-1] = 8
    atoms.pbc = pbc
    return atoms


def test_a_slab_is_periodic_along_two_directions_only(descriptor: Descriptor) -> None:
    two = [True, True, False]
    thick = descriptor.compute(slab(10.0, True))
    assert_close(thick, descriptor.compute(slab(10.0, two)))
    assert_close(thick, descriptor.compute(slab(0.1, two)))
    flat = slab(10.0, two)
    flat.cell[2] = 0
    assert_close(thick, descriptor.compute(flat))
    assert np.abs(thick - descriptor.compute(slab(0.1, True))).max() > 1e-3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_wire_is_periodic_along_one_direction_only(descriptor: Descriptor, axis: int) -> None:
    atoms = crystal(np.random.default_rng(8), pbc=[i == axis for i in range(3)])
    chain = atoms.repeat([5 if i == axis else 1 for i in range(3)])
    chain.pbc = False
    n = len(atoms)
    assert_same(descriptor.compute(atoms), descriptor.compute(chain)[2 * n : 3 * n])


@given(seed=SEEDS)
@few
def test_a_cell_without_periodicity_means_nothing(descriptor: Descriptor, seed: int) -> None:
    random = np.random.default_rng(seed)
    atoms = free(random)
    boxed = crystal(random, pbc=[False] * 3)
    boxed.positions, boxed.numbers = atoms.positions, atoms.numbers
    assert_same(descriptor.compute(atoms), descriptor.compute(boxed))


def test_a_molecule_in_a_large_box_is_a_molecule(descriptor: Descriptor) -> None:
    methanol = molecule("CH3OH")
    boxed = methanol.copy()
    boxed.set_cell([14, 15, 16])
    boxed.pbc = True
    assert_close(descriptor.compute(methanol), descriptor.compute(boxed))


@pytest.mark.parametrize("pbc", [False, True])
def test_a_single_atom_has_a_row_that_does_not_depend_on_its_place(descriptor: Descriptor, pbc: bool) -> None:
    lone = descriptor.compute(Atoms("Cu", cell=[9, 9, 9], pbc=pbc))
    assert lone.shape == (1, descriptor.n_features)
    assert np.isfinite(lone).all()
    assert np.array_equal(lone, descriptor.compute(Atoms("Cu", positions=[[1, 2, 3]])))


def test_atoms_beyond_the_cutoff_do_not_see_each_other(descriptor: Descriptor) -> None:
    far = descriptor.compute(Atoms("HO", positions=[[0, 0, 0], [0, 0, CUTOFF + 1e-6]]))
    alone = [descriptor.compute(Atoms(symbol))[0] for symbol in ("H", "O")]
    np.testing.assert_allclose(far, alone, rtol=1e-12)
    near = descriptor.compute(Atoms("HO", positions=[[0, 0, 0], [0, 0, CUTOFF / 2]]))
    assert np.abs(near - alone).max() > 1e-3


@pytest.mark.parametrize("neighbours", [3, 0])
def test_a_neighbour_passes_the_cutoff_smoothly(case: Case, neighbours: int) -> None:
    """A tenth as far inside, the change is a hundredth at most, the derivative a tenth: both vanish at the cutoff."""
    around = np.array([[1.1, -0.3, 0.2], [-0.4, -1.2, 0.5], [0.1, 0.6, -1.3]])[:neighbours]
    direction = np.array([2.0, -1.0, 2.0]) / 3

    def at(distance: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        atoms = Atoms("OH" + "CHO"[:neighbours], [np.zeros(3), distance * direction, *around])
        features, derivatives = case.descriptor.sparse_derivatives(atoms)
        return features[0], derivatives.dense(len(atoms))[0, :, 1]

    outside, nothing = at(CUTOFF + 1e-9)
    assert (nothing == 0).all()
    inside = [at(CUTOFF - by) for by in (1e-2, 1e-3, 1e-4)]
    changes = [np.abs(features - outside).max() for features, _ in inside]
    slopes = [np.abs(derivatives).max() for _, derivatives in inside]
    if not case.smooth:
        assert changes[-1] > 0.9 * changes[0] > 0
        return
    rounding = 1e-13 * max(np.abs(outside).max(), 1.0)
    for (change, nearer), (slope, flatter) in zip(pairwise(changes), pairwise(slopes), strict=True):
        assert nearer <= change / 90 + rounding
        assert flatter <= slope / 9 + rounding


def test_elements_are_told_apart(descriptor: Descriptor) -> None:
    pair = [[0, 0, 0], [0, 0, 1.5]]
    with_hydrogen, with_oxygen = (descriptor.compute(Atoms(f"C{other}", positions=pair))[0] for other in "HO")
    assert np.abs(with_hydrogen - with_oxygen).max() > 1e-3


def test_rows_do_not_depend_on_which_other_elements_are_there(descriptor: Descriptor) -> None:
    near, far = [[0, 0, 0], [0, 0.2, 1.5]], [[0, 40, 0]]
    for other in ("H", "Cu"):
        assert_close(
            descriptor.compute(Atoms(f"CO{other}", positions=near + far))[:2],
            descriptor.compute(Atoms("CO", positions=near)),
        )


@pytest.mark.parametrize("atoms", [Atoms("CuAuN", positions=np.eye(3) * 2), Atoms("Au", positions=[[0, 0, 0]])])
def test_an_unknown_element_is_named_and_the_known_ones_are_listed(descriptor: Descriptor, atoms: Atoms) -> None:
    for compute in (descriptor.compute, descriptor.derivatives):
        with pytest.raises(BadInput, match=r"for element .*Au.*; there are: H C O Cu$"):
            compute(atoms)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_positions_that_are_not_finite_are_refused(descriptor: Descriptor, value: float) -> None:
    atoms = molecule("H2O")
    atoms.positions[1, 2] = value
    for compute in (descriptor.compute, descriptor.derivatives):
        with pytest.raises(BadInput, match="positions and cell must be finite"):
            compute(atoms)


def test_a_structure_without_atoms_or_with_a_flat_periodic_cell_is_refused(descriptor: Descriptor) -> None:
    for compute in (descriptor.compute, descriptor.derivatives):
        with pytest.raises(BadInput, match="has no atoms"):
            compute(Atoms())
        with pytest.raises(BadInput, match="no extent"):
            compute(Atoms("H", cell=[5, 5, 0], pbc=True))


def test_settings_as_json_bring_the_same_descriptor_back(descriptor: Descriptor) -> None:
    again = descriptor_from_settings(json.loads(json.dumps(descriptor.settings, sort_keys=True)))
    atoms = crystal(np.random.default_rng(9))
    assert type(again) is type(descriptor)
    assert again.settings == descriptor.settings
    assert again.n_features == descriptor.n_features
    assert np.array_equal(again.compute(atoms), descriptor.compute(atoms))


def test_settings_tell_descriptors_apart() -> None:
    texts = {json.dumps(case.descriptor.settings, sort_keys=True) for case in CASES.values()}
    assert len(texts) == len(CASES)


def test_computing_leaves_the_structure_and_the_settings_alone(descriptor: Descriptor) -> None:
    atoms = crystal(np.random.default_rng(14))
    before, settings_before = atoms.copy(), json.dumps(descriptor.settings)
    first = descriptor.compute(atoms)
    descriptor.derivatives(bulk("Cu"))
    assert atoms == before
    assert json.dumps(descriptor.settings) == settings_before
    assert np.array_equal(first, descriptor.compute(atoms))


def assert_close(left: np.ndarray, right: np.ndarray) -> None:
    """Equal to rounding, where many columns may be zero."""
    np.testing.assert_allclose(left, right, rtol=1e-8, atol=1e-9)
