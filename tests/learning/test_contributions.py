"""What networks contribute, by compiled code and by torch: the same to rounding, also after weights have changed."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.contributions import CompiledContributions, TorchContributions, contributions_of
from bdqm_tune.learning.networks import AtomicNetwork, MixedNN, make_network
from tests.learning.test_potential import NETWORKS, examples_of_all_kinds, random_potential

N_FEATURES = 7
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}
GIVEN: dict[str, dict[str, Any]] = {
    **NETWORKS,
    **{name: {"activation": name, "hidden_layers": [9, 4]} for name in ("tanh", "relu", "gelu", "silu", "softplus")},
    "one layer": {"hidden_layers": [3]},
    "batchnorm, per element": {"network": "per_element", "hidden_layers": [5, 6], "batchnorm": True},
}


def network_of(options: dict[str, Any], dtype: torch.dtype) -> tuple[AtomicNetwork, Hyperparameters]:
    """With random weights and statistics, for H and O where each element has one."""
    torch.manual_seed(3)
    hyperparameters = Hyperparameters(initialization="xavier", **options)
    network = make_network(N_FEATURES, hyperparameters, [1, 8])
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm1d):
            layer.running_mean.normal_()  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return network.to(dtype).eval(), hyperparameters


def inputs(n_atoms: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Features, and numbers of H, O and an element without a network."""
    random = np.random.default_rng(n_atoms)
    return random.normal(size=(n_atoms, N_FEATURES)), random.choice([1, 8, 29], n_atoms)


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_atoms", [1, 3, 450])  # of which the last are more than go through the network together
def test_compiled_code_and_torch_agree(name: str, dtype: torch.dtype, n_atoms: int) -> None:
    network, hyperparameters = network_of(GIVEN[name], dtype)
    compiled, by_torch = contributions_of(network, N_FEATURES, hyperparameters), TorchContributions(network)
    assert isinstance(compiled, CompiledContributions)
    for derive in (True, False):
        (found, gradient), (expected, slope) = (each(*inputs(n_atoms), derive) for each in (compiled, by_torch))
        assert found.dtype == expected.dtype == np.float64
        scale = TOLERANCE[dtype] * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=0, atol=scale)
        assert (gradient is None) == (slope is None) == (not derive)
        if gradient is not None and slope is not None:
            assert np.abs(slope).max() > 0 or name == "relu"
            np.testing.assert_allclose(gradient, slope, rtol=0, atol=TOLERANCE[dtype] * max(1.0, np.abs(slope).max()))


def test_an_atom_without_a_network_contributes_nothing() -> None:
    network, hyperparameters = network_of(GIVEN["per element"], torch.float64)
    features, numbers = inputs(40)
    outputs, gradient = contributions_of(network, N_FEATURES, hyperparameters)(features, numbers, True)
    assert gradient is not None
    assert (outputs[numbers == 29] == 0).all()
    assert (gradient[numbers == 29] == 0).all()
    assert (outputs[numbers != 29] != 0).all()


def test_no_atoms_contribute_nothing() -> None:
    network, hyperparameters = network_of(GIVEN["plain"], torch.float32)
    outputs, _ = contributions_of(network, N_FEATURES, hyperparameters)(*inputs(0), False)
    assert outputs.shape == (0,)


def test_a_network_that_is_not_plain_is_left_to_torch() -> None:
    _, hyperparameters = network_of(GIVEN["per element"], torch.float64)
    mixed = MixedNN(N_FEATURES, hyperparameters, [1, 8]).double().eval()
    assert isinstance(contributions_of(mixed, N_FEATURES, hyperparameters), TorchContributions)
    single, hyperparameters = network_of(GIVEN["plain"], torch.float64)
    assert isinstance(contributions_of(single, N_FEATURES, hyperparameters), CompiledContributions)
    single[0].register_forward_hook(lambda module, given, output: 2 * output)  # type: ignore[index]
    assert isinstance(contributions_of(single, N_FEATURES, hyperparameters), TorchContributions)
    assert not single.training
    assert next(single.parameters()).dtype == torch.float64


@pytest.mark.parametrize("network", NETWORKS)
def test_a_potential_whose_network_is_trained_on_predicts_with_the_new_weights(network: str) -> None:
    potential, structures = random_potential(NETWORKS[network]), examples_of_all_kinds()
    before = potential.predict(structures)
    copies = copy.deepcopy(potential), pickle.loads(pickle.dumps(potential))
    for other in (potential, *copies):
        with torch.no_grad():
            for parameter in other.network.parameters():
                parameter.mul_(0.9)
    after = potential.predict(structures)
    assert np.abs(after.energies - before.energies).min() > 1e-6
    for other in copies:
        assert other.predict(structures).energies.tolist() == after.energies.tolist()
    fresh = random_potential(NETWORKS[network])
    fresh.network.load_state_dict(potential.network.state_dict())
    assert fresh.predict(structures).energies.tolist() == after.energies.tolist()
