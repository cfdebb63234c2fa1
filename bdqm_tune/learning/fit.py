"""Training of one network, one epoch record at a time, so that whoever asks for them owns the loop."""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import nn

from bdqm_tune.config import Objective, Training
from bdqm_tune.errors import BdqmError
from bdqm_tune.hyperparameters import Hyperparameters
from bdqm_tune.learning.batches import Batch, SplitTensors
from bdqm_tune.learning.networks import AtomicNetwork, make_network, sum_per_structure
from bdqm_tune.learning.optimisation import make_optimizer, make_scheduler


class Diverged(BdqmError):
    """The loss or the validation error is no longer a finite number."""


@dataclass(frozen=True)
class EpochRecord:
    """What an epoch gave; energies in eV, forces in eV/Å."""

    epoch: int  # counts from 1
    train_loss: float  # of the scaled energies and forces, mean over the epoch's batches
    train_energy_mae: float  # during the epoch, that is with dropout and moving weights
    val_energy_mae: float
    val_energy_mae_per_atom: float
    lr: float  # with which the epoch was trained
    epoch_seconds: float
    train_forces_mae: float | None = None  # of a component, during the epoch; None: not trained on forces
    val_forces_mae: float | None = None

    def metrics(self) -> dict[str, float]:
        """The record's values under the names that are logged."""
        return {name: value for name, value in asdict(self).items() if name != "epoch" and value is not None}

    def value(self, objective: Objective) -> float:
        """What the record is judged by."""
        found = self.val_energy_mae if objective == "val_energy_mae" else self.val_forces_mae
        if found is None:
            raise BdqmError(f"the objective {objective} needs training.forces: true")
        return found


class BestEpoch:
    """Follows the records of a training: which is the best by the objective, and when to stop early."""

    def __init__(self, training: Training, objective: Objective) -> None:
        self._patience, self.objective = training.early_stopping, objective
        self.record: EpochRecord | None = None

    def improves(self, record: EpochRecord) -> bool:
        """Whether this is the best record so far, which is then kept.

        Raises:
            Diverged: the training loss or the validation error is not finite.
            BdqmError: the objective is of forces, and the record has none.
        """
        if not all(map(math.isfinite, (record.train_loss, record.val_energy_mae, record.val_forces_mae or 0.0))):
            raise Diverged(
                f"diverged in epoch {record.epoch}: training loss {record.train_loss}, "
                f"validation MAE {record.val_energy_mae} eV"
            )
        value = record.value(self.objective)
        if self.record is not None and value >= self.record.value(self.objective):
            return False
        self.record = record
        return True

    def is_over(self, epoch: int) -> bool:
        """Whether so many epochs after the best one have brought nothing better that training ends."""
        assert self.record is not None
        return self._patience is not None and epoch - self.record.epoch >= self._patience


