"""A trained potential in ASE: molecular dynamics, relaxation, stress."""

import copy
import pickle
from collections.abc import Callable

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from bdqm_tune.backends import make_backend
from bdqm_tune.config.config import Config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.calculator import PotentialCalculator
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.learning.network_potential import NetworkPotential

# A cutoff at which the probes see nothing any more, so that the energy has no steps.
SMOOTH = {"orders": [0, 1, 2], "sigmas": [0.5, 0.9], "cutoff": 7.0, "smooth_cutoff": False}


def copper(n: int) -> list[Atoms]:
    """Strained and rattled copper with EMT energies and forces."""
    random, images = np.random.default_rng(5), []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell * random.uniform(0.96, 1.05), scale_atoms=True)
        atoms.positions += random.normal(scale=random.uniform(0.0, 0.2), size=(4, 3))
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        images.append(atoms)
    return images


@pytest.fixture(scope="module")
def potential(config_for: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> NetworkPotential:
    """Trained on energies and forces."""
    folder = tmp_path_factory.mktemp("copper")
    ase.io.write(folder / "train.traj", copper(60))
    training = {"forces": True, "epochs": 60, "precision": "float64"}
    config = config_for(folder / "train.traj", training=training, descriptor=SMOOTH, **{"": {"device": "cpu"}})
    options = Hyperparameters(hidden_layers=[12, 12], batch_size=8, lr=0.02, force_coefficient=0.3)
    run = make_backend(config, prepare(config, folder / "home")).start(options, seed=0)
    records = list(run)
    assert run.best is not None
    assert (run.best.val_forces_mae or 9.0) < 0.3 * (records[0].val_forces_mae or 0.0)
    return run.potential()


@pytest.fixture
def rattled(potential: NetworkPotential) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.positions += np.random.default_rng(6).normal(scale=0.1, size=(4, 3))
    atoms.calc = PotentialCalculator(potential)
    return atoms


def test_it_gives_what_the_potential_predicts(potential: NetworkPotential, rattled: Atoms) -> None:
    for _ in range(2):
        energies, forces, _ = potential.predict([rattled])
        assert rattled.get_potential_energy() == pytest.approx(energies[0], rel=1e-12)
        assert forces is not None
        np.testing.assert_array_equal(rattled.get_forces(), forces[0])
        np.testing.assert_array_equal(rattled.get_stress(), potential.stress(rattled))
        rattled.positions[0] += 0.2


def test_energy_forces_and_stress_of_a_structure_are_computed_once(
    potential: NetworkPotential, rattled: Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, calls = type(potential.descriptor), []
    both, features = kind.with_backward, kind.compute
    monkeypatch.setattr(kind, "with_backward", lambda self, atoms: calls.append("both") or both(self, atoms))
    monkeypatch.setattr(kind, "compute", lambda self, atoms: calls.append("features") or features(self, atoms))
    for first, names in (("forces", ["both"]), ("stress", ["both"]), ("energy", ["features", "both"])):
        calls.clear()
        rattled.positions[0] += 0.01
        for name in (first, "energy", "forces", "stress", "free_energy"):
            rattled.calc.get_property(name, rattled)
        assert calls == names


def test_the_forces_of_copper_are_close_to_those_of_effective_medium_theory(rattled: Atoms) -> None:
    reference = rattled.copy()
    reference.calc = EMT()
    assert np.abs(rattled.get_forces() - reference.get_forces()).mean() < 0.25 * np.abs(reference.get_forces()).mean()


def test_molecular_dynamics_conserves_the_energy(rattled: Atoms) -> None:
    widths = np.sqrt(rattled.get_masses() * 300 * units.kB)[:, None]
    rattled.set_momenta(np.random.default_rng(7).normal(size=(len(rattled), 3)) * widths)
    totals, potentials = [], []
    dynamics = VelocityVerlet(rattled, timestep=2 * units.fs)
    dynamics.attach(lambda: totals.append(rattled.get_total_energy()))
    dynamics.attach(lambda: potentials.append(rattled.get_potential_energy()))
    dynamics.run(200)
    # Some part in a hundred of what goes to and fro between the two forms, and no drift.
    assert np.ptp(totals) < 0.02 * np.ptp(potentials)
    assert abs(np.mean(totals[-50:]) - np.mean(totals[:50])) < 1e-3 * len(rattled)


def test_a_relaxation_ends_where_no_force_acts(rattled: Atoms) -> None:
    start = rattled.get_potential_energy()
    assert BFGS(rattled, logfile=None).run(fmax=0.01, steps=200)
    assert np.linalg.norm(rattled.get_forces(), axis=1).max() < 0.01
    assert rattled.get_potential_energy() < start


def test_a_relaxation_of_the_cell_finds_the_lattice_constant_of_the_energy(rattled: Atoms) -> None:
    assert BFGS(FrechetCellFilter(rattled), logfile=None).run(fmax=0.01, steps=200)
    assert np.abs(rattled.get_stress()).max() < 1e-3
    assert (rattled.get_volume() / 4) == pytest.approx(bulk("Cu", a=3.6).get_volume(), rel=0.05)


@pytest.mark.parametrize("atoms", [molecule("H2O"), Atoms("Cu", cell=[4, 4, 4])], ids=["molecule", "not periodic"])
def test_there_is_no_stress_without_a_periodic_cell(potential: NetworkPotential, atoms: Atoms) -> None:
    atoms.calc = PotentialCalculator(potential)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_results_are_of_the_structure_that_is_asked_about(potential: NetworkPotential, rattled: Atoms) -> None:
    a, b = rattled.copy(), rattled.copy()
    b.positions[0] += 0.2
    moved, strained, other_pbc = (a.copy() for _ in range(3))
    moved.positions[1, 2] -= 1e-6
    strained.set_cell(a.cell * 1.01)
    other_pbc.pbc = [True, True, False]
    fresh = {name: PotentialCalculator(potential).get_property(name, b) for name in ("energy", "free_energy", "forces")}
    wrong = []
    for name, value in fresh.items():
        for first in ("energy", "forces", "stress"):
            for asked in ("get_property", "calculate", "copied"):
                calculator = PotentialCalculator(potential)
                calculator.calculate(a, [first])
                if asked == "calculate":
                    calculator.calculate(b, ["energy"])
                if asked == "copied":
                    copy.copy(calculator).calculate(b, ["energy"])
                    if "forces" in calculator.results and not np.array_equal(
                        calculator.get_property("forces", a), PotentialCalculator(potential).get_forces(a)
                    ):
                        wrong.append((name, first, "of the copy's structure"))
                if not np.allclose(calculator.get_property(name, b), value, rtol=1e-12, atol=1e-12):
                    wrong.append((name, first, asked))
    shared = PotentialCalculator(potential)
    for atoms in (moved, strained, other_pbc, a.repeat((2, 1, 1)), moved):
        shared.calculate(a, ["forces", "energy"])
        shared.calculate(atoms, ["energy"])
        expected = PotentialCalculator(potential)
        for name in ("forces", "energy"):
            if not np.allclose(shared.get_property(name, atoms), expected.get_property(name, atoms), atol=1e-12):
                wrong.append((name, str(atoms.symbols), "changed"))
    assert wrong == []


def test_a_failed_request_leaves_no_results_of_the_structure_before(
    potential: NetworkPotential, rattled: Atoms
) -> None:
    calculator = PotentialCalculator(potential)
    calculator.calculate(rattled, ["energy", "forces"])
    far = rattled.copy()
    far.symbols[0] = "Pd"
    for _ in range(2):
        with pytest.raises(BadInput, match="Pd"):
            calculator.calculate(far, ["energy"])
        with pytest.raises(BadInput, match="Pd"):
            calculator.get_property("forces", far)
    assert calculator.get_forces(rattled).shape == (4, 3)


def test_copies_and_pickles_give_the_same(potential: NetworkPotential, rattled: Atoms) -> None:
    expected = PotentialCalculator(potential).get_property("forces", rattled)
    calculator = rattled.calc
    rattled.get_potential_energy()
    for other in (copy.copy(calculator), copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        moved = rattled.copy()
        moved.positions[0] += 0.3
        other.get_property("energy", moved)
        np.testing.assert_array_equal(other.get_property("forces", rattled), expected)
    np.testing.assert_array_equal(calculator.get_property("forces", rattled), expected)
