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

from bdqm_tune.config.config import Data
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.models.prediction import predict_file
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures import read_structures
from bdqm_tune.structures.sealed import seal
from tests.learning.test_potential import random_potential


@pytest.fixture(scope="module")
def potential() -> NetworkPotential:
    return random_potential()


@pytest.fixture
def predict(potential: NetworkPotential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    potential.save(tmp_path / "model")
    stores = Stores(tmp_path / "home")
    return lambda file, out="out.extxyz", **names: predict_file("model", file, Path(out), stores, **names)


def structures() -> list[Atoms]:
    copper = bulk("Cu", cubic=True)
    copper.positions += np.random.default_rng(0).normal(scale=0.05, size=(4, 3))
    return [copper, molecule("H2O"), molecule("OH")]


def labelled(images: list[Atoms], *results: dict[str, Any]) -> list[Atoms]:
    for atoms, given in zip(images, results, strict=True):
        atoms.calc = SinglePointCalculator(atoms, **given)
    return images


@pytest.mark.parametrize("out", ["out.xyz", "out.EXTXYZ", "out.xyz.gz", "out.traj", "a.b.traj"])
def test_the_format_is_that_of_the_name(predict: Callable[..., Any], potential: NetworkPotential, out: str) -> None:
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


def test_labels_stay_beside_the_predictions_and_are_compared(
    predict: Callable[..., Any], potential: NetworkPotential
) -> None:
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
    energies, forces, _ = potential.predict(images)
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


def seeds(n: int) -> list[Atoms]:
    """Structures that no motion makes the same, with energies under two names and forces under one of them."""
    images = []
    for seed in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=seed)
        atoms.info |= {"REF_energy": -3.0 - seed, "id": seed, "kind": "slab"}
        atoms.arrays["REF_forces"] = np.full((4, 3), 0.1 * seed)
        atoms.calc = SinglePointCalculator(atoms, energy=100.0 + seed)
        images.append(atoms)
    return images


@pytest.mark.parametrize("key", [None, "REF_energy"])
def test_no_label_of_a_sealed_structure_is_compared_or_written(
    predict: Callable[..., Any], potential: NetworkPotential, tmp_path: Path, key: str | None
) -> None:
    """Whatever the order, the share and the names: what is sealed are structures, not files."""
    images = seeds(6)
    ase.io.write("test.extxyz", images[:4])
    seal(read_structures("test.extxyz", Data(energy_key=key)), tmp_path / "home")
    for shown in ([0, 1, 2, 3], [3, 1, 0, 2], [2], [4, 1, 5], [5, 4]):
        ase.io.write("in.extxyz", [images[i] for i in shown])
        done = predict("in.extxyz", energy_key=key or "energy", forces_key="REF_forces")
        others = [images[i] for i in shown if i >= 4]
        assert done.sealed == len(shown) - len(others)
        assert ("sealed test structures" in done.note) == bool(done.sealed)
        assert ("energy_mae_per_atom" in done.errors) == ("forces_mae" in done.errors) == bool(others)
        written = ase.io.read("out.extxyz", ":")
        for i, atoms in zip(shown, written, strict=True):
            names = {name for name in (*atoms.info, *atoms.arrays) if name.startswith("REF")}
            assert names == (set() if i < 4 else {"REF_energy", "REF_forces", "REF2_energy"}), shown
            assert (atoms.info["id"], atoms.info["kind"]) == (i, "slab")
            assert atoms.get_potential_energy() == pytest.approx(potential.predict([images[i]], False).energies[0])
        if others:
            true = [atoms.info[key] if key else atoms.get_potential_energy() for atoms in others]
            errors = (potential.predict(others, False).energies - true) / 4
            assert done.errors["energy_mae_per_atom"] == pytest.approx(np.abs(errors).mean())


