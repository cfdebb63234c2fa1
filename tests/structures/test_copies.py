"""Copies are found however a structure is written, and nothing else is: within a file and across splits."""

from collections.abc import Iterator

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule, niggli_reduce
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.spatial.transform import Rotation

from bdqm_tune.errors import BadInput
from bdqm_tune.structures import Structures, find_copies, refuse_shared, turned_copies, without_labels
from bdqm_tune.structures.copies import geometry_groups
from bdqm_tune.structures.read import from_atoms


def rattled(atoms: Atoms, scale: float = 0.08, seed: int = 0) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(scale=scale, size=atoms.positions.shape)
    return atoms


def slab(pbc: bool) -> Atoms:
    atoms = rattled(fcc111("Pt", (2, 2, 3), vacuum=6))
    atoms.pbc = [True, True, pbc]
    return atoms


def boxed() -> Atoms:
    atoms = molecule("H2O")
    atoms.center(vacuum=5)
    atoms.pbc = True
    return atoms


ORIGINALS: dict[str, Atoms] = {
    "a rattled cell": rattled(bulk("Cu", cubic=True)),
    "a primitive cell": bulk("Cu"),
    "two atoms a cell": bulk("Ti"),
    "rock salt": bulk("NaCl", "rocksalt", a=5.6, cubic=True),
    "rattled rock salt": rattled(bulk("NaCl", "rocksalt", a=5.6, cubic=True)),
    "a slab": slab(False),
    "a slab in a box": slab(True),
    "a molecule": molecule("C6H6"),
    "a molecule on a line": molecule("CO2"),
    "a molecule in a box": boxed(),
    "one atom": Atoms("H"),
    "a chain": Atoms("C2", [[0, 0, 0], [1.3, 0.4, 0]], cell=[2.6, 0, 0], pbc=[True, False, False]),
}


def ways_to_write(atoms: Atoms) -> Iterator[tuple[str, Atoms]]:
    random = np.random.default_rng(1)

    def copy() -> Atoms:
        return atoms.copy()

    made = copy()
    made.positions = np.round(made.positions, 3)
    made.set_cell(np.round(made.cell, 3))
    yield "rounded", made
    yield "in another order", copy()[random.permutation(len(atoms))]
    made = copy()
    made.positions += [0.31, 7.2, -3.3]
    made.wrap()
    yield "shifted and wrapped", made[random.permutation(len(made))]
    turn = Rotation.from_rotvec([0.3, -0.7, 1.1]).as_matrix()
    made = copy()
    made.positions, cell = made.positions @ turn, np.asarray(made.cell) @ turn
    made.set_cell(cell)
    yield "turned", made
    made = copy()
    made.positions[:, 2] *= -1
    made.set_cell(np.asarray(made.cell) * [1, 1, -1])
    yield "mirrored", made
    if atoms.pbc.any():
        yield "repeated", copy().repeat([2 if periodic else 1 for periodic in atoms.pbc])
    if atoms.pbc.all():
        yield "in other cell vectors", make_supercell(copy(), [[1, 0, 0], [3, 1, 0], [1, -2, 1]])
        made = copy()
        niggli_reduce(made)
        yield "reduced", made
        made = copy().repeat((1, 3, 1))
        made.rotate(20, "x", rotate_cell=True)
        yield "repeated and turned", made


def test_a_structure_is_found_however_it_is_written() -> None:
    missed = [
        f"{name}, {way}"
        for name, atoms in ORIGINALS.items()
        for way, other in ways_to_write(atoms)
        if geometry_groups([atoms, other]).tolist() != [0, 0]
    ]
    assert not missed
    assert geometry_groups(list(ORIGINALS.values())).tolist() == list(range(len(ORIGINALS)))


def test_two_repeated_cells_neither_of_which_is_that_of_the_other() -> None:
    atoms = ORIGINALS["rattled rock salt"]
    assert geometry_groups([atoms.repeat((2, 1, 1)), atoms.repeat((1, 2, 1))]).tolist() == [0, 0]


def test_what_differs_is_no_copy() -> None:
    same = []
    for name, atoms in ORIGINALS.items():
        others: dict[str, Atoms] = {}
        if len(atoms) > 2:
            moved = atoms.copy()
            moved.positions[0] += [0.01, 0, 0]
            others["one atom moved"] = moved
        if len(set(atoms.numbers)) > 1:
            others["elements exchanged"] = atoms.copy()
            first, second = sorted(set(atoms.numbers))[:2]
            others["elements exchanged"].numbers = np.where(
                atoms.numbers == first, second, np.where(atoms.numbers == second, first, atoms.numbers)
            )
        if atoms.pbc.any():
            strained = atoms.copy()
            strained.set_cell(np.asarray(atoms.cell) * 1.002, scale_atoms=True)
            others["strained"] = strained
            free = atoms.copy()
            free.pbc = False
            others["without periodicity"] = free
        if len(atoms) > 1:
            other = atoms.copy()
            other.symbols[0] = "Au"
            others["another element"] = other
        same += [f"{name}, {what}" for what, other in others.items() if geometry_groups([atoms, other])[1] == 0]
    # With two elements of equal counts on equal sites, rock salt is the same with them exchanged.
    assert same == ["rock salt, elements exchanged"]


def test_a_cell_along_which_a_structure_is_not_periodic_does_not_count() -> None:
    box = molecule("H2O")
    box.set_cell([9, 9, 9])
    assert geometry_groups([molecule("H2O"), box]).tolist() == [0, 0]