class Fit:
    """Iterating trains a network and yields one `EpochRecord` an epoch; `best_network` is that of the best epoch.

    The best epoch has the least objective. Training ends after the given number of epochs, or earlier when
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
        objective: Objective = "val_energy_mae",
    ) -> None:
        """
        Args:
            train, validation: on the device to train on; forces are trained where they have them.
            scale: eV of one unit of the scaled targets.
            seed: of weights, order and dropout; on the CPU the same seed gives the same numbers.
        """
        self._order = torch.Generator().manual_seed(seed)
        self._training = training
        self._batch_size, self._force_coefficient = hyperparameters.batch_size, hyperparameters.force_coefficient
        self._train, self._validation, self._scale = train, validation, scale
        with torch.random.fork_rng(self._devices):
            torch.manual_seed(seed)
            elements = [] if train.numbers is None else torch.unique(train.numbers).tolist()
            network = make_network(train.features.shape[1], hyperparameters, elements)
            self._random_states = self._get_random_states()
        self.n_parameters, self._by_element = network.n_parameters, bool(network.elements)
        self._network = network.to(train.features.device, train.features.dtype)
        self._optimizer = make_optimizer(self._network.parameters(), hyperparameters)
        self._scheduler = make_scheduler(self._optimizer, hyperparameters, training.epochs)
        self._loss = nn.L1Loss() if training.loss == "mae" else nn.MSELoss()
        self._best_state = copy.deepcopy(self._network.state_dict())
        self._best = BestEpoch(training, objective)

    def __iter__(self) -> Iterator[EpochRecord]:
        """Train on and yield the record of each epoch.

        Raises:
            Diverged: the training loss or the validation error is not finite.
        """
        for epoch in range(1, self._training.epochs + 1):
            start = time.perf_counter()
            lr = float(self._optimizer.param_groups[0]["lr"])
            with self._own_random_numbers():
                loss, train_mae, train_forces_mae = self._train_epoch()
            val_mae, val_mae_per_atom, val_forces_mae = self._validate()
            record = EpochRecord(
                epoch,
                loss,
                train_mae,
                val_mae,
                val_mae_per_atom,
                lr,
                time.perf_counter() - start,
                train_forces_mae,
                val_forces_mae,
            )
            if self._best.improves(record):
                self._best_state = copy.deepcopy(self._network.state_dict())
            if isinstance(self._scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                self._scheduler.step(record.value(self._best.objective))
            else:
                self._scheduler.step()
            yield record
            if self._best.is_over(epoch):
                return

    @property
    def best(self) -> EpochRecord | None:
        """The record of the best epoch so far."""
        return self._best.record

    @property
    def best_network(self) -> AtomicNetwork:
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

    def _train_epoch(self) -> tuple[float, float, float | None]:
        """Loss, MAE of the energies (eV) and, with forces, of their components (eV/Å)."""
        self._network.train()
        # Sums stay on the device; reading them back in every step would make a GPU wait.
        totals = self._sums(self._train)
        for batch in self._train.shuffled(self._batch_size, self._order, self._by_element):
            loss, *errors = self._step(batch)
            totals += torch.stack([loss * len(batch.targets), *(error.abs().sum() for error in errors)])
        loss_mean, mae, *forces = (totals / len(self._train)).tolist()
        return loss_mean, mae * self._scale, forces[0] * self._scale / self._train.components if forces else None

    def _validate(self) -> tuple[float, float, float | None]:
        """MAE of the energies (eV), per atom (eV/atom) and, with forces, of their components (eV/Å)."""
        self._network.eval()
        totals = self._sums(self._validation)
        for batch in self._validation.in_order(by_element=self._by_element):
            error, *force_error = (e.abs() for e in self._errors(batch, *self._predict(batch, train=False)))
            totals += torch.stack([error.sum(), (error / batch.n_atoms).sum(), *(e.sum() for e in force_error)])
        mae, mae_per_atom, *forces = (totals * self._scale / len(self._validation)).tolist()
        return mae, mae_per_atom, forces[0] / self._validation.components if forces else None

    def _sums(self, split: SplitTensors) -> torch.Tensor:
        return split.targets.new_zeros(2 if split.forces is None else 3)

    def _step(self, batch: Batch) -> list[torch.Tensor]:
        """Take a step of the optimizer; give the loss before it, then the errors."""
        found: list[torch.Tensor] = []

        def closure() -> torch.Tensor:  # L-BFGS calls it more than once
            energies, forces = self._predict(batch, train=True)
            loss: torch.Tensor = self._loss(energies, batch.targets)
            if batch.forces is not None:
                loss = loss + self._force_coefficient * self._loss(forces, batch.forces.targets)
            self._optimizer.zero_grad()
            loss.backward()
            if not found:
                found.extend([loss.detach(), *self._errors(batch, energies, forces)])
            return loss

        # Said to give a float, which on a GPU would have to be waited for.
        self._optimizer.step(closure)  # type: ignore[arg-type]
        return found

    def _errors(self, batch: Batch, energies: torch.Tensor, forces: torch.Tensor | None) -> list[torch.Tensor]:
        """Errors of the scaled energies (n_structures,) and, where the batch has them, forces (n_atoms, 3)."""
        errors = [energies.detach() - batch.targets]
        if batch.forces is not None and forces is not None:
            errors.append(forces.detach() - batch.forces.targets)
        return errors

    def _predict(self, batch: Batch, train: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scaled energies (n_structures,) and, where the batch has them, forces (n_atoms, 3)."""
        n = len(batch.targets)
        if batch.forces is None:
            with torch.set_grad_enabled(train):
                return sum_per_structure(self._network(batch.features, batch.numbers), batch.structure, n), None
        features = batch.features.requires_grad_()
        energies = sum_per_structure(self._network(features, batch.numbers), batch.structure, n)
        (gradient,) = torch.autograd.grad(energies.sum(), features, create_graph=train)
        return energies, batch.forces.forces(gradient)
