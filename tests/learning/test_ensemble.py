"""An ensemble: mean and spread of what its members say, by file and in ASE too."""

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors import GMP
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.calculator import EnsembleCalculator, PotentialCalculator, make_calculator
from bdqm_tune.learning.calibration import Calibration
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.ensemble import ENSEMBLE, Ensemble
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import make_network

CALIBRATION = Calibration(np.linspace(0.1, 3, 30), 0.002, 0.9)


def member(dataset: Dataset, seed: int, **options: Any) -> NetworkPotential:
    """A potential with random weights."""
    torch.manual_seed(seed)
    given = Hyperparameters(**{"initialization": "xavier", "num_nodes": 5 + seed, **options})
    return NetworkPotential.from_dataset(dataset, given, make_network(dataset.descriptor.n_features, given, []))


@pytest.fixture
def members(dataset: Dataset) -> dict[str, NetworkPotential]:
    return {f"trial-{seed:03d}": member(dataset, seed, activation="silu") for seed in range(4)}


@pytest.fixture
def structures(dataset: Dataset) -> list[Atoms]:
    return dataset.validation.structures.atoms


def test_it_predicts_mean_and_standard_deviation_of_its_members(
    members: dict[str, NetworkPotential], structures: list[Atoms]
) -> None:
    each = [one.predict(structures) for one in members.values()]
    energies = np.array([one.energies for one in each])
    found = Ensemble(members).predict(structures)
    # The members compute in float32 by themselves.
    np.testing.assert_allclose(found.energies, energies.mean(axis=0), rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.energy_std, energies.std(axis=0, ddof=1), rtol=1e-4)
    assert found.energies.dtype == np.float64
    assert found.forces is not None
    assert found.forces_std is not None
    for k in range(len(structures)):
        forces = np.array([one.forces[k] for one in each if one.forces is not None])
        np.testing.assert_allclose(found.forces[k], forces.mean(axis=0), rtol=0, atol=1e-4)
        np.testing.assert_allclose(found.forces_std[k], forces.std(axis=0, ddof=1), rtol=0, atol=1e-4)
    without = Ensemble(members).predict(structures, forces=False)
    assert without.forces is None
    np.testing.assert_allclose(without.energies, found.energies, rtol=1e-12)
    np.testing.assert_allclose(without.energy_std, found.energy_std, rtol=1e-9)


def test_no_structures_have_no_energies(members: dict[str, NetworkPotential]) -> None:
    for forces in (True, False):
        assert Ensemble(members).predict([], forces).energies.shape == (0,)


def test_mean_and_spread_are_extensive(members: dict[str, NetworkPotential], structures: list[Atoms]) -> None:
    once, thrice = (Ensemble(members).predict([structures[0].repeat((k, 1, 1))]) for k in (1, 3))
    assert thrice.energies[0] == pytest.approx(3 * once.energies[0], rel=1e-9)
    assert thrice.energy_std[0] == pytest.approx(3 * once.energy_std[0], rel=1e-9)


def test_forces_are_minus_the_differences_of_the_mean(
    members: dict[str, NetworkPotential], structures: list[Atoms]
) -> None:
    ensemble, atoms, step = Ensemble(members), structures[0], 1e-4
    (forces,) = ensemble.predict([atoms]).forces or []
    for axis in range(3):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[1, axis] += sign * step
            energies.append(ensemble.predict([moved], forces=False).energies[0])
        assert forces[1, axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), rel=1e-5, abs=1e-6)


