"""A model of MACE as a potential: the laws of physics, and the same after it was written and read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import fcc111, molecule
from ase.stress import full_3x3_to_voigt_6_stress

from bdqm_tune.backends.mace_potential import MacePotential
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.calculator import PotentialCalculator
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.potential import read_potential
from tests.backends.mace_data import alloys, prepared, start


@pytest.fixture(scope="module")
def potential(require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> MacePotential:
    require("mace")
    config, dataset = prepared(tmp_path_factory.mktemp("alloys"), training={"epochs": 1})
    run = start(config, dataset, max_L=1)
    list(run)
    return run.potential()


def slab() -> Atoms:
    atoms = fcc111("Cu", (2, 1, 3), a=3.7, vacuum=4.0, periodic=False, orthogonal=False)
    atoms.pbc = [True, True, False]
    atoms.rattle(0.1, seed=1)
    atoms.symbols[2] = "Au"
    return atoms


CASES = {
    "crystal": lambda: alloys(1, 7)[0],
    "slab": slab,
    "cluster": lambda: Atoms("CuAu2", [[0, 0, 0.1], [2.4, 0, 0], [0, 2.5, 0.3]]),
}


@pytest.fixture(params=CASES)
def atoms(request: pytest.FixtureRequest) -> Atoms:
    found: Atoms = CASES[request.param]()
    found.calc = None
    return found


def test_forces_are_the_derivatives_of_the_energy(potential: MacePotential, atoms: Atoms) -> None:
    forces = potential.results(atoms)["forces"]
    for i, axis in ((0, 0), (1, 2), (2, 1)):
        energies = []
        for step in (1e-4, -1e-4):
            moved = atoms.copy()
            moved.positions[i, axis] += step
            moved.calc = PotentialCalculator(potential)
            energies.append(moved.get_potential_energy())
        assert forces[i, axis] == pytest.approx((energies[1] - energies[0]) / 2e-4, abs=1e-6)
    assert forces.sum(axis=0) == pytest.approx(np.zeros(3), abs=1e-9)


@pytest.mark.parametrize("case", ["crystal", "slab"])
def test_stress_is_the_derivative_by_the_strain(potential: MacePotential, case: str) -> None:
    atoms, step = CASES[case](), 1e-4
    expected = np.zeros((3, 3))
    for i in range(3):
        for j in range(i, 3):
            energies = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[i, j] += sign * step / 2
                strain[j, i] += sign * step / 2
                strained = Atoms(atoms.numbers, atoms.positions @ strain, cell=atoms.cell @ strain, pbc=atoms.pbc)
                energies.append(potential.results(strained, False)["energy"])
            expected[i, j] = expected[j, i] = (energies[0] - energies[1]) / (2 * step * atoms.cell.volume)
    assert potential.stress(atoms) == pytest.approx(full_3x3_to_voigt_6_stress(expected), abs=1e-7)


def test_what_is_not_periodic_has_no_stress(potential: MacePotential) -> None:
    assert potential.results(CASES["cluster"]()).keys() == {"energy", "forces"}
    with pytest.raises(BadInput, match="a stress needs a periodic structure"):
        potential.stress(CASES["cluster"]())


def test_the_energy_does_not_depend_on_how_a_structure_is_written(potential: MacePotential, atoms: Atoms) -> None:
    found = potential.results(atoms)
    turned = atoms.copy()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    order = np.random.default_rng(0).permutation(len(atoms))
    shifted = atoms.copy()
    shifted.positions += [0.3, 0.2, -0.1]
    others = [turned, atoms[order], shifted] if atoms.pbc.all() or not atoms.pbc.any() else [atoms[order], shifted]
    for other in others:
        assert potential.results(other)["energy"] == pytest.approx(found["energy"], abs=1e-9)
    assert potential.results(atoms[order])["forces"] == pytest.approx(found["forces"][order], abs=1e-9)
    if atoms.pbc.all():
        assert potential.results(atoms.repeat((1, 2, 1)))["energy"] == pytest.approx(2 * found["energy"], abs=1e-9)


def test_far_atoms_have_their_reference_energies(potential: MacePotential) -> None:
    energy = potential.results(Atoms("Cu"))["energy"]
    assert energy == pytest.approx(potential.references.per_element[29], abs=1e-12)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_it_is_the_same_after_it_was_written_and_read(potential: MacePotential, tmp_path: Path, precision: str) -> None:
    saved = potential.in_precision(precision)  # type: ignore[arg-type]
    saved.save(tmp_path / "model")
    assert {file.suffix for file in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}
    found = read_potential(tmp_path / "model")
    assert isinstance(found, MacePotential)
    for name in ("arguments", "precision", "references", "known_elements", "trained_on_forces", "n_parameters", "mace"):
        assert getattr(found, name) == getattr(saved, name), name
    structures = alloys(3, 8)
    mine, read = saved.predict(structures), found.predict(structures)
    assert mine.energies.tolist() == read.energies.tolist()
    assert np.array_equal(np.concatenate(mine.forces or []), np.concatenate(read.forces or []))
    assert mine.energies == pytest.approx(potential.predict(structures).energies, abs=1e-4)
    assert torch.get_default_dtype() == torch.float32


def test_ensembles_have_it_as_a_member(potential: MacePotential, tmp_path: Path) -> None:
    Ensemble({"a": potential, "b": potential.in_precision("float32")}).save(tmp_path / "ensemble")
    found = Ensemble.load(tmp_path / "ensemble").results(alloys(1, 8)[0])
    expected = potential.results(alloys(1, 8)[0])
    assert found["energy"] == pytest.approx(expected["energy"], abs=1e-5)
    assert found["stress"] == pytest.approx(expected["stress"], abs=1e-5)


def test_mace_itself_predicts_the_same(potential: MacePotential) -> None:
    from mace.calculators import MACECalculator

    atoms = alloys(1, 9)[0]
    expected = potential.results(atoms)
    atoms.calc = MACECalculator(models=[potential.to_mace()], device="cpu", default_dtype="float64")
    torch.set_default_dtype(torch.float32)  # which the calculator changed
    assert atoms.get_potential_energy() == pytest.approx(expected["energy"], abs=1e-9)
    assert atoms.get_forces() == pytest.approx(expected["forces"], abs=1e-9)
    assert atoms.get_stress() == pytest.approx(expected["stress"], abs=1e-9)
    torch.set_default_dtype(torch.float32)


def test_elements_that_it_does_not_know_are_refused(potential: MacePotential) -> None:
    water = molecule("H2O")
    with pytest.raises(BadInput, match="was not trained on H, O, but on Cu, Au"):
        potential.results(water)
    with (
        pytest.warns(UserWarning, match="was not trained on"),
        pytest.raises(BadInput, match="a model of mace cannot predict H, O: it has Cu, Au"),
    ):
        potential.results(water, allow_unknown_elements=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arguments": {}}, "not a potential that can be read"),
        ({"precision": "float16"}, "potential.json: precision"),
        ({"format": 2}, "potential.json: format"),
        ({"reference_energies": {"Xx": 1.0, "Qq": 2.0}}, "not a potential that can be read"),
    ],
)
def test_a_damaged_model_is_refused(potential: MacePotential, tmp_path: Path, change: dict, message: str) -> None:
    potential.save(tmp_path / "model")
    file = tmp_path / "model" / "potential.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(BadInput, match=message):
        read_potential(tmp_path / "model")


def test_missing_or_foreign_weights_are_refused(potential: MacePotential, tmp_path: Path) -> None:
    potential.save(tmp_path / "model")
    content = json.loads((tmp_path / "model" / "potential.json").read_text())
    content["arguments"]["correlation"] = 1
    shutil.copytree(tmp_path / "model", tmp_path / "other")
    (tmp_path / "other" / "potential.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match="not a potential that can be read"):
        read_potential(tmp_path / "other")
    (tmp_path / "model" / "potential.safetensors").unlink()
    with pytest.raises(BadInput, match="potential.safetensors"):
        read_potential(tmp_path / "model")
