"""Reading: every image has a finite energy and a usable geometry, or one line says which has not."""

import sqlite3
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io.trajectory import Trajectory
from numpy.typing import NDArray

from bdqm_tune.errors import BadInput
from bdqm_tune.structures import Structures, read_structures
from bdqm_tune.structures.read import from_atoms

FORCES = np.array([[0.1, -0.2, 0.3], [-0.1, 0.2, -0.3]])
FORMATS = ["extxyz", "xyz", "traj", "json", "db"]


def labelled(atoms: Atoms, energy: float | None = -1.0, forces: NDArray[np.float64] | None = None) -> Atoms:
    """The atoms with labels of a calculation; None leaves a label out."""
    given = {"energy": energy, "forces": forces}
    atoms.calc = SinglePointCalculator(atoms, **{name: value for name, value in given.items() if value is not None})
    return atoms


def dimer(symbols: str = "CuO", height: float = 1.8, cell: float = 5.0) -> Atoms:
    return Atoms(symbols, positions=[[0.1, 0.2, 0.3], [0.1, 0.2, 0.3 + height]], cell=[cell] * 3, pbc=True)


def refused(images: list[Atoms]) -> str:
    """The message with which the images are refused."""
    with pytest.raises(BadInput) as caught:
        from_atoms(images, source="given.traj")
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", FORMATS)
def test_labels_and_geometry_come_back_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"images.{suffix}"
    ase.io.write(path, [labelled(dimer(height=1.8), -1.25, FORCES), labelled(dimer("H2", 0.75), 2.5, 2 * FORCES)])
    read = read_structures(path)
    assert len(read) == 2
    assert read.source == str(path)
    assert read.elements == ["H", "O", "Cu"]
    assert read.n_atoms.tolist() == [2, 2]
    assert read.images.tolist() == [0, 1]
    np.testing.assert_allclose(read.energies, [-1.25, 2.5], rtol=0, atol=1e-8)
    assert read.forces is not None
    np.testing.assert_allclose(np.array(read.forces), [FORCES, 2 * FORCES], rtol=0, atol=1e-8)
    np.testing.assert_allclose(read.atoms[1].positions, dimer("H2", 0.75).positions, atol=1e-8)
    np.testing.assert_allclose(np.asarray(read.atoms[0].cell), 5 * np.eye(3), atol=1e-8)
    assert read.atoms[0].pbc.all()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_may_hold_a_single_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"single.{suffix}"
    ase.io.write(path, labelled(dimer(), -3.5))
    read = read_structures(str(path))
    assert read.energies.tolist() == [-3.5]
    assert read.forces is None


def test_forces_are_kept_only_when_every_image_has_them(tmp_path: Path) -> None:
    path = tmp_path / "some.traj"
    ase.io.write(path, [labelled(dimer(), -1.0, FORCES), labelled(dimer(height=2.0), -2.0)])
    read = read_structures(path)
    assert read.forces is None
    assert read.energies.tolist() == [-1.0, -2.0]


def test_constraints_do_not_touch_the_forces(tmp_path: Path) -> None:
    atoms = labelled(dimer(), -1.0, FORCES)
    atoms.set_constraint(FixAtoms([0, 1]))
    ase.io.write(tmp_path / "fixed.traj", [atoms])
    read = read_structures(tmp_path / "fixed.traj")
    assert read.forces is not None
    np.testing.assert_array_equal(read.forces[0], FORCES)
    assert not read.atoms[0].constraints


def test_the_energy_is_the_one_extrapolated_to_zero_temperature() -> None:
    atoms = dimer()
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, free_energy=-2.0)
    assert from_atoms([atoms], "given.traj").energies.tolist() == [-1.0]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_missing_energy_is_refused_with_file_and_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"images.{suffix}"
    ase.io.write(path, [labelled(dimer(), -1.0, FORCES), labelled(dimer(), None, FORCES), labelled(dimer())])
    with pytest.raises(BadInput, match="no energy") as caught:
        read_structures(path)
    assert str(caught.value).startswith(f"{path}, image 1: ")


def test_images_without_any_calculation_have_no_energy(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "bare.cif", dimer())
    with pytest.raises(BadInput, match=r"bare\.cif, image 0: has no energy"):
        read_structures(tmp_path / "bare.cif")


@pytest.mark.parametrize("suffix", ["extxyz", "traj", "json"])
@pytest.mark.parametrize("energy", [np.nan, np.inf, -np.inf])
def test_an_energy_that_is_not_finite_is_refused(tmp_path: Path, suffix: str, energy: float) -> None:
    path = tmp_path / f"images.{suffix}"
    ase.io.write(path, [labelled(dimer()), labelled(dimer(), energy)])
    with pytest.raises(BadInput, match="image 1: the energy must be finite, got -?(nan|inf)"):
        read_structures(path)


@pytest.mark.parametrize("suffix", ["extxyz", "traj", "db"])
def test_forces_that_are_not_finite_are_refused(tmp_path: Path, suffix: str) -> None:
    broken = FORCES.copy()
    broken[1, 2] = np.nan
    path = tmp_path / f"images.{suffix}"
    ase.io.write(path, [labelled(dimer(), -1.0, FORCES), labelled(dimer(), -1.0, broken)])
    with pytest.raises(BadInput, match="image 1: forces must be finite"):
        read_structures(path)


@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_that_are_not_finite_are_refused(tmp_path: Path, suffix: str, value: float) -> None:
    broken = dimer()
    broken.positions[1, 2] = value
    path = tmp_path / f"images.{suffix}"
    ase.io.write(path, [labelled(dimer()), labelled(broken)])
    with pytest.raises(BadInput, match="image 1: positions and cell must be finite"):
        read_structures(path)