def test_a_copy_of_a_sealed_structure_is_sealed_too(predict: Callable[..., Any], tmp_path: Path) -> None:
    (atoms,) = seeds(1)
    ase.io.write("test.traj", atoms)
    seal(read_structures("test.traj"), tmp_path / "home")
    twin = atoms[[2, 0, 3, 1]]
    twin.rotate(30, "z", rotate_cell=True)
    twin = twin.repeat((2, 1, 1))
    twin.info = {"energy_of_mine": -6}
    ase.io.write("in.extxyz", labelled([twin], {"energy": 200.0}))
    assert predict("in.extxyz").errors == {}
    assert "energy_of_mine" not in ase.io.read("out.extxyz").info


def test_labels_are_compared_under_the_names_that_are_given(
    predict: Callable[..., Any], potential: NetworkPotential
) -> None:
    images = seeds(3)
    stresses = [np.diag([0.01 * i, 0.02, 0.03]) for i in range(3)]
    for atoms, stress in zip(images, stresses, strict=True):
        atoms.info["dft_virial"] = -stress * atoms.get_volume()
    ase.io.write("in.extxyz", images)
    energies, forces, _ = potential.predict(images)
    assert forces is not None

    usual = predict("in.extxyz")
    assert usual.compared_with == {"energy": "energy"}
    assert usual.errors["energy_mae_per_atom"] == pytest.approx(np.abs(energies - [100, 101, 102]).mean() / 4)
    assert usual.other_labels == [
        "energy is compared with energy; the file also has REF_energy: --energy-key NAME says which is meant",
        "forces is compared with nothing, as there is no forces; the file also has REF_forces: --forces-key NAME says "
        "which is meant",
        "stress is compared with nothing, as there is no stress; the file also has dft_virial: --stress-key NAME says "
        "which is meant",
    ]
    done = predict("in.extxyz", energy_key="REF_energy", forces_key="REF_forces", stress_key="dft_virial")
    assert done.compared_with == {"energy": "REF_energy", "forces": "REF_forces", "stress": "dft_virial"}
    of_forces = [found - atoms.arrays["REF_forces"] for found, atoms in zip(forces, images, strict=True)]
    of_stress = [
        potential.stress(atoms) - stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        for atoms, stress in zip(images, stresses, strict=True)
    ]
    assert {name: done.errors[name] for name in done.errors if "mae" in name} == pytest.approx(
        {
            "energy_mae_per_atom": np.abs(energies - [-3, -4, -5]).mean() / 4,
            "forces_mae": np.abs(of_forces).mean(),
            "stress_mae": np.abs(of_stress).mean(),
        },
        rel=1e-5,
    )
    written = ase.io.read("out.extxyz", 0)
    assert (written.info["REF_energy"], written.info["REF2_energy"]) == (-3.0, 100.0)
    with pytest.raises(BadInput, match=r"no structure has forces .* under the name 'F'; it has REF_forces"):
        predict("in.extxyz", forces_key="F")


def test_the_names_are_those_of_the_configuration_beside_the_model(predict: Callable[..., Any]) -> None:
    ase.io.write("in.extxyz", seeds(2))
    for text, name in {
        "data: {energy_key: REF_energy}": "REF_energy",
        "data: {energy_key: null}": "energy",
        "data: [1]": "energy",
        "no yaml: [": "energy",
    }.items():
        Path("config.yaml").write_text(text)
        assert predict("in.extxyz").compared_with == {"energy": name}, text
    Path("config.yaml").write_text("data: {energy_key: nobody}")
    done = predict("in.extxyz")
    assert done.errors == {}
    assert "there is no nobody; the file also has energy, REF_energy" in done.other_labels[0]


def test_an_ensemble_keeps_the_spread_of_its_forces_in_a_trajectory(
    predict: Callable[..., Any], potential: NetworkPotential, tmp_path: Path
) -> None:
    Ensemble({"a": potential, "b": random_potential({"num_nodes": 5})}).save(tmp_path / "model")
    ase.io.write("in.traj", structures())
    predict("in.traj", "out.traj")
    assert ase.io.read("out.traj", 0).info["forces_std"].shape == (4, 3)
