"""Anyone who changes the network trains that network: a trainer that does not know it leaves it to torch."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bdqm_tune.backends.native import NativeBackend
from bdqm_tune.config.config import Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning import networks
from bdqm_tune.learning.batched import BatchedTrainer
from bdqm_tune.learning.batches import SplitTensors
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.fit import Fit
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import SingleNN, make_network
from bdqm_tune.learning.plain_network import OtherNetwork, is_plain

N_FEATURES, SCALE = 4, 2.5
OPTIONS = Hyperparameters(hidden_layers=[6, 6, 6], batchnorm=True, dropout=True, dropout_rate=0.2, batch_size=4)
PLAIN = Hyperparameters(hidden_layers=[6, 6, 6], batch_size=4)
# Without batch normalisation and dropout the layers are Linear, Tanh, Linear, Tanh, Linear, Tanh, Linear.
Change = Callable[[SingleNN], object]


def replace(place: int, layer: nn.Module) -> Change:
    return lambda network: network.__setitem__(place, copy.deepcopy(layer))


def first(kind: type[nn.Module], change: Callable[[nn.Module], object]) -> Change:
    return lambda network: change(next(layer for layer in network if isinstance(layer, kind)))


def tie_memory(network: SingleNN) -> None:
    network[4].weight.data = network[2].weight.data


def halve(weight: torch.Tensor) -> None:
    assert weight.grad is not None
    weight.grad *= 0.5


class Residual(nn.Linear):
    """Adds its product to what comes in."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input + super().forward(input)


CHANGES: dict[str, Change] = {
    "a layer more": lambda network: network.insert(2, nn.Linear(6, 6)),
    "a hidden layer more": lambda network: network.insert(2, nn.Linear(6, 6)).insert(3, nn.Tanh()),
    "an activation more": lambda network: network.append(nn.Tanh()),
    "a normalisation more": lambda network: network.insert(2, nn.LayerNorm(6)),
    "a residual block": replace(3, Residual(6, 6)),
    "a layer less": lambda network: network.pop(3),
    "a hidden layer less": lambda network: (network.pop(3), network.pop(2)),
    "a wider layer": lambda network: (replace(2, nn.Linear(6, 9))(network), replace(4, nn.Linear(9, 6))(network)),
    "no bias": replace(2, nn.Linear(6, 6, bias=False)),
    "another activation": replace(1, nn.ELU()),
    "an activation with weights": replace(1, nn.PReLU()),
    "a frozen layer": lambda network: network[2].requires_grad_(False),
    "a frozen bias": lambda network: network[0].bias.requires_grad_(False),
    "a layer twice": lambda network: network.__setitem__(4, network[2]),
    "weights tied": lambda network: setattr(network[4], "weight", network[2].weight),
    "memory in common": tie_memory,
    "a weight of its own": lambda network: network.register_parameter("shift", nn.Parameter(torch.zeros(1))),
    "double precision": lambda network: network[2].double(),
    "normalised weights": lambda network: nn.utils.parametrizations.weight_norm(network[2]),
    "a hook": lambda network: network[1].register_forward_hook(lambda module, given, value: 2 * value),
    "a hook before": lambda network: network.register_forward_pre_hook(lambda module, given: (given[0] ** 2,)),
    "a hook that only looks": lambda network: network[1].register_forward_hook(lambda *_: None),
    "a hook of gradients": lambda network: network[1].register_full_backward_hook(lambda module, given, _: given),
    "a clipped gradient": lambda network: network[2].weight.register_hook(lambda gradient: gradient.clamp(-1, 1)),
    "a gradient changed in place": lambda network: network[2].weight.register_post_accumulate_grad_hook(halve),
    "a forward of this object": lambda network: setattr(
        network, "forward", lambda features, numbers=None: SingleNN.forward(network, features).tanh()
    ),
    "a forward of a layer": lambda network: setattr(network[1], "forward", torch.sin),
}
NORMALISED: dict[str, Change] = {
    "another share left out": first(nn.Dropout, lambda layer: setattr(layer, "p", 0.5)),
    "another epsilon": first(nn.BatchNorm1d, lambda layer: setattr(layer, "eps", 1e-3)),
    "another momentum": first(nn.BatchNorm1d, lambda layer: setattr(layer, "momentum", 0.5)),
    "no gains": lambda network: replace(1, networks.BatchNorm(6, affine=False))(network),
    "no running statistics": lambda network: replace(1, networks.BatchNorm(6, track_running_stats=False))(network),
}
SETTINGS: dict[str, tuple[str, nn.Module]] = {
    "another slope of softplus": ("softplus", nn.Softplus(beta=2.0)),
    "an approximate gelu": ("gelu", nn.GELU("tanh")),
    "a relu in place": ("relu", nn.ReLU(inplace=True)),
}


