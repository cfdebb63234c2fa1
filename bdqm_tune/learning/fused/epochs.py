"""A network that trains in compiled epochs."""

import copy
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import nn

from bdqm_tune.config import Training
from bdqm_tune.hyperparameters import Hyperparameters
from bdqm_tune.learning.batches import SplitTensors
from bdqm_tune.learning.fused.activations import ACTIVATION_CODES
from bdqm_tune.learning.fused.kernel import TILE, Data, Options, State, epoch, make_tile
from bdqm_tune.learning.fused.passes import Net
from bdqm_tune.learning.inputs import Inputs
from bdqm_tune.learning.networks import AtomicNetwork, borrowed_random_numbers, make_network


def can_fuse(hyperparameters: Hyperparameters, train: SplitTensors, validation: SplitTensors) -> bool:
    """Whether compiled epochs are to be had: on the CPU, for one network trained by Adam on data in memory."""
    return (
        hyperparameters.network == "single"
        and hyperparameters.optimizer in ("adam", "adamw")
        and all(split.device.type == "cpu" and split.loaded for split in (train, validation))
    )


class FusedEpochs:
    """Trains a network, see `Epochs`."""

    def __init__(
        self,
        hyperparameters: Hyperparameters,
        training: Training,
        train: SplitTensors,
        validation: SplitTensors,
        seed: int,
    ) -> None:
        with borrowed_random_numbers():
            torch.manual_seed(seed)
            network = make_network(train.n_features, hyperparameters, [])
        self._network = network.to(train.dtype)
        self._train, self._validation = _data(train), _data(validation)
        self._in_order = np.arange(len(validation))
        self._net, self._state = _net(network, hyperparameters), _state(network)
        n_features, *widths, _ = self._net.widths.tolist()
        atoms = max(TILE, *(int(split.n_atoms.max()) for split in (train, validation)))
        if hyperparameters.batchnorm:
            largest = train.n_atoms.sort(descending=True).values[: hyperparameters.batch_size + 1]
            atoms = max(atoms, int(largest.sum()))
        self._tile = make_tile(n_features, widths, atoms, self._state.p.dtype)
        decay = hyperparameters.weight_decay if hyperparameters.optimizer == "adamw" else 0.0
        self._options = Options(training.loss == "mae", hyperparameters.force_coefficient, decay)
        self._seeds = np.random.default_rng(seed)
        self._steps = 0
        self._kept = self._weights()
        # Nothing but what a schedule of learning rates wants to hold.
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(0))], lr=hyperparameters.lr)

    def train(self, order: torch.Tensor, sizes: Sequence[int]) -> list[float]:
        lengths, seed = np.array(sizes, dtype=np.int64), int(self._seeds.integers(2**62))
        lr = float(self.optimizer.param_groups[0]["lr"])
        loss, error, _, force_error = self._epoch(self._train, order.numpy(), lengths, True, lr, seed)
        self._steps += len(lengths)
        self.optimizer.step()
        return [loss, error, force_error]

    def validate(self) -> list[float]:
        lengths = np.array([len(self._in_order)])
        return self._epoch(self._validation, self._in_order, lengths, False, 0.0, 0)[1:]

    def keep(self) -> None:
        self._kept = self._weights()

    @property
    def kept_network(self) -> AtomicNetwork:
        network, (weights, running) = copy.deepcopy(self._network), self._kept
        nn.utils.vector_to_parameters(torch.from_numpy(weights.copy()), network.parameters())
        parts = iter(torch.from_numpy(running.copy()).split(_sizes(network)))
        for layer in _normalisations(network):
            layer.running_mean, layer.running_var = next(parts), next(parts)
        return network.eval()

    def _weights(self) -> tuple[np.ndarray, np.ndarray]:
        return self._state.p.copy(), self._state.running.copy()

    def _epoch(
        self, data: Data, order: np.ndarray, sizes: np.ndarray, train: bool, lr: float, seed: int
    ) -> list[float]:
        sums = epoch(
            self._net, self._state, data, order, sizes, self._tile, self._options, train, lr, self._steps, seed
        )
        return [float(value) for value in sums]


def _net(network: AtomicNetwork, hyperparameters: Hyperparameters) -> Net:
    """Where the weights of a network stand in `parameters_to_vector`."""
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    widths = [linear[0].in_features, *(layer.out_features for layer in linear)]
    weights, biases, gains, place = [], [], [], 0
    for layer in linear:
        weights.append(place)
        biases.append(place + layer.weight.numel())
        gains.append(place + layer.weight.numel() + layer.out_features)
        place = gains[-1] + (2 * layer.out_features if hyperparameters.batchnorm else 0)
    rows = list(accumulate(widths[1:-1], initial=0))
    dropout = hyperparameters.dropout_rate if hyperparameters.dropout else 0.0
    places = {"widths": widths, "weights": weights, "biases": biases, "gains": gains, "rows": rows}
    return Net(
        **{name: np.array(values, dtype=np.int64) for name, values in places.items()},
        activation=ACTIVATION_CODES[hyperparameters.activation],
        batchnorm=hyperparameters.batchnorm,
        dropout=dropout,
    )


def _state(network: AtomicNetwork) -> State:
    p = nn.utils.parameters_to_vector(network.parameters()).detach().numpy().copy()
    # As many means of 0 as variances of 1, layer after layer.
    parts = [np.full(size, i % 2, p.dtype) for i, size in enumerate(_sizes(network))]
    running = np.concatenate([np.zeros(0, p.dtype), *parts])
    return State(p, np.zeros_like(p), np.zeros_like(p), np.zeros_like(p), running)


def _normalisations(network: AtomicNetwork) -> list[nn.BatchNorm1d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d)]


def _sizes(network: AtomicNetwork) -> list[int]:
    """Of the running means and variances of each batch normalisation."""
    return [layer.num_features for layer in _normalisations(network) for _ in range(2)]


def _data(split: SplitTensors) -> Data:
    assert isinstance(split.inputs, Inputs)
    features, forces = split.inputs.features.numpy(), split.forces
    common = features, split.first.numpy(), split.n_atoms.numpy(), split.targets.numpy()
    if forces is None:
        no_places, nothing = np.zeros(0, np.int64), np.zeros((0, 0), features.dtype)
        return Data(*common, False, *(no_places,) * 4, np.zeros((0, 0, 0), features.dtype), nothing, nothing)
    assert split.inputs.slope is not None
    return Data(*common, True, *forces.arrays(split.inputs.slope))