def test_frames_of_a_trajectory_are_no_copies_of_each_other() -> None:
    base = bulk("Cu", cubic=True).repeat(2)
    frames = [rattled(base, 0.02, seed) for seed in range(40)]
    assert len(set(geometry_groups([*frames, frames[7][::-1], frames[3]]).tolist())) == 40


def labelled(images: list[Atoms], energies: list[float], source: str = "given.traj") -> Structures:
    for atoms, energy in zip(images, energies, strict=True):
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return from_atoms(images, source)


def cells(n: int, start: float = 3.6) -> list[Atoms]:
    return [bulk("Cu", a=start + 0.01 * i) for i in range(n)]


def test_a_copy_has_the_same_energy_an_atom() -> None:
    one = bulk("Cu")
    given = labelled([one, one.repeat(2), one.copy(), one.repeat(2)], [-1.0, -8.002, -1.1, -8.8])
    found = find_copies(given)
    assert found.geometry.tolist() == [0, 0, 0, 0]
    assert found.copy.tolist() == [0, 0, 2, 2]
    assert found.count == 2
    copies, others = found.notes(given)
    assert "image 1 = image 0, image 3 = image 2: copies" in copies
    assert "image 2 and image 0 have the same geometry and other energies" in others


def test_splits_without_common_structures_pass() -> None:
    whole = labelled(cells(6), [0.0] * 6)
    parts = {"training": whole.select([0, 2, 4]), "validation": whole.select([1, 3]), "test": whole.select([5])}
    assert refuse_shared(parts) == []


def test_copies_across_splits_are_refused_with_names_and_places_in_the_files() -> None:
    whole = labelled(cells(6), [0.0] * 6)
    splits = {"training": whole.select([0, 2, 4]), "validation": whole.select([1, 3]), "test": whole.select([3, 5, 0])}
    with pytest.raises(BadInput) as caught:
        refuse_shared(splits)
    message = str(caught.value)
    assert "validation image 3 = test image 3" in message
    assert "training image 0 = test image 0" in message
    assert message.count(" = ") == 2


def test_another_energy_makes_no_copy_but_a_note_unless_labels_are_sealed() -> None:
    train, test = labelled(cells(3), [0.0] * 3), labelled(cells(2), [1.0] * 2)
    (note,) = refuse_shared({"training": train, "test": test})
    assert "other energies in two splits: training image 0 = test image 0, training image 1 = test image 1" in note
    with pytest.raises(BadInput, match="training image 1 = test image 1"):
        refuse_shared({"training": train, "test": without_labels(test)})


def sheared(axis: int, angle: float) -> Atoms:
    """A cell whose vectors are at 90° but for one pair: another axis or the negative angle is the same, turned."""
    atoms = bulk("Si", cubic=True)
    cell = np.array(atoms.cell)
    cell[axis, (axis + 1) % 3] = 5.43 * np.tan(np.radians(angle))
    atoms.set_cell(cell, scale_atoms=True)
    return atoms


def test_turned_copies_of_the_test_are_found_in_the_training_and_others_refused() -> None:
    """Elastic constants need strains along all axes, which crystals do not tell apart."""
    test = labelled([sheared(0, 4), sheared(0, 7)], [0.0, -1.0])
    strains = [sheared(0, 5), sheared(1, 4), sheared(2, -4), sheared(1, 7).repeat((2, 1, 1))]
    train = labelled(strains, [0.0, 0.001, 0.0, -2.0])
    found, (note,) = turned_copies({"training": train}, test)
    assert found.tolist() == [1, 2, 3]
    assert "training image 1 = test image 0, training image 2 = test image 0, training image 3 = test image 1" in note
    assert "turned or mirrored, in two splits" in note
    shifted = sheared(0, 4)
    shifted.translate([0.3, 0.1, 0.2])
    with pytest.raises(BadInput, match=r"two splits: training image 4 = test image 0; remove"):
        turned_copies({"training": labelled([*strains, shifted], [0.0, 0.001, 0.0, -2.0, 0.0])}, test)


def test_a_turned_structure_of_another_energy_is_kept_with_a_note() -> None:
    found, (note,) = turned_copies({"training": labelled([sheared(1, 4)], [0.5])}, labelled([sheared(0, 4)], [0.0]))
    assert not len(found)
    assert "the same geometry with other energies in two splits: training image 0 = test image 0" in note


def test_copies_within_one_split_are_allowed() -> None:
    whole = labelled(cells(4), [0.0] * 4)
    assert refuse_shared({"training": whole.select([0, 0, 1]), "test": whole.select([2, 3])}) == []


def test_many_copies_are_counted_rather_than_listed() -> None:
    with pytest.raises(BadInput, match="training image 9 = test image 9 and 15 more") as caught:
        refuse_shared({"training": labelled(cells(25), [0.0] * 25), "test": labelled(cells(25), [0.0] * 25)})
    assert str(caught.value).count(" = ") == 10


@pytest.mark.parametrize("change", [0.0009, 0.004])
def test_positions_are_compared_to_a_thousandth(change: float) -> None:
    atoms = rattled(bulk("Cu", cubic=True))
    other = atoms.copy()
    other.positions[1, 2] += change
    assert (geometry_groups([atoms, other])[1] == 0) == (change < 0.001)