def test_a_cell_that_is_not_finite_is_refused() -> None:
    broken = dimer()
    broken.cell[0, 1] = np.nan
    assert "given.traj, image 1: positions and cell must be finite" in refused([labelled(dimer()), labelled(broken)])


@pytest.mark.parametrize(
    ("cell", "pbc"),
    [
        ([0, 0, 0], [True, True, True]),
        ([5, 5, 0], [True, True, True]),
        ([5, 5, 0], [False, False, True]),
        ([[5, 0, 0], [5, 0, 0], [0, 0, 5]], [True, True, False]),
    ],
)
def test_a_periodic_direction_without_extent_is_refused(cell: list[float], pbc: list[bool]) -> None:
    broken = Atoms("Cu", cell=cell, pbc=pbc)
    assert "given.traj, image 1: is periodic along" in refused([labelled(dimer()), labelled(broken)])


@pytest.mark.parametrize(
    ("cell", "pbc"), [([0, 0, 0], False), ([4, 4, 0], [True, True, False]), ([0, 0, 4], [False, False, True])]
)
def test_directions_that_are_not_periodic_need_no_cell(cell: list[float], pbc: bool | list[bool]) -> None:
    read = from_atoms([labelled(Atoms("Cu", cell=cell, pbc=pbc))], "given.traj")
    assert read.atoms[0].pbc.tolist() == np.broadcast_to(pbc, 3).tolist()


def test_an_image_without_atoms_is_refused(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "images.traj", [labelled(dimer()), labelled(Atoms())])
    with pytest.raises(BadInput, match=r"images\.traj, image 1: has no atoms"):
        read_structures(tmp_path / "images.traj")


@pytest.mark.parametrize(("symbol", "named"), [("Fr", "Fr"), ("U", "U"), ("X", "X")])
def test_an_element_beyond_radon_is_refused_by_name(symbol: str, named: str) -> None:
    message = refused([labelled(dimer()), labelled(Atoms(symbol))])
    assert message.startswith(f"given.traj, image 1: element {named} is not supported")


def test_hydrogen_and_radon_are_both_accepted() -> None:
    assert from_atoms([labelled(dimer("HRn"))], "given.traj").elements == ["H", "Rn"]


def test_no_images_at_all_are_refused() -> None:
    assert refused([]) == "given.traj: no structures in it"


@pytest.mark.parametrize("name", ["zero.traj", "zero.extxyz", "zero.json", "zero.db", "zero.cif", "zero.vasp"])
def test_a_file_of_no_bytes_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(BadInput, match=name) as caught:
        read_structures(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_trajectory_without_images_is_refused(tmp_path: Path) -> None:
    Trajectory(tmp_path / "images.traj", "w").close()
    with pytest.raises(BadInput, match=r"images\.traj"):
        read_structures(tmp_path / "images.traj")


def test_a_database_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.db"
    ase.io.write(path, labelled(dimer()))
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM systems")
    connection.commit()
    connection.close()
    with pytest.raises(BadInput, match=r"images\.db"):
        read_structures(path)


def test_a_missing_file_is_refused_and_says_from_where_it_was_looked_for(workdir: Path) -> None:
    with pytest.raises(BadInput, match=r"^train\.traj: no such file") as caught:
        read_structures("train.traj")
    assert str(workdir) in str(caught.value)


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder without files"):
        read_structures(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"the structures are on the other disk\n"),
        ("notes.traj", b"the structures are on the other disk\n"),
        ("notes.xyz", b"the structures are on the other disk\n"),
        ("notes.json", b"{}"),
        ("notes.extxyz", b"1\nLattice\nCu 0 0\n"),
        ("notes", bytes(range(256))),
    ],
)
def test_what_is_no_structure_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=f"{name}: ASE cannot read it") as caught:
        read_structures(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_trajectory_cut_short_is_refused(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "whole.traj", [labelled(dimer(), -1.0, FORCES)] * 5)
    content = (tmp_path / "whole.traj").read_bytes()
    (tmp_path / "half.traj").write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match=r"half\.traj"):
        read_structures(tmp_path / "half.traj")


def test_select_keeps_order_labels_and_the_place_in_the_file() -> None:
    heights = [1.6, 1.7, 1.8, 1.9]
    images = [labelled(dimer(height=h), -h, FORCES * h) for h in heights]
    chosen: Structures = from_atoms(images, "given.traj").select([3, 1])
    assert chosen.energies.tolist() == [-1.9, -1.7]
    assert chosen.images.tolist() == [3, 1]
    assert [atoms.positions[1, 2] for atoms in chosen.atoms] == [0.3 + 1.9, 0.3 + 1.7]
    assert chosen.forces is not None
    np.testing.assert_array_equal(np.array(chosen.forces), [FORCES * 1.9, FORCES * 1.7])
    assert chosen.select([1]).images.tolist() == [1]


@pytest.mark.parametrize(
    ("name", "images", "atoms"),
    [("oc20_300_train.traj", 300, (17, 197)), ("oc20_300_test.traj", 300, (10, 220)), ("water_2d.traj", 400, (3, 3))],
)
def test_published_trajectories_are_read_with_energies_and_forces(
    shared: Path, name: str, images: int, atoms: tuple[int, int]
) -> None:
    read = read_structures(shared / "data" / name)
    assert len(read) == images
    assert (read.n_atoms.min(), read.n_atoms.max()) == atoms
    assert read.forces is not None
    raw = ase.io.read(shared / "data" / name, index=7)
    assert read.energies[7] == raw.calc.results["energy"]
    np.testing.assert_array_equal(read.forces[7], raw.calc.results["forces"])
