"""Training of one network, one epoch record at a time, so that whoever asks for them owns the loop."""

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from bdqm_tune.config.config import Objective, Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.batched import BatchedEpochs, BatchedTrainer, can_batch
from bdqm_tune.learning.batches import SplitTensors, batch_sizes
from bdqm_tune.learning.compiled import CompiledEpochs, can_compile
from bdqm_tune.learning.networks import AtomicNetwork
from bdqm_tune.learning.optimisation import make_scheduler
from bdqm_tune.learning.torch_epochs import TorchEpochs

LONG_EPOCH = 0.1  # seconds; what it begins with is kept, which takes far less


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


@dataclass(frozen=True)
class Checkpoint:
    """A training between two epochs, for another one of the same kind to go on from; it shares no memory with it."""

    records: list[EpochRecord]  # of all epochs so far
    lr: float  # of the next epoch
    scheduler: dict[str, Any]  # state of the schedule, plain JSON
    order: torch.Tensor  # state of the generator of the structures' order
    epochs: dict[str, torch.Tensor]  # see `Epochs.state`


class Epochs(Protocol):
    """A network in training, and the optimizer whose learning rate a schedule changes."""

    optimizer: torch.optim.Optimizer

    def train(self, order: torch.Tensor, sizes: Sequence[int]) -> list[float]:
        """Train on the structures in this order (n_structures,), so many in each batch.

        Gives sums over the structures: of the loss of their batch, of the absolute errors of the energies and, with
        forces, of those of all their components; without unit.
        """
        ...

    def validate(self) -> list[float]:
        """Sums of the absolute errors of the energies, of these by the number of atoms and, with forces, of theirs."""
        ...

    def keep(self) -> None:
        """Keep the weights as they are now, in the place of those kept before."""
        ...

    @property
    def kept_network(self) -> AtomicNetwork:
        """A copy of the network with the weights that were kept, in evaluation mode; at first the initial ones."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that training changes, but the learning rate: copies on the CPU, by name."""
        ...

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `state` gave of a network with the same hyperparameters, data and seed."""
        ...


class Fit:
    """Iterating trains a network and yields one `EpochRecord` an epoch; `best_network` is that of the best epoch.

    The best epoch has the least objective. Training ends after the given number of epochs, or earlier when
    `early_stopping` epochs brought nothing better. Iterating again goes on where it was left between two epochs.
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
        compiled: bool | None = None,
        trainer: BatchedTrainer | None = None,
    ) -> None:
        """
        Args:
            train, validation: on the device to train on; forces are trained where they have them.
            scale: eV of one unit of the scaled targets.
            seed: of weights, order and dropout; on the CPU the same seed gives the same numbers.
            compiled: whether epochs are compiled; None: where they can be.
            trainer: where it trains together with others, if it can.
        """
        self._order = torch.Generator().manual_seed(seed)
        self._training = training
        self._train, self._validation, self._scale = train, validation, scale
        self._sizes = batch_sizes(len(train), hyperparameters.batch_size)
        if compiled is None:
            compiled = can_compile(hyperparameters, train, validation)
        self._epochs: Epochs
        if trainer is not None and can_batch(hyperparameters, train, validation):
            self._epochs = BatchedEpochs(hyperparameters, training, train, validation, seed, trainer)
        else:
            self._epochs = (CompiledEpochs if compiled else TorchEpochs)(
                hyperparameters, training, train, validation, seed
            )
        self.n_parameters = self._epochs.kept_network.n_parameters
        self._scheduler = make_scheduler(self._epochs.optimizer, hyperparameters, training.epochs)
        self._best = BestEpoch(training, objective)
        self.records: list[EpochRecord] = []  # of all epochs so far
        self._in_epoch = False
        self._beginning: Checkpoint | None = None  # of the epoch that is trained, if it may take long

    def __iter__(self) -> Iterator[EpochRecord]:
        """Train on and yield the record of each epoch.

        Raises:
            Diverged: the training loss or the validation error is not finite.
            KeyboardInterrupt: the work is to end, and an epoch takes long, see `progress.check`.
        """
        while not self._is_over:
            long = bool(self.records) and self.records[-1].epoch_seconds > LONG_EPOCH
            self._beginning = self.checkpoint() if long else None
            self._in_epoch = True
            record = self._run(len(self.records) + 1)
            if self._best.improves(record):
                self._epochs.keep()
            if isinstance(self._scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                self._scheduler.step(record.value(self._best.objective))
            else:
                self._scheduler.step()
            self.records.append(record)
            self._in_epoch = False
            yield record

    @property
    def _is_over(self) -> bool:
        epoch = len(self.records)
        return epoch >= self._training.epochs or (epoch > 0 and self._best.is_over(epoch))

    def checkpoint(self) -> Checkpoint | None:
        """The training as it is between two epochs.

        Of an epoch that was interrupted, or diverged, it is the beginning, which is kept where the epoch before took
        longer than a tenth of a second; else None. Shorter epochs end within the grace of `progress.check`.
        """
        if self._in_epoch:
            return self._beginning
        return Checkpoint(
            list(self.records),
            float(self._epochs.optimizer.param_groups[0]["lr"]),
            copy.deepcopy(self._scheduler.state_dict()),
            self._order.get_state(),
            self._epochs.state(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of a training with the same arguments; this one has not begun.

        On the CPU it then gives the same numbers as if it had never been left.
        """
        self.records = list(checkpoint.records)
        for record in self.records:
            self._best.improves(record)
        self._scheduler.load_state_dict(copy.deepcopy(checkpoint.scheduler))
        self._order.set_state(checkpoint.order)
        self._epochs.restore(checkpoint.epochs)
        self._epochs.optimizer.param_groups[0]["lr"] = checkpoint.lr

    @property
    def engine(self) -> str:
        """What trains; it can make nothing of another one's checkpoint."""
        return type(self._epochs).__name__

    def _run(self, epoch: int) -> EpochRecord:
        start = time.perf_counter()
        lr = float(self._epochs.optimizer.param_groups[0]["lr"])
        order = torch.randperm(len(self._train), generator=self._order)
        loss, error, *force_error = self._epochs.train(order, self._sizes)
        val_error, val_error_per_atom, *val_force_error = self._epochs.validate()
        train, validation = len(self._train), len(self._validation)
        with_forces = self._train.forces is not None
        return EpochRecord(
            epoch,
            loss / train,
            error / train * self._scale,
            val_error / validation * self._scale,
            val_error_per_atom / validation * self._scale,
            lr,
            time.perf_counter() - start,
            force_error[0] / self._train.components * self._scale if with_forces else None,
            val_force_error[0] / self._validation.components * self._scale if with_forces else None,
        )

    @property
    def best(self) -> EpochRecord | None:
        """The record of the best epoch so far."""
        return self._best.record

    @property
    def best_network(self) -> AtomicNetwork:
        """A copy of the network as it was after the best epoch so far, in evaluation mode."""
        return self._epochs.kept_network
