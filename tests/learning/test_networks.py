"""Networks: their layers, how they start, and a network of its own for each element."""

import pytest
import torch

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.networks import PerElementNN, SingleNN, make_network

ELEMENTS = [1, 8, 29]


def atoms(seed: int, n: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of atoms of three elements that have a network and one, Au, that has none."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return features, torch.tensor([1, 8, 29, 79])[torch.randint(0, 4, (n,), generator=generator)]


def per_element(**hyperparameters: object) -> PerElementNN:
    torch.manual_seed(0)
    options = {"num_nodes": 5, "initialization": "xavier", "network": "per_element", **hyperparameters}
    network = make_network(4, Hyperparameters(**options), ELEMENTS).double()  # type: ignore[arg-type]
    assert isinstance(network, PerElementNN)
    return network


def sizes(network: SingleNN) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in network if isinstance(m, torch.nn.Linear)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_layers": 2, "num_nodes": 6}, [(4, 6), (6, 6), (6, 1)]),
        ({"hidden_layers": [7, 3, 5]}, [(4, 7), (7, 3), (3, 5), (5, 1)]),
        ({"hidden_layers": "9x2"}, [(4, 9), (9, 2), (2, 1)]),
    ],
)
def test_layers_are_those_that_are_asked_for(options: dict[str, object], expected: list[tuple[int, int]]) -> None:
    assert sizes(SingleNN(4, Hyperparameters(**options))) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "at_one"),
    [("tanh", 0.76159), ("relu", 1.0), ("gelu", 0.84134), ("silu", 0.73106), ("softplus", 1.31326)],
)
def test_activations_are_the_functions_of_their_names(name: str, at_one: float) -> None:
    network = SingleNN(1, Hyperparameters(hidden_layers=[1], activation=name))  # type: ignore[arg-type]
    assert float(network[1](torch.ones(1))) == pytest.approx(at_one, abs=1e-5)


def test_xavier_fills_weights_within_its_bound_and_no_biases() -> None:
    network = SingleNN(30, Hyperparameters(hidden_layers=[50, 20], initialization="xavier"))
    for layer in network:
        if isinstance(layer, torch.nn.Linear):
            bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
            assert 0.8 * bound < float(layer.weight.detach().abs().max()) <= bound
            assert not layer.bias.detach().any()


@pytest.mark.parametrize("network", ["single", "per_element"])
def test_zero_starts_with_no_contribution(network: str) -> None:
    made = make_network(4, Hyperparameters(network=network), ELEMENTS).double()  # type: ignore[arg-type]
    assert not made(*atoms(1)).detach().any()


@pytest.mark.parametrize("batchnorm", [False, True])
def test_each_atom_goes_through_the_network_of_its_element(batchnorm: bool) -> None:
    network = per_element(batchnorm=batchnorm).eval()
    features, numbers = atoms(2)
    symbols = {1: "H", 8: "O", 29: "Cu"}
    for row, z, output in zip(features, numbers.tolist(), network(features, numbers), strict=True):
        expected = network.networks[symbols[z]](row[None]).squeeze() if z in symbols else 0.0
        assert float(output.detach()) == pytest.approx(float(expected), rel=1e-12)


def test_elements_do_not_share_weights() -> None:
    network = per_element()
    features = torch.ones(3, 4, dtype=torch.float64)
    outputs = network(features, torch.tensor(ELEMENTS))[:, 0]
    assert len(set(outputs.tolist())) == 3
    outputs[0].backward()
    touched = {name: p.grad is not None and bool(p.grad.any()) for name, p in network.named_parameters()}
    assert any(touched.values())
    assert not any(seen for name, seen in touched.items() if not name.startswith("networks.H."))
    assert network.n_parameters == 3 * SingleNN(4, Hyperparameters(num_nodes=5)).n_parameters


def test_the_order_of_the_atoms_does_not_matter() -> None:
    network = per_element()
    features, numbers = atoms(3)
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(4))
    permuted = network(features[order], numbers[order])
    assert torch.allclose(permuted, network(features, numbers)[order], rtol=1e-12)


def test_a_single_atom_of_an_element_can_be_trained_with_batch_normalisation() -> None:
    network = per_element(batchnorm=True).train()
    features, numbers = atoms(5, n=6)
    numbers[:] = 8
    numbers[2] = 29
    before = network.networks["Cu"][1].running_mean.clone()
    output = network(features, numbers)
    assert torch.isfinite(output).all()
    assert torch.equal(network.networks["Cu"][1].running_mean, before)
    assert not torch.equal(network.networks["O"][1].running_mean, torch.zeros(5, dtype=torch.float64))


def test_derivatives_by_the_features_are_those_of_finite_differences() -> None:
    network = per_element(activation="softplus")
    features, numbers = atoms(6, n=7)
    assert torch.autograd.gradcheck(lambda x: network(x, numbers), features.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x: network(x, numbers), features)
