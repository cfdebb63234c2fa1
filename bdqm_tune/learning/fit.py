"""Training of one network, one epoch record at a time, so that whoever asks for them owns the loop."""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import nn

from bdqm_tune.config import Training
from bdqm_tune.errors import BdqmError
from bdqm_tune.hyperparameters import Hyperparameters
from bdqm_tune.learning.batches import SplitTensors
from bdqm_tune.learning.networks import SingleNN, sum_per_structure


class Diverged(BdqmError):
    """The loss or the validation error is no longer a finite number."""


@dataclass(frozen=True)
class EpochRecord:
    """What an epoch gave; energies in eV."""

    epoch: int  # counts from 1
    train_loss: float  # of the scaled energies, mean over the epoch's batches
    train_energy_mae: float  # during the epoch, that is with dropout and moving weights
    val_energy_mae: float
    val_energy_mae_per_atom: float
    lr: float  # with which the epoch was trained
    epoch_seconds: float

    def metrics(self) -> dict[str, float]:
        """The record's values under the names that are logged."""
        return {name: value for name, value in asdict(self).items() if name != "epoch"}


class Fit:
    """Iterating trains a network and yields one `EpochRecord` an epoch; `best_network` is that of the best epoch.

    The best epoch has the least validation MAE. Training ends after the given number of epochs, or earlier when
    `early_stopping` epochs brought nothing better.
    """

    def __init__(
        self,
        hyperparameters: Hyperparameters,
        training: Training,
        train: SplitTensors,
        validation: SplitTensors,
        scale: float,
        seed: int,
    ) -> None:
        """
        Args:
            train, validation: on the device to train on.
            scale: eV of one unit of the scaled targets.
            seed: of weights, order and dropout; on the CPU the same seed gives the same numbers.
        """
        self._order = torch.Generator().manual_seed(seed)
        self._training = training
        self._batch_size = hyperparameters.batch_size
        self._train, self._validation, self._scale = train, validation, scale
        with torch.random.fork_rng(self._devices):
            torch.manual_seed(seed)
            network = SingleNN(train.features.shape[1], hyperparameters)
            self._random_states = self._get_random_states()
        self.n_parameters = network.n_parameters
        self._network = network.to(train.features.device, train.features.dtype)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=hyperparameters.lr, fused=True)
        self._scheduler = make_scheduler(self._optimizer, hyperparameters, training.epochs)
        self._loss = nn.L1Loss() if training.loss == "mae" else nn.MSELoss()
        self._best_state = copy.deepcopy(self._network.state_dict())
        self.best: EpochRecord | None = None

    def __iter__(self) -> Iterator[EpochRecord]:
        """Train on and yield the record of each epoch.

        Raises:
            Diverged: the training loss or the validation error is not finite.
        """
        for epoch in range(1, self._training.epochs + 1):
            start = time.perf_counter()
            lr = float(self._optimizer.param_groups[0]["lr"])
            with self._own_random_numbers():
                loss, train_mae = self._train_epoch()
            val_mae, val_mae_per_atom = self._validate()
            record = EpochRecord(epoch, loss, train_mae, val_mae, val_mae_per_atom, lr, time.perf_counter() - start)
            if not (math.isfinite(loss) and math.isfinite(val_mae)):
                raise Diverged(f"diverged in epoch {epoch}: training loss {loss}, validation MAE {val_mae} eV")
            if self.best is None or val_mae < self.best.val_energy_mae:
                self.best = record
                self._best_state = copy.deepcopy(self._network.state_dict())
            yield record
            patience = self._training.early_stopping
            if patience is not None and epoch - self.best.epoch >= patience:
                return

    @property
    def best_network(self) -> SingleNN:
        """A copy of the network as it was after the best epoch so far, in evaluation mode."""
        network = copy.deepcopy(self._network)
        network.load_state_dict(self._best_state)
        return network.eval()

    @property
    def _devices(self) -> list[torch.device]:
        device = self._train.features.device
        return [device] if device.type == "cuda" else []

    def _get_random_states(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._devices)]

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        # Dropout draws from torch's global generators: lend them this training's states, and give back the caller's.
        with torch.random.fork_rng(self._devices):
            torch.set_rng_state(self._random_states[0])
            for device, state in zip(self._devices, self._random_states[1:], strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
            self._random_states = self._get_random_states()

    def _train_epoch(self) -> tuple[float, float]:
        self._network.train()
        # Sums stay on the device; reading them back in every step would make a GPU wait.
        totals = self._train.targets.new_zeros(2)
        for batch in self._train.shuffled(self._batch_size, self._order):
            n = len(batch.targets)
            predicted = sum_per_structure(self._network(batch.features), batch.structure, n)
            loss = self._loss(predicted, batch.targets)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            totals += torch.stack([loss.detach() * n, (predicted.detach() - batch.targets).abs().sum()])
        self._scheduler.step()
        loss_mean, mae = (totals / len(self._train)).tolist()
        return loss_mean, mae * self._scale

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        self._network.eval()
        totals = self._validation.targets.new_zeros(2)
        for batch in self._validation.in_order():
            predicted = sum_per_structure(self._network(batch.features), batch.structure, len(batch.targets))
            error = (predicted - batch.targets).abs()
            totals += torch.stack([error.sum(), (error / batch.n_atoms).sum()])
        mae, mae_per_atom = (totals * self._scale / len(self._validation)).tolist()
        return mae, mae_per_atom


def make_scheduler(
    optimizer: torch.optim.Optimizer, hyperparameters: Hyperparameters, epochs: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate schedule, stepped once an epoch."""
    if hyperparameters.scheduler == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, hyperparameters.step_size, hyperparameters.gamma)
    if hyperparameters.scheduler == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
