"""A network that trains in compiled epochs."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from bdqm_tune.config.config import Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batches import SplitTensors
from bdqm_tune.learning.compiled.kernel import SEED_STEP, TILE, Data, Options, State, epoch, make_tile
from bdqm_tune.learning.compiled.layout import joined, layout, normalisations, statistics, weights
from bdqm_tune.learning.losses import transition
from bdqm_tune.learning.networks import AtomicNetwork, borrowed_random_numbers, make_network
from bdqm_tune.learning.plain_network import check_plain
from bdqm_tune.progress import GRACE, check

# Multiply-adds of a compiled call, at most, unless one batch has more: two seconds where they are slowest (narrow
# layers in double precision), between which a training can be interrupted.
WORK_AT_ONCE = 2e9


def can_compile(hyperparameters: Hyperparameters, train: SplitTensors, validation: SplitTensors) -> bool:
    """Whether epochs can be compiled: on the CPU, for one network trained by Adam on data in memory.

    The network itself is looked at when it is made, see `plain_network`.
    """
    return (
        hyperparameters.network == "single"
        and hyperparameters.optimizer in ("adam", "adamw")
        and all(split.device.type == "cpu" and split.loaded for split in (train, validation))
    )


class CompiledEpochs:
    """Trains a network, see `Epochs`."""

    def __init__(
        self,
        hyperparameters: Hyperparameters,
        training: Training,
        train: SplitTensors,
        validation: SplitTensors,
        seed: int,
        scale: float,
    ) -> None:
        """Raises OtherNetwork if the network is not the one that the hyperparameters describe."""
        with borrowed_random_numbers():
            torch.manual_seed(seed)
            network = make_network(train.n_features, hyperparameters, [])
        check_plain(network, train.n_features, hyperparameters)
        self._network, self._hyperparameters = network.to(train.dtype), hyperparameters
        self._train, self._validation = _data(train), _data(validation)
        self._in_order = np.arange(len(validation))
        self._net, self._state = layout(network, hyperparameters), _state(network)
        self._at_once, at_once = (_at_once(data, len(self._state.p)) for data in (self._train, self._validation))
        self._parts = [min(at_once, len(validation) - start) for start in range(0, len(validation), at_once)]
        n_features, *widths, _ = self._net.widths.tolist()
        atoms = max(TILE, *(int(split.n_atoms.max()) for split in (train, validation)))
        if hyperparameters.batchnorm:
            largest = train.n_atoms.sort(descending=True).values[: hyperparameters.batch_size + 1]
            atoms = max(atoms, int(largest.sum()))
        self._tile = make_tile(n_features, widths, atoms, self._state.p.dtype)
        decay = hyperparameters.weight_decay if hyperparameters.optimizer == "adamw" else 0.0
        per_atom = training.energy_loss == "per_atom"
        self._options = Options(
            transition(training, scale),
            per_atom,
            hyperparameters.force_coefficient,
            hyperparameters.stress_coefficient,
            decay,
        )
        self._seed, self._seeds = seed, np.random.Generator(np.random.PCG64(seed))
        self._steps = self._n_seeds = 0
        self._kept_weights = self._weights()
        # Only a holder of the learning rate, for the schedule.
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(0))], lr=hyperparameters.lr)

    def train(self, order: torch.Tensor, sizes: Sequence[int], weight: float = 1.0) -> list[float]:
        seed = int(self._seeds.integers(2**62))
        self._n_seeds += 1
        lr = float(self.optimizer.param_groups[0]["lr"])
        batches = max(1, self._at_once // sizes[0])
        coefficients = ("force_coefficient", "stress_coefficient")
        weighted = {name: weight * getattr(self._hyperparameters, name) for name in coefficients}
        self._options = self._options._replace(**weighted)
        loss, error, _, *others = self._in_parts(self._train, order.numpy(), sizes, batches, True, lr, seed)
        self.optimizer.step()
        return [loss, error, *others]

    def validate(self) -> list[float]:
        return self._in_parts(self._validation, self._in_order, self._parts, 1, False, 0.0, 0)[1:]

    def keep(self) -> None:
        self._kept_weights = self._weights()

    @property
    def kept_network(self) -> AtomicNetwork:
        network, (kept, running) = copy.deepcopy(self._network), self._kept_weights
        nn.utils.vector_to_parameters(torch.from_numpy(kept.copy()), network.parameters())
        parts = iter(torch.from_numpy(running.copy()).split([len(part) for part in statistics(network)]))
        for layer in normalisations(network):
            layer.running_mean, layer.running_var = next(parts), next(parts)
        return network.eval()

    def state(self) -> dict[str, torch.Tensor]:
        counts = {"steps": self._steps, "n_seeds": self._n_seeds}
        kept, running = self._kept_weights
        arrays = self._changing() | {"kept_p": kept, "kept_running": running}
        return {name: torch.tensor(value) for name, value in (counts | arrays).items()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        for name, array in self._changing().items():
            array[:] = state[name].numpy()
        self._kept_weights = state["kept_p"].numpy().copy(), state["kept_running"].numpy().copy()
        self._steps, self._n_seeds = int(state["steps"]), int(state["n_seeds"])
        # A number that is drawn takes one step of this generator.
        self._seeds = np.random.Generator(np.random.PCG64(self._seed).advance(self._n_seeds))

    def _changing(self) -> dict[str, np.ndarray]:
        """What training changes and resumes from; the gradient is cleared for every batch."""
        return {name: array for name, array in self._state._asdict().items() if name != "gradient"}

    def _weights(self) -> tuple[np.ndarray, np.ndarray]:
        return self._state.p.copy(), self._state.running.copy()

    def _in_parts(
        self, data: Data, order: np.ndarray, sizes: Sequence[int], batches: int, train: bool, lr: float, seed: int
    ) -> list[float]:
        """`_epoch` by so many batches at a time, between which a training can be interrupted."""
        if len(sizes) <= batches:
            return self._epoch(data, order, np.array(sizes), train, lr, seed)
        totals, start = np.zeros(5), 0
        for first in range(0, len(sizes), batches):
            check(GRACE)
            part = np.array(sizes[first : first + batches])
            stop = start + part.sum()
            totals += self._epoch(data, order[start:stop], part, train, lr, seed + SEED_STEP * start)
            start = int(stop)
        return totals.tolist()

    def _epoch(
        self, data: Data, order: np.ndarray, sizes: np.ndarray, train: bool, lr: float, seed: int
    ) -> list[float]:
        sums = epoch(
            self._net, self._state, data, order, sizes, self._tile, self._options, train, lr, self._steps, seed
        )
        if train:
            self._steps += len(sizes)
        return [float(value) for value in sums]


def _at_once(data: Data, n_parameters: int) -> int:
    """Structures that take as many multiply-adds as a compiled call may have, on average; at least 1."""
    # A pass takes one for each atom and weight: forward and backward three, with forces eight.
    passes = 8 if data.with_forces else 3
    derivatives = data.derivatives.size + data.strain_derivatives.size
    work = passes * len(data.features) * n_parameters + 2 * derivatives
    return max(1, int(WORK_AT_ONCE * len(data.first) / work))


def _state(network: AtomicNetwork) -> State:
    dtype = next(network.parameters()).detach().numpy().dtype
    p, running = joined(weights(network), dtype), joined(statistics(network), dtype)
    return State(p, np.zeros_like(p), np.zeros_like(p), np.zeros_like(p), running)


def _data(split: SplitTensors) -> Data:
    assert split.features is not None
    features, forces, stress = split.features.numpy(), split.forces, split.stress
    common = features, split.first.numpy(), split.n_atoms.numpy(), split.targets.numpy()
    places, known = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    numbers, rows, entries = (np.zeros((0,) * n, features.dtype) for n in (1, 2, 3))
    no_forces, no_stress = (*(places,) * 4, entries, rows, known), (places, entries, rows, known, numbers)
    of_forces = no_forces if forces is None else forces.arrays(split.first.numpy())
    of_stress = no_stress if stress is None else stress.arrays()
    fields: tuple[Any, ...] = (*common, forces is not None, *of_forces, stress is not None, *of_stress)
    return Data(*fields)
