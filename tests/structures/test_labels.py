"""Labels are single numbers and whole arrays, under whatever names a file gives them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import ExternalForce, FixAtoms, Hookean

from bdqm_tune.config.config import Data
from bdqm_tune.errors import BadInput
from bdqm_tune.structures import read_structures
from bdqm_tune.structures.read import from_atoms

FORCES = np.array([[0.1, -0.2, 0.3], [-0.1, 0.2, -0.3]])
STRESS = np.array([0.01, 0.02, 0.03, 0.004, 0.005, 0.006])  # xx, yy, zz, yz, xz, xy
NO_NUMBERS = [
    "energy=-1.5eV", "energy=-1.5D+02", "energy=-1,5", 'energy="-1.5 -2.5"', 'energy="_JSON [-1.5]"', "energy=None",
    "energy=********", 'energy="n/a"', "energy=T", "energy=F", "energy", 'energy=""', "energy=1+2j", "energy=nan",
    "energy=1e999", 'energy="_JSON {}"',
]  # fmt: skip


def frame(header: str, columns: str = "", rows: str = "", cell: bool = True) -> str:
    lattice = 'Lattice="5 0 0 0 5 0 0 0 5" pbc="T T T" ' if cell else ""
    return f"2\n{lattice}Properties=species:S:1:pos:R:3{columns} {header}\nCu 0 0 0 {rows}\nO 0 0 1.8 {rows}\n"


def calculated(**results: Any) -> Atoms:
    """A dimer with these results, unchecked, as a program that writes a trajectory by itself may leave them."""
    atoms = Atoms("CuO", [[0, 0, 0], [0, 0, 1.8]], cell=[5] * 3, pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    atoms.calc.results |= results
    return atoms


def message(make: Callable[[], object]) -> str:
    """The message of the refusal; what came of it, where it was not refused."""
    try:
        made = make()
    except BadInput as error:
        return str(error)
    return f"read: {made}"


def test_an_energy_that_is_no_number_is_refused_with_file_and_image(tmp_path: Path) -> None:
    path, wrong = tmp_path / "a.extxyz", {}
    for text in NO_NUMBERS:
        path.write_text(frame("energy=-1.0") + frame(text))
        said = message(lambda: read_structures(path))
        if not said.startswith(f"{path}, image 1: ") or "energy" not in said or "\n" in said:
            wrong[text] = said
    assert not wrong
    path.write_text(frame("energy=-1") + frame("energy=-1.5e+02"))
    assert read_structures(path).energies.tolist() == [-1.0, -150.0]


def test_arrays_of_another_shape_or_not_finite_are_refused() -> None:
    cases: dict[str, list[Any]] = {
        "forces": [np.zeros((2, 2)), np.zeros((2, 1)), np.zeros((2, 6)), np.zeros((3, 3)), np.zeros((1, 3)),
                   np.zeros(6), np.zeros((1, 2, 3)), np.full((2, 3), np.inf), [["a", "b", "c"]] * 2, [[0.0], [0.0]],
                   np.zeros((2, 3), dtype=bool), np.zeros((2, 3), dtype=complex)],
        "stress": [np.zeros(5), np.zeros(8), np.zeros((9, 1)), np.zeros((2, 3)), np.full(6, np.nan)],
        "energies": [np.zeros(3), np.zeros((2, 2)), np.array([0, np.nan])],
        "stresses": [np.zeros((3, 6)), np.zeros((2, 5))],
        "energy": [np.zeros(2), np.array([-1.0]), np.nan, None, True, "-1.0", 1j],
    }  # fmt: skip
    wrong = {}
    for name, values in cases.items():
        for i, value in enumerate(values):
            said = message(
                lambda name=name, value=value: from_atoms([calculated(), calculated(**{name: value})], "a.traj")
            )
            if not said.startswith("a.traj, image 1: ") or name not in said:
                wrong[name, i] = said
    assert not wrong
    good = calculated(forces=FORCES, stress=STRESS, energies=np.zeros(2), stresses=np.zeros((2, 6)))
    assert len(from_atoms([good, calculated(energy=np.float32(-1), stress=np.zeros((3, 3)))], "a.traj")) == 2


def test_positions_and_cells_of_another_shape_are_refused() -> None:
    atoms = calculated()
    atoms.arrays["positions"] = np.zeros((2, 2))
    assert "image 0: positions must be numbers of the shape (n_atoms, 3), got the shape (2, 2)" in message(
        lambda: from_atoms([atoms], "a.traj")
    )


@pytest.mark.parametrize("columns", [1, 2, 6])
def test_columns_of_forces_are_three(tmp_path: Path, columns: int) -> None:
    path = tmp_path / "a.extxyz"
    three = frame("energy=-1", ":forces:R:3", "0 0 1")
    path.write_text(three + frame("energy=-1", f":forces:R:{columns}", "0 " * columns))
    assert f"{path}, image 1: forces must be numbers of the shape (n_atoms, 3)" in message(
        lambda: read_structures(path)
    )


def test_what_ase_cannot_read_is_named_by_its_image(tmp_path: Path) -> None:
    path = tmp_path / "a.extxyz"
    for last in (frame('energy=-1 stress="1 2 3"'), frame("energy=-1").replace("1.8", "****")):
        path.write_text(frame("energy=-1") * 2 + last)
        assert message(lambda: read_structures(path)).startswith(f"{path}, image 2: ASE cannot read it"), last
    path.write_text(frame("energy=-1") * 2 + "two\n")
    assert "image 2: line 9 must be its number of atoms, got 'two'" in message(lambda: read_structures(path))


def test_labels_are_read_under_the_names_that_the_options_give(tmp_path: Path) -> None:
    atoms = calculated(energy=-7.0, forces=np.zeros((2, 3)), free_energy=-8.0)
    atoms.info |= {"REF_energy": -1.25, "virial": -125 * np.diag([0.1, 0.2, 0.3])}
    atoms.new_array("REF_forces", FORCES)
    ase.io.write(tmp_path / "a.extxyz", [atoms])
    keys = Data(energy_key="REF_energy", forces_key="REF_forces", stress_key="virial")
    read = read_structures(tmp_path / "a.extxyz", keys)
    assert read.energies.tolist() == [-1.25]
    assert read.forces is not None
    np.testing.assert_allclose(read.forces[0], FORCES, atol=1e-8)
    assert read.stress is not None
    assert read.stress[0] is not None
    np.testing.assert_allclose(read.stress[0], [0.1, 0.2, 0.3, 0, 0, 0], atol=1e-12)  # -virial / 5³ Å³


NINE = "0.01 0.006 0.005 0.006 0.02 0.004 0.005 0.004 0.03"  # the rows of STRESS
SKEW = "0.01 0.007 0.005 0.005 0.02 0.005 0.005 0.003 0.03"  # the same on average with its transpose


ROWS = "_JSON [[0.01, 0.006, 0.005], [0.006, 0.02, 0.004], [0.005, 0.004, 0.03]]"


@pytest.mark.parametrize("values", ["0.01 0.02 0.03 0.004 0.005 0.006", NINE, SKEW, ROWS])
@pytest.mark.parametrize("name", ["REF_stress", "dft_virial"])
def test_six_numbers_of_a_stress_are_voigts_and_nine_a_matrix(tmp_path: Path, name: str, values: str) -> None:
    path = tmp_path / "a.extxyz"
    path.write_text(frame(f'energy=-1 {name}="{values}"'))
    (read,) = read_structures(path, Data(stress_key=name)).stress or []
    expected = -STRESS / 125 if "virial" in name else STRESS
    np.testing.assert_allclose(read, expected, atol=1e-15)


@pytest.mark.parametrize("name", ["stress", "virial"])
def test_the_names_that_ase_knows_are_read_as_before(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.extxyz"
    path.write_text(frame(f'energy=-1 {name}="{NINE}"'))
    (read,) = read_structures(path, Data(stress_key=name)).stress or []
    np.testing.assert_allclose(read, -STRESS / 125 if name == "virial" else STRESS, atol=1e-15)


@pytest.mark.parametrize("suffix", ["db", "json"])
def test_the_values_of_a_databases_rows_are_labels_too(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    with ase.db.connect(path) as database:
        for energy in (-1.5, -2.5):
            database.write(Atoms("CuO", [[0, 0, 0], [0, 0, 1.8]]), dft_energy=energy)
    assert "it has dft_energy: data.energy_key says" in message(lambda: read_structures(path))
    assert read_structures(path, Data(energy_key="dft_energy")).energies.tolist() == [-1.5, -2.5]


def test_the_free_energy_is_read_where_the_option_names_it() -> None:
    images = [calculated(energy=-1.0, free_energy=-1.2), calculated(energy=-2.0, free_energy=-2.1)]
    plain = from_atoms(images, "a.traj")
    assert (plain.energies.tolist(), round(plain.free_energy_gap, 12)) == ([-1.0, -2.0], 0.1)
    free = from_atoms(images, "a.traj", Data(energy_key="free_energy"))
    assert (free.energies.tolist(), free.free_energy_gap) == ([-1.2, -2.1], 0.0)


def test_a_missing_label_is_refused_with_the_names_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a.extxyz"
    for name in ("REF_energy", "dft_energy", "TotEnergy", "Energy", "free_energy"):
        path.write_text(frame(f"{name}=-1.5"))
        said = message(lambda: read_structures(path))
        assert said.startswith(f"{path}, image 0: has no energy; "), name
        assert f"it has {name}: data.energy_key says" in said, name
        assert read_structures(path, Data(energy_key=name)).energies.tolist() == [-1.5], name
    path.write_text(frame("energy=-1.5"))
    assert "has no REF_energy, which data.energy_key names" in message(
        lambda: read_structures(path, Data(energy_key="REF_energy"))
    )
    path.write_text(frame("energy=-1.5", ":REF_forces:R:3", "0 0 1"))
    read = read_structures(path)
    assert (read.forces, read.unread["forces"]) == (None, ("REF_forces",))
    path.write_text(frame("dft_energy=-1.5 charge=1.0 REF_energy=-2.0", ":REF_forces:R:3", "0 0 1"))
    assert "; it has dft_energy, REF_energy: data.energy_key" in message(lambda: read_structures(path))


def test_labels_are_those_of_the_calculation_whatever_the_constraints() -> None:
    """ASE adds the energies of springs and outer forces to what a calculation gave, and sets fixed forces to 0."""
    for constraint in (FixAtoms([0]), Hookean(0, 1, rt=1.0, k=5.0), ExternalForce(0, 1, 2.0)):
        atoms = calculated(forces=FORCES)
        atoms.set_constraint(constraint)
        read = from_atoms([atoms], "a.traj")
        assert read.energies.tolist() == [-1.0], constraint
        assert read.forces is not None
        np.testing.assert_array_equal(read.forces[0], FORCES)