def split(seed: int, n: int) -> SplitTensors:
    random = np.random.default_rng(seed)
    sizes = random.integers(2, 9, n)
    features = random.normal(size=(sizes.sum(), N_FEATURES))
    targets = np.add.reduceat(np.tanh(features[:, 0]), np.cumsum(sizes) - sizes)
    return SplitTensors(features, sizes, targets, torch.device("cpu"), torch.float64)


TRAIN, VALIDATION = split(1, 13), split(2, 5)


def fit(options: Hyperparameters, compiled: bool | None = None, trainer: BatchedTrainer | None = None) -> Fit:
    training = Training(epochs=2, early_stopping=None)
    return Fit(options, training, TRAIN, VALIDATION, SCALE, 0, compiled=compiled, trainer=trainer)


def changed(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """As if the change stood at the end of `SingleNN.__init__`."""
    made = SingleNN.__init__

    def init(self: SingleNN, n_features: int, hyperparameters: Hyperparameters) -> None:
        made(self, n_features, hyperparameters)
        change(self)

    monkeypatch.setattr(SingleNN, "__init__", init)


def by_hand(network: nn.Module) -> float:
    """The validation MAE, structure by structure."""
    assert VALIDATION.features is not None
    outputs, total, begin = network(VALIDATION.features)[:, 0].tolist(), 0.0, 0
    for n, target in zip(VALIDATION.n_atoms.tolist(), VALIDATION.targets.tolist(), strict=True):
        total += abs(sum(outputs[begin : begin + n]) - target)
        begin += n
    return SCALE * total / len(VALIDATION)


def check(options: Hyperparameters) -> None:
    """The network is left to torch, and its errors are those of the network that is kept."""
    assert not is_plain(make_network(N_FEATURES, options, []), N_FEATURES, options)
    training = fit(options)
    assert training.engine == fit(options, trainer=BatchedTrainer()).engine == "TorchEpochs"
    assert len(list(training)) == 2
    assert training.best is not None
    assert by_hand(training.best_network) == pytest.approx(training.best.val_energy_mae, rel=1e-9)
    with pytest.raises(OtherNetwork):
        fit(options, compiled=True)


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_network_is_trained_as_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, CHANGES[name])
    check(PLAIN)


@pytest.mark.parametrize("name", NORMALISED)
def test_changed_settings_of_normalisation_and_dropout_hold(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, NORMALISED[name])
    check(OPTIONS)


@pytest.mark.parametrize("name", SETTINGS)
def test_changed_settings_of_an_activation_hold(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    activation, layer = SETTINGS[name]
    changed(monkeypatch, replace(1, layer))
    check(PLAIN.model_copy(update={"activation": activation}))


def test_another_activation_under_a_known_name_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.ACTIVATIONS, "silu", nn.Hardswish)
    check(PLAIN)


Forward = Callable[[SingleNN, torch.Tensor], torch.Tensor]
FORWARDS: dict[str, Forward] = {
    "scaled": lambda network, x: 1.001 * nn.Sequential.forward(network, x),
    "a skip": lambda network, x: nn.Sequential.forward(network, x) + x[:, :1],
    "a bound on large values": lambda network, x: nn.Sequential.forward(network, x.clamp(-30, 30)),
    "noise in training": lambda network, x: nn.Sequential.forward(
        network, x + 0.01 * torch.randn_like(x) * network.training
    ),
    "a constant in evaluation": lambda network, x: nn.Sequential.forward(network, x) + (not network.training),
    "no gradient through the first layer": lambda network, x: nn.Sequential(*list(network)[1:])(network[0](x).detach()),
}


