"""What judges a potential gives the constants of copper by EMT."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from benchmarks import physics


@pytest.fixture(scope="module")
def copper() -> Atoms:
    """Four atoms at the lattice constant of EMT, which is found from another."""
    unit = bulk("Cu", cubic=True, a=3.62)
    unit.calc = EMT()
    relaxed, row = physics.elasticity(unit)
    assert row["a"] == pytest.approx(3.590, abs=0.002)
    assert row["B"] == pytest.approx(134, abs=2)
    assert row["(C11+2·C12)/3"] == pytest.approx(row["B"], rel=0.02)
    return relaxed


def stiffness_by_energies(unit: Atoms, direction: np.ndarray, strain: float = 0.004) -> float:
    """The second derivative of the energy by a strain in this direction, per volume, GPa."""
    bent = [physics.deformed(unit, np.eye(3) + size * direction) for size in (strain, -strain)]
    curvature = sum(cell.get_potential_energy() for cell in bent) - 2 * unit.get_potential_energy()
    return float(curvature / strain**2 / unit.get_volume() / units.GPa)


def test_elastic_constants_are_curvatures_of_the_energy(copper: Atoms) -> None:
    constants = physics.elastic_constants(copper)
    expected = {"C11": 172.5, "C12": 115.4, "C44": 89.9}  # GPa, of EMT
    assert constants == pytest.approx(expected, rel=0.01)
    tetragonal = stiffness_by_energies(copper, np.diag([1, -1, 0]))
    assert 2 * (constants["C11"] - constants["C12"]) == pytest.approx(tetragonal, rel=0.02)
    sheared = stiffness_by_energies(copper, np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]]))
    assert constants["C44"] == pytest.approx(sheared, rel=0.02)


def test_atoms_relax_in_a_strained_cell() -> None:
    """Two sublattices: a cell of copper whose atoms are not at rest in it gives the constants of one where they are."""
    unit = bulk("Cu", cubic=True, a=3.59)
    unit.calc = EMT()
    expected = physics.elastic_constants(unit)
    unit.positions[0] += [0.03, 0.0, 0.0]
    assert physics.elastic_constants(unit) == pytest.approx(expected, rel=0.01)


def test_energy_of_a_vacancy(copper: Atoms) -> None:
    crystal = copper.repeat(3)
    crystal.calc = EMT()
    unrelaxed = crystal.copy()
    del unrelaxed[0]
    bulk_energy = crystal.get_potential_energy() * len(unrelaxed) / len(crystal)
    energy = physics.vacancy_energy(crystal)
    assert energy == pytest.approx(1.22, abs=0.03)  # eV, of EMT
    assert energy < EMT().get_potential_energy(unrelaxed) - bulk_energy
    assert len(crystal) == 108


def test_dynamics_conserve_energy_and_have_the_temperature(copper: Atoms) -> None:
    crystal = copper.repeat(2)
    crystal.calc = EMT()
    row = physics.dynamics(crystal, 300.0, 1200, step=2.0)
    assert row["mean T, K"] == pytest.approx(300, rel=0.1)
    assert abs(row["drift, meV/atom"]) < 0.05
    assert 0 < row["largest less smallest, meV/atom"] < 0.5
    assert 2.0 < row["smallest distance, Å"] < 3.59 / np.sqrt(2)
    assert 0.1 < row["largest displacement, Å"] < 1.0


def test_energy_is_least_at_rest(copper: Atoms) -> None:
    energies = [row["meV/atom"] for row in physics.uniform_strain(copper)]
    assert energies[6] == pytest.approx(0, abs=1e-9)
    assert np.all(np.diff(energies[:7]) < 0)
    assert np.all(np.diff(energies[6:]) > 0)


def labelled(atoms: Atoms, group: str = "Elastic") -> Atoms:
    """With the energy and forces of EMT, as read from a file."""
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(copy, energy=EMT().get_potential_energy(copy), forces=EMT().get_forces(copy))
    copy.info["group"] = group
    return copy


def test_strained_cells_of_a_file_give_the_elastic_constants(copper: Atoms, tmp_path: Path) -> None:
    strains = (-0.04, -0.02, 0.02, 0.04)
    directions = [np.outer(axis, axis) for axis in np.eye(3)] + [np.outer(np.eye(3)[0], np.eye(3)[1])]
    cells = [physics.deformed(copper, np.eye(3) + strain * way) for strain in strains for way in directions]
    train = [labelled(copper), *(labelled(cell) for cell in cells), labelled(copper, "Vacancy")]
    files = {split: tmp_path / f"{split}.xyz" for split in ("train", "test")}
    ase.io.write(files["train"], train)
    ase.io.write(files["test"], [labelled(physics.deformed(copper, np.diag([1, 1, 1.03]))), labelled(bulk("Cu"))])
    table = physics.strained_cells(files, EMT())
    assert table["kind"].value_counts().to_dict() == {"uniaxial": 13, "shear": 4, "none": 1}
    assert sorted(table["strain"][table["kind"] == "shear"].round(4)) == list(strains)
    assert table["strain"][table["split"] == "test"].round(4).tolist() == [0.03]
    assert table["model"].to_numpy() == pytest.approx(table["DFT"].to_numpy(), abs=1e-6)
    constants = physics.elastic_constants(copper)
    assert physics.stiffness(table, "DFT") == pytest.approx({k: constants[k] for k in ("C11", "C44")}, rel=0.02)
    rows = physics.compared(table.assign(model=table["DFT"] + 0.002))
    assert [row["MAE"] for row in rows] == pytest.approx([2.0] * len(rows))
    assert rows[-1]["cells of"] == "train uniaxial"


def test_errors_are_per_atom_and_per_component(copper: Atoms) -> None:
    right, wrong = labelled(copper), labelled(copper)
    wrong.calc.results["energy"] += 0.08
    wrong.calc.results["forces"] = wrong.calc.results["forces"] + np.array([0.3, 0.0, 0.0])
    row = physics.errors([right, wrong], EMT())
    assert row["structures"] == 2
    assert row["MAE, meV/atom"] == pytest.approx(1e3 * 0.08 / 4 / 2)
    assert row["MAE, eV/Å"] == pytest.approx(0.05)
