"""Predictions of a file: in the format of its name, beside what it said before, and compared with that."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.errors import BadInput
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.potential import Potential
from bdqm_tune.models.prediction import SEALED, predict_file
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures import read_structures
from bdqm_tune.structures.sealed import seal
from tests.learning.test_potential import random_potential


@pytest.fixture(scope="module")
def potential() -> Potential:
    return random_potential()


@pytest.fixture
def predict(potential: Potential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    potential.save(tmp_path / "model")
    return lambda file, out="out.extxyz": predict_file("model", file, Path(out), Stores(tmp_path / "home"))


def structures() -> list[Atoms]:
    copper = bulk("Cu", cubic=True)
    copper.positions += np.random.default_rng(0).normal(scale=0.05, size=(4, 3))
    return [copper, molecule("H2O"), molecule("OH")]


def labelled(images: list[Atoms], *results: dict[str, Any]) -> list[Atoms]:
    for atoms, given in zip(images, results, strict=True):
        atoms.calc = SinglePointCalculator(atoms, **given)
    return images


@pytest.mark.parametrize("out", ["out.xyz", "out.EXTXYZ", "out.xyz.gz", "out.traj", "a.b.traj"])
def test_the_format_is_that_of_the_name(predict: Callable[..., Any], potential: Potential, out: str) -> None:
    ase.io.write("in.traj", structures())
    predict("in.traj", out)
    written = ase.io.read(out, ":")
    expected = potential.predict(structures())
    assert expected.forces is not None
    assert [atoms.get_potential_energy() for atoms in written] == pytest.approx(expected.energies)
    for atoms, forces in zip(written, expected.forces, strict=True):
        np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-7)


@pytest.mark.parametrize("out", ["out", "out.cif", "out.traj.gz", "out.json", "out.gz", ".xyz"])
def test_a_name_of_another_format_is_refused_before_anything_is_done(predict: Callable[..., Any], out: str) -> None:
    with pytest.raises(BadInput, match=r"extended XYZ .* or as a trajectory \(\.traj\)"):
        predict("nowhere.traj", out)


def test_labels_stay_beside_the_predictions_and_are_compared(predict: Callable[..., Any], potential: Potential) -> None:
    random = np.random.default_rng(1)
    copper, water, hydroxyl = structures()
    stress = random.normal(scale=0.01, size=6)
    given = [
        {"energy": -3.0, "forces": random.normal(size=(4, 3)), "stress": stress, "magmoms": np.arange(4.0)},
        {"energy": -14.0, "free_energy": -14.5},
        {},
    ]
    ase.io.write("in.traj", labelled([copper, water, hydroxyl], *given))
    done = predict("in.traj", "out.traj")
    images = structures()
    energies, forces = potential.predict(images)
    assert forces is not None
    per_atom = (energies[:2] - [-3.0, -14.0]) / [4, 3]
    of_forces, of_stress = forces[0] - given[0]["forces"], potential.stress(images[0]) - stress
    assert done.errors == pytest.approx(
        {
            "energy_mae_per_atom": np.abs(per_atom).mean(),
            "energy_rmse_per_atom": np.sqrt((per_atom**2).mean()),
            "forces_mae": np.abs(of_forces).mean(),
            "forces_rmse": np.sqrt((of_forces**2).mean()),
            "stress_mae": np.abs(of_stress).mean(),
            "stress_rmse": np.sqrt((of_stress**2).mean()),
        }
    )
    for out in ("out.traj", "out.extxyz"):
        predict("in.traj", out)
        first, second, third = ase.io.read(out, ":")
        kept = {**first.info, **first.arrays}
        assert (kept["REF_energy"], second.info["REF_energy"], second.info["REF_free_energy"]) == (-3.0, -14.0, -14.5)
        np.testing.assert_allclose(kept["REF_forces"], given[0]["forces"], atol=1e-7)
        np.testing.assert_allclose(kept["REF_stress"], stress, atol=1e-7)
        np.testing.assert_allclose(kept["REF_magmoms"], np.arange(4.0))
        np.testing.assert_allclose(first.get_stress(), potential.stress(images[0]), atol=1e-7)
        assert not [name for name in (*third.info, *third.arrays) if name.startswith("REF")]


def test_names_that_the_file_has_already_are_left_to_it(predict: Callable[..., Any]) -> None:
    atoms = molecule("H2O")
    atoms.info["REF_energy"] = -1.0
    atoms.arrays["REF_forces"] = np.ones((3, 3))
    ase.io.write("in.extxyz", labelled([atoms], {"energy": -2.0}))
    done = predict("in.extxyz")
    assert done.errors.keys() == {"energy_mae_per_atom", "energy_rmse_per_atom"}
    written = ase.io.read("out.extxyz")
    assert (written.info["REF_energy"], written.info["REF2_energy"]) == (-1.0, -2.0)
    assert (written.arrays["REF_forces"] == 1).all()


def test_values_that_are_no_numbers_are_no_labels(predict: Callable[..., Any]) -> None:
    atoms = molecule("H2O")
    ase.io.write("in.traj", labelled([atoms], {"energy": np.nan}))
    assert predict("in.traj").errors == {}


def test_of_a_sealed_test_split_no_errors_are_given(predict: Callable[..., Any], tmp_path: Path) -> None:
    ase.io.write("test.traj", labelled([molecule("H2O"), molecule("OH")], {"energy": -14.0}, {"energy": -7.0}))
    seal(read_structures("test.traj"), tmp_path / "home")
    done = predict("test.traj")
    assert done.errors == {}
    assert SEALED in done.note
    ase.io.write("other.traj", ase.io.read("test.traj", "1:"))
    assert predict("other.traj").errors


def test_an_ensemble_keeps_the_spread_of_its_forces_in_a_trajectory(
    predict: Callable[..., Any], potential: Potential, tmp_path: Path
) -> None:
    Ensemble({"a": potential, "b": random_potential({"num_nodes": 5})}).save(tmp_path / "model")
    ase.io.write("in.traj", structures())
    predict("in.traj", "out.traj")
    assert ase.io.read("out.traj", 0).info["forces_std"].shape == (4, 3)