@pytest.mark.parametrize("initialization", ["xavier", "zero"])
def test_what_the_class_computes_is_compared_too(initialization: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = PLAIN.model_copy(update={"initialization": initialization})
    taken = []
    for name, forward in FORWARDS.items():
        with monkeypatch.context() as patch:
            patch.setattr(SingleNN, "forward", lambda self, x, numbers=None, forward=forward: forward(self, x))
            if is_plain(make_network(N_FEATURES, options, []), N_FEATURES, options):
                taken.append(name)
            elif initialization == "xavier":
                check(options)
    assert not taken


def test_a_class_of_its_own_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    class Squared(SingleNN):
        def forward(self, features: torch.Tensor, numbers: torch.Tensor | None = None) -> torch.Tensor:
            return super().forward(features) ** 2

    monkeypatch.setattr(networks, "SingleNN", Squared)
    check(PLAIN)


def test_another_normalisation_of_the_class_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = nn.BatchNorm1d.forward
    monkeypatch.setattr(networks.BatchNorm, "forward", lambda self, x: plain(self, x).tanh())
    check(OPTIONS)


def test_as_it_stands_every_network_is_taken() -> None:
    left, choices = (
        [],
        itertools.product(
            ["tanh", "relu", "gelu", "silu", "softplus"], [False, True], [False, True], ["default", "xavier", "zero"]
        ),
    )
    for activation, batchnorm, dropout, initialization in choices:
        options = Hyperparameters(
            hidden_layers=[5, 3],
            activation=activation,
            batchnorm=batchnorm,
            dropout=dropout,
            initialization=initialization,
        )
        state = torch.get_rng_state()
        network = make_network(N_FEATURES, options, [])
        weights = {name: value.clone() for name, value in network.state_dict().items()}
        drawn = torch.get_rng_state()
        if not is_plain(network, N_FEATURES, options):
            left.append(options)
        assert torch.equal(torch.get_rng_state(), drawn)
        assert not torch.equal(state, drawn)
        assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())
    assert not left
    assert fit(PLAIN).engine == "CompiledEpochs"
    assert fit(PLAIN, trainer=BatchedTrainer()).engine == "BatchedEpochs"


def test_a_network_that_draws_random_numbers_draws_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, lambda network: network.insert(1, nn.Dropout(0.4)))
    state, losses = torch.get_rng_state(), []
    for _ in range(2):
        losses.append([record.train_loss for record in fit(PLAIN)])
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(17)
        state = torch.get_rng_state()
    assert losses[0] == losses[1]
    assert losses[0] != [record.train_loss for record in fit(PLAIN.model_copy(update={"lr": 0.004}))]


def test_running_statistics_begin_where_the_network_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, first(nn.BatchNorm1d, lambda layer: layer.running_mean.add_(0.7)))
    options = OPTIONS.model_copy(update={"dropout": False})
    expected = [record.val_energy_mae for record in fit(options, compiled=False)]
    for trainer in (None, BatchedTrainer()):
        training = fit(options, trainer=trainer)
        assert training.engine != "TorchEpochs"
        assert [record.val_energy_mae for record in training] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["a hidden layer more", "weights tied", "a frozen layer"])
def test_the_saved_model_is_the_one_that_was_trained_and_reported(
    name: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed(monkeypatch, CHANGES[name])
    options = Hyperparameters(hidden_layers=[6, 6, 6], lr=0.01)
    config = dataset.config.updated({"training": {"epochs": 4, "precision": "float64"}, "": {"device": "cpu"}})
    run = NativeBackend(config, dataset).start(options, seed=0)
    records = list(run)
    assert run.best is not None
    run.potential().save(tmp_path)
    loaded, structures = NetworkPotential.load(tmp_path), dataset.validation.structures
    errors = np.abs(loaded.predict(structures.atoms, forces=False).energies - structures.energies)
    assert errors.mean() == pytest.approx(run.best.val_energy_mae, rel=1e-9)
    assert records[-1].val_energy_mae != records[0].val_energy_mae
    trained = dict(loaded.network.named_parameters())
    if "frozen" in name:
        torch.manual_seed(0)
        initial = make_network(dataset.descriptor.n_features, options, []).double()
        assert torch.equal(trained["2.weight"], initial[2].weight)
        assert not torch.equal(trained["0.weight"], initial[0].weight)
    elif name != "a hidden layer more":
        assert torch.equal(loaded.network.state_dict()["2.weight"], loaded.network.state_dict()["4.weight"])