def test_what_members_share_is_computed_once(
    members: dict[str, NetworkPotential], structures: list[Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    compute, derivatives = GMP.compute, GMP.with_backward
    monkeypatch.setattr(GMP, "compute", lambda self, atoms: calls.append("features") or compute(self, atoms))
    monkeypatch.setattr(GMP, "with_backward", lambda self, atoms: calls.append("both") or derivatives(self, atoms))
    first = next(iter(members.values()))
    other = dataclasses.replace(first, descriptor=GMP([0, 1, 2], [0.5, 1.0, 1.4], 4.1))
    for together, times in ((members, 1), ({**members, "other": other}, 2)):
        ensemble = Ensemble(together)
        assert len(ensemble.by_descriptor) == times
        calls.clear()
        ensemble.predict(structures[:3], forces=False)
        assert calls == ["features"] * 3 * times
        calls.clear()
        ensemble.predict(structures[:3])
        assert calls == ["both"] * 3 * times
    # Each member has the features of its own descriptor, in its own place.
    expected = other.predict(structures[:3], forces=False).energies
    pair = Ensemble({"a": first, "b": other}).predict(structures[:3], forces=False)
    np.testing.assert_allclose(
        2 * pair.energies - first.predict(structures[:3], forces=False).energies, expected, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("calibration", [None, CALIBRATION])
def test_what_is_saved_and_loaded_predicts_the_same_to_the_last_bit(
    members: dict[str, NetworkPotential], structures: list[Atoms], tmp_path: Path, calibration: Calibration | None
) -> None:
    ensemble = Ensemble(members, calibration)
    ensemble.save(tmp_path / "kept")
    loaded = Ensemble.load(tmp_path / "kept")
    assert list(loaded.members) == list(members)
    for found, expected in zip(loaded.predict(structures)[:2], ensemble.predict(structures)[:2], strict=True):
        np.testing.assert_array_equal(found, expected)
    if calibration is None:
        assert loaded.calibration is None
    else:
        assert loaded.calibration is not None
        assert loaded.calibration.quantile() == calibration.quantile()
        assert (loaded.calibration.floor, loaded.calibration.coverage) == (0.002, 0.9)


def test_one_member_is_none(members: dict[str, NetworkPotential]) -> None:
    with pytest.raises(BadInput, match="at least 2 members, got 1"):
        Ensemble({"only": members["trial-000"]})


def put(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {**content, key: value}


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another format": (put("format", 2), "format"),
    "one member": (put("members", ["trial-000"]), "members"),
    "a member elsewhere": (put("members", ["trial-000", "../trial-001"]), "members.1"),
    "a member that is missing": (put("members", ["trial-000", "trial-009"]), "trial-009: no potential there"),
    "scores out of order": (put("calibration", {"coverage": 0.5, "floor": 1, "scores": [2, 1]}), "ascending"),
    "too few scores": (put("calibration", {"coverage": 0.9, "floor": 1, "scores": [1]}), "at least 9 structures"),
    "no floor": (put("calibration", {"coverage": 0.9, "scores": [1]}), "calibration.floor"),
    "a list": (lambda content: [content], "should be an object"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_ensemble_is_refused(
    members: dict[str, NetworkPotential], tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    Ensemble(members, CALIBRATION).save(tmp_path)
    content = json.loads((tmp_path / ENSEMBLE).read_text(encoding="utf-8"))
    (tmp_path / ENSEMBLE).write_text(json.dumps(change(content)), encoding="utf-8")
    with pytest.raises(BadInput, match=message) as caught:
        Ensemble.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("calibration", [None, CALIBRATION])
def test_the_calculator_says_how_sure_it_is(
    members: dict[str, NetworkPotential], structures: list[Atoms], calibration: Calibration | None
) -> None:
    ensemble = Ensemble(members, calibration)
    atoms = structures[0].copy()
    atoms.calc = make_calculator(ensemble)
    assert isinstance(atoms.calc, EnsembleCalculator)
    expected = ensemble.predict([atoms])
    assert atoms.get_potential_energy() == pytest.approx(expected.energies[0], rel=1e-12)
    assert atoms.calc.results["energy_std"] == pytest.approx(expected.energy_std[0], rel=1e-9)
    assert "forces" not in atoms.calc.results
    with pytest.warns(UserWarning, match="was trained on energies only"):
        forces = atoms.get_forces()
    np.testing.assert_array_equal(forces, (expected.forces or [])[0])
    np.testing.assert_array_equal(atoms.calc.results["forces_std"], (expected.forces_std or [])[0])
    np.testing.assert_array_equal(atoms.calc.get_property("forces_std", atoms), (expected.forces_std or [])[0])
    np.testing.assert_allclose(
        atoms.get_stress(), np.mean([one.stress(atoms) for one in ensemble.members.values()], axis=0), atol=1e-12
    )
    if calibration is None:
        with pytest.raises(PropertyNotImplementedError):
            atoms.calc.get_property("energy_interval", atoms)
    else:
        low, high = atoms.calc.get_property("energy_interval", atoms)
        half = calibration.quantile() * max(expected.energy_std[0], 0.002 * len(atoms))
        assert (low, high) == pytest.approx((expected.energies[0] - half, expected.energies[0] + half), rel=1e-9)


def test_a_relaxation_of_atoms_and_cell_runs(members: dict[str, NetworkPotential], structures: list[Atoms]) -> None:
    atoms = structures[0].copy()
    atoms.calc = make_calculator(Ensemble(members))
    start = atoms.get_potential_energy(force_consistent=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=5)
    assert atoms.get_potential_energy() < start
    assert [str(one.message)[:42] for one in caught if one.category is UserWarning] == [
        "this model was trained on energies only: i"
    ], "one warning, however often forces are asked for"


@pytest.mark.parametrize(("trained", "text"), [(True, ""), (False, "trained on energies only"), (None, "does not say")])
def test_a_calculator_knows_whether_its_forces_were_trained(
    dataset: Dataset, structures: list[Atoms], trained: bool | None, text: str
) -> None:
    calculator = PotentialCalculator(dataclasses.replace(member(dataset, 0), trained_on_forces=trained))
    assert calculator.trained_on_forces is trained
    atoms = structures[0].copy()
    atoms.calc = calculator
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert atoms.get_potential_energy() == atoms.get_potential_energy(force_consistent=True)
        assert caught == [], "nothing is said of forces that nobody asks for"
        atoms.get_forces()
        atoms.rattle(0.01)
        atoms.get_forces()
    assert len(caught) == (text != "")
    assert all(text in str(one.message) for one in caught)


@pytest.mark.parametrize(
    ("known", "together"), [((True, True), True), ((True, False), False), ((True, None), None), ((None, False), False)]
)
def test_an_ensemble_was_trained_on_forces_if_all_members_were(
    dataset: Dataset, known: tuple[bool | None, ...], together: bool | None
) -> None:
    each = {str(k): dataclasses.replace(member(dataset, k), trained_on_forces=one) for k, one in enumerate(known)}
    assert Ensemble(each).trained_on_forces is together
