"""Training of a network batched with others."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from bdqm_tune.config.config import Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batched.epoch_schedule import EpochSchedule
from bdqm_tune.learning.batched.slots import Job, State
from bdqm_tune.learning.batched.trainer import BatchedTrainer
from bdqm_tune.learning.batches import SplitTensors
from bdqm_tune.learning.losses import transition
from bdqm_tune.learning.networks import AtomicNetwork, borrowed_random_numbers, make_network
from bdqm_tune.learning.plain_network import check_plain


def can_batch(hyperparameters: Hyperparameters, train: SplitTensors, validation: SplitTensors) -> bool:
    """Whether a network can train batched: one for all atoms, by Adam, on energies, data on the device.

    The network itself is looked at when it is made, see `plain_network`.
    """
    return (
        hyperparameters.network == "single"
        and hyperparameters.optimizer in ("adam", "adamw")
        and all(split.forces is None and split.loaded for split in (train, validation))
    )


class BatchedEpochs:
    """Trains a network, see `Epochs`."""

    def __init__(
        self,
        hyperparameters: Hyperparameters,
        training: Training,
        train: SplitTensors,
        validation: SplitTensors,
        seed: int,
        scale: float,
        trainer: BatchedTrainer,
    ) -> None:
        """Raises OtherNetwork if the network is not the one that the hyperparameters describe."""
        with borrowed_random_numbers():
            torch.default_generator.manual_seed(seed)  # not those of GPUs, one of which may be capturing a step
            network = make_network(train.n_features, hyperparameters, [])
        check_plain(network, train.n_features, hyperparameters)
        self._network, self._device = network.to(train.dtype), train.device
        parameters = nn.utils.parameters_to_vector(network.parameters()).detach()
        weights = torch.stack([parameters, torch.zeros_like(parameters), torch.zeros_like(parameters)])
        self._state = State(weights.to(self._device), running_statistics(network).to(self._device), 0)
        self._kept_state = self._state
        self._hyperparameters, self._transition = hyperparameters, transition(training, scale)
        self._per_atom = training.energy_loss == "per_atom"
        self._trainer, self._data = trainer, trainer.data(train, validation)
        self._tile = self._data.tile(hyperparameters)
        rate = hyperparameters.dropout_rate if hyperparameters.dropout else 0.0
        self._generator = torch.Generator(self._device).manual_seed(seed) if rate else None
        self._dropout = rate
        self._validated: list[float] | None = None
        # Only a holder of the learning rate, for the schedule.
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(0))], lr=hyperparameters.lr)

    def train(self, order: torch.Tensor, sizes: Sequence[int], weight: float = 1.0) -> list[float]:
        self.optimizer.step()
        # Validated by the same job, so that the trainer need not wait in between.
        loss, error, *self._validated = self._run(order, sizes)
        return [loss, error]

    def validate(self) -> list[float]:
        if self._validated is None:
            _, _, *self._validated = self._run(torch.zeros(0, dtype=torch.int64), [])
        return self._validated

    def keep(self) -> None:
        self._kept_state = self._state

    @property
    def kept_network(self) -> AtomicNetwork:
        network = copy.deepcopy(self._network)
        nn.utils.vector_to_parameters(self._kept_state.weights[0].cpu().clone(), network.parameters())
        with torch.no_grad():
            for own, statistic in zip(
                _statistics(network), self._kept_state.running.cpu().split(_sizes(network)), strict=True
            ):
                own.copy_(statistic)
        return network.eval()

    def state(self) -> dict[str, torch.Tensor]:
        """All that training changes but the learning rate: copies on the CPU, by name."""
        parts = {
            "weights": self._state.weights,
            "running": self._state.running,
            "kept_weights": self._kept_state.weights,
            "kept_running": self._kept_state.running,
            "steps": torch.tensor(self._state.steps),
        }
        if self._generator is not None:
            parts["random"] = self._generator.get_state()
        return {name: part.to("cpu", copy=True) for name, part in parts.items()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Resume from the `state` of a network with the same hyperparameters, data and seed."""
        weights, running, kept_weights, kept_running = (
            state[name].to(self._device, copy=True) for name in ("weights", "running", "kept_weights", "kept_running")
        )
        self._state = State(weights, running, int(state["steps"]))
        self._kept_state, self._validated = State(kept_weights, kept_running, 0), None
        if self._generator is not None:
            self._generator.set_state(state["random"])

    def _run(self, order: torch.Tensor, sizes: Sequence[int]) -> list[float]:
        options = self._hyperparameters
        schedule = EpochSchedule(self._data, order, sizes, self._tile, whole=options.batchnorm)
        job = Job(
            widths=tuple(options.layers),
            state=self._state,
            schedule=schedule,
            lr=float(self.optimizer.param_groups[0]["lr"]),
            decay=options.weight_decay if options.optimizer == "adamw" else 0.0,
            transition=self._transition,
            per_atom=self._per_atom,
            dropout=self._dropout,
            generator=self._generator,
        )
        key = self._data, options.activation, options.batchnorm, self._tile
        sums, self._state = self._trainer.run(key, job)
        return sums


def _statistics(network: AtomicNetwork) -> list[torch.Tensor]:
    """Running means and variances of batch normalisation, layer after layer."""
    return [buffer for name, buffer in network.named_buffers() if name.endswith(("running_mean", "running_var"))]


def _sizes(network: AtomicNetwork) -> list[int]:
    return [len(statistic) for statistic in _statistics(network)]


def running_statistics(network: AtomicNetwork) -> torch.Tensor:
    """Means and variances of batch normalisation as one tensor, layer after layer; empty without it."""
    return torch.cat([next(network.parameters()).detach().new_zeros(0), *_statistics(network)])
