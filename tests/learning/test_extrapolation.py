"""How far a structure is outside the training split."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors import GMP
from bdqm_tune.learning.calculator import make_calculator
from bdqm_tune.learning.extrapolation import FAR, far_outside
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import make_network
from bdqm_tune.learning.scalers import ElementScaler, FeatureScaler, Scaling, fit_scaler
from bdqm_tune.learning.targets import NO_REFERENCES


def rattled(n: int = 20, scale: float = 0.1) -> list[Atoms]:
    random, images = np.random.default_rng(4), []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += random.normal(scale=scale, size=atoms.positions.shape)
        images.append(atoms)
    return images


def potential(scaling: Scaling, per_element: bool = False) -> NetworkPotential:
    descriptor = GMP([0, 1], [0.5, 1.0], 5.0)
    features = np.concatenate([descriptor.compute(atoms) for atoms in rattled()])
    numbers = np.full(len(features), 29)
    scaler = fit_scaler(
        lambda: [(features[:30], numbers[:30]), (features[30:], numbers[30:])], scaling, (0, 1), per_element
    )
    hyperparameters = Hyperparameters(hidden_layers=[3])
    network = make_network(descriptor.n_features, hyperparameters, [29])
    return NetworkPotential(
        descriptor, scaler, NO_REFERENCES, 1.0, hyperparameters, network.eval(), known_elements=(29,)
    )


@pytest.mark.parametrize("per_element", [False, True])
@pytest.mark.parametrize("scaling", ["whiten", "standardise", "normalise", "log"])
def test_the_training_split_is_inside_and_compressed_cells_are_not(
    scaling: Scaling, per_element: bool, tmp_path: Path
) -> None:
    potential(scaling, per_element).save(tmp_path)
    one = NetworkPotential.load(tmp_path)
    inside = one.predict(rattled(), forces=False).extrapolation
    assert inside is not None
    assert inside.max() < 1e-9
    found = []
    for ratio in (1.0, 0.95, 0.9, 0.85):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell * ratio, scale_atoms=True)
        with_forces, without = one.predict([atoms]).extrapolation, one.predict([atoms], False).extrapolation
        assert with_forces is not None
        assert without is not None
        assert with_forces == pytest.approx(without)
        found.append(with_forces[0])
    assert found == sorted(found)
    assert found[-1] > FAR


def test_it_is_measured_in_widths_of_the_range_along_the_worst_axis() -> None:
    limits = np.array([[0.0, 10.0, 5.0], [2.0, 30.0, 5.0]])
    scaler = FeatureScaler(np.zeros(3), np.array([2.0, 2.0, 1.0]), range=limits)
    features = np.array([[1.0, 20.0, 5.0], [3.0, 20.0, 5.0], [1.0, 0.0, 5.0], [-4.0, 40.0, 5.0], [1.0, 20.0, 5.5]])
    inputs = scaler(features)
    outside = scaler.outside(inputs)
    assert outside is not None
    assert outside.tolist() == [0.0, 0.5, 0.5, 2.0, 0.5]
    assert FeatureScaler(np.zeros(3), np.ones(3)).outside(inputs) is None
    both = ElementScaler({1: scaler}, FeatureScaler(np.zeros(3), np.ones(3)))
    assert both.outside(inputs, np.full(5, 1)).tolist() == outside.tolist()  # type: ignore[union-attr]
    assert both.outside(inputs, np.array([1, 1, 1, 1, 8])) is None


def test_the_calculator_says_so_once(tmp_path: Path) -> None:
    calculator = make_calculator(potential("whiten"))
    calculator.trained_on_forces = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inside = rattled(1)[0]
        inside.calc = calculator
        inside.get_potential_energy()
    assert calculator.results["extrapolation"] < 1e-9
    squeezed = bulk("Cu", a=2.9)
    squeezed.calc = calculator
    with pytest.warns(UserWarning, match="far from those of the training split, by up to"):
        squeezed.get_potential_energy()
    assert calculator.results["extrapolation"] > FAR
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        squeezed.set_cell(squeezed.cell * 0.99, scale_atoms=True)
        squeezed.get_potential_energy()


def test_the_warning_names_how_many_and_the_worst() -> None:
    assert far_outside([0.1, None, 0.4], ["a", "b", "c"]) == ""
    message = far_outside([0.1, 3.21, 0.6], ["a", "b", "c"])
    assert "2 of 3 structures have atoms" in message
    assert "3.2 times its width (b)" in message
