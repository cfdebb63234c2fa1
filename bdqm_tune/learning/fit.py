"""Training of one network as an iterator of epoch records: the caller owns the loop."""

import copy
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from bdqm_tune.config.config import Objective, Training
from bdqm_tune.config.hyperparameters import Hyperparameters, Scheduler
from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.batched import BatchedEpochs, BatchedTrainer, can_batch
from bdqm_tune.learning.batches import SplitTensors, batch_sizes
from bdqm_tune.learning.compiled import CompiledEpochs, can_compile
from bdqm_tune.learning.epochs import Epochs
from bdqm_tune.learning.fold_epochs import Fold, FoldEpochs
from bdqm_tune.learning.held_out import HeldOut, held_out, joined
from bdqm_tune.learning.metrics import energy_and_forces
from bdqm_tune.learning.networks import AtomicNetwork
from bdqm_tune.learning.optimisation import make_schedule
from bdqm_tune.learning.plain_network import OtherNetwork
from bdqm_tune.learning.torch_epochs import TorchEpochs

LONG_EPOCH = 0.1  # seconds; before a longer epoch the state is copied, which takes far less


class Diverged(BdqmError):
    """The loss or the validation error is no longer a finite number."""


@dataclass(frozen=True)
class EpochRecord:
    """The metrics of an epoch; energies in eV, forces in eV/Å, stress in eV/Å³. None: what trains does not say."""

    epoch: int  # counts from 1
    train_loss: float | None  # of the scaled energies (per atom or not), forces and stress, mean over the structures
    train_energy_mae: float | None  # during the epoch, that is with dropout and moving weights
    val_energy_mae: float | None
    val_energy_mae_per_atom: float | None
    lr: float | None  # with which the epoch was trained
    epoch_seconds: float
    train_forces_mae: float | None = None  # of a component, during the epoch; None: not trained on forces
    val_forces_mae: float | None = None
    train_stress_mae: float | None = None  # of a component, during the epoch; None: not trained on the stress
    val_stress_mae: float | None = None

    @property
    def val_energy_forces(self) -> float | None:
        """See `energy_and_forces`, eV/atom; None: one of the two is not known."""
        energy, forces = self.val_energy_mae_per_atom, self.val_forces_mae
        return None if energy is None or forces is None else energy_and_forces(energy, forces)

    def metrics(self) -> dict[str, float]:
        """The metrics under the names that are logged."""
        found = asdict(self) | {"val_energy_forces": self.val_energy_forces}
        return {name: value for name, value in found.items() if name != "epoch" and value is not None}

    def value(self, objective: Objective) -> float:
        """The value of the objective, in its unit. Raises BdqmError if the record does not have it."""
        error: float | None = getattr(self, objective)
        if error is None:
            needed = "training.forces: true" if "forces" in objective else "epochs that have it"
            raise BdqmError(f"the objective {objective} needs {needed}")
        return error


class BestEpoch:
    """Finds the best epoch of a training by the smoothed objective, and when early stopping ends the training.

    A few dozen validation structures judge a hundred epochs, and at a constant learning rate the error goes up and down
    from one to the next: the least of all is one that was lucky. See `Training.window`.
    """

    def __init__(self, training: Training, objective: Objective, scheduler: Scheduler) -> None:
        self._patience, self.objective = training.patience(scheduler), objective
        self._epochs = training.epochs
        self._last: deque[float] = deque(maxlen=training.window)
        self._least = math.inf
        self.record: EpochRecord | None = None

    def improves(self, record: EpochRecord) -> bool:
        """Whether this record, of the next epoch, is the best so far; if so, it becomes `record`.

        Raises:
            Diverged: the training loss or the validation error is not finite.
            BdqmError: the record does not have the objective.
        """
        errors = record.val_energy_mae, record.val_energy_mae_per_atom, record.val_forces_mae, record.val_stress_mae
        if not all(math.isfinite(value) for value in (record.train_loss, *errors) if value is not None):
            energy = f"{errors[1]} eV/atom" if errors[0] is None else f"{errors[0]} eV"
            raise Diverged(
                f"diverged in epoch {record.epoch}: training loss {record.train_loss}, validation MAE {energy}"
            )
        self._last.append(record.value(self.objective))
        value = sum(self._last) / len(self._last)
        if self.record is not None and value >= self._least:
            return False
        self.record, self._least = record, value
        return True

    def ends_after(self, n_epochs: int) -> bool:
        """Whether a training has had its last epoch after `n_epochs`: all of them, or by early stopping."""
        return n_epochs >= self._epochs or (n_epochs > 0 and self.is_over(n_epochs))

    def is_over(self, epoch: int) -> bool:
        """Whether early stopping ends the training: `Training.patience` epochs without a better one."""
        assert self.record is not None
        return self._patience is not None and epoch - self.record.epoch >= self._patience


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training between two epochs, from which an equal one resumes; it shares no memory with either."""

    records: list[EpochRecord]  # of all epochs so far
    lr: float  # of the next epoch
    scheduler: dict[str, Any]  # state of the schedule, plain JSON
    order: torch.Tensor  # state of the random generator of the structures' order
    epochs: dict[str, torch.Tensor]  # see `Epochs.state`


class Fit:
    """Iterating trains a network and yields one `EpochRecord` an epoch; `best_network` is that of the best epoch.

    The best epoch has the least smoothed objective, see `BestEpoch`. Training ends after `training.epochs` epochs, or
    by early stopping after `Training.patience` epochs without a better one. Iterated again, it goes on after the last.
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
        folds: Sequence[Fold] = (),
    ) -> None:
        """
        Args:
            train, validation: on the device to train on; forces and stress are trained if they have them.
            scale: eV of one unit of the scaled targets.
            seed: of weights, order and dropout; on the CPU the same seed gives the same numbers.
            objective: selects the best epoch.
            compiled: whether epochs are compiled; None: if they can be.
            trainer: trains it batched with others, if it can; None: alone.
            folds: of a cross-validation of the structures of `train`, which are those of `validation` as well.

        Raises:
            OtherNetwork: `compiled`, and the network is not the one that the hyperparameters describe.
        """
        self._order = torch.Generator().manual_seed(seed)
        self._training = training
        self._train, self._validation, self._scale = train, validation, scale
        self._sizes = batch_sizes(len(train), hyperparameters.batch_size)
        self._folds = folds

        def make(train: SplitTensors, validation: SplitTensors, scale: float) -> Epochs:
            options = hyperparameters, training, train, validation, seed, scale
            try:
                if trainer is not None and can_batch(hyperparameters, train, validation):
                    return BatchedEpochs(*options, trainer)
                if compiled or (compiled is None and can_compile(hyperparameters, train, validation)):
                    return CompiledEpochs(*options)
            except OtherNetwork:
                if compiled:
                    raise
            return TorchEpochs(*options)

        self._epochs: Epochs
        if folds:
            self._epochs = FoldEpochs(make, train, folds, hyperparameters.batch_size, scale)
        else:
            self._epochs = make(train, validation, scale)
        self.n_parameters = self._epochs.kept_network.n_parameters
        self._scheduler = make_schedule(self._epochs.optimizer, hyperparameters, training.epochs)
        self._best = BestEpoch(training, objective, hyperparameters.scheduler)
        self.records: list[EpochRecord] = []  # of all epochs so far
        self._in_epoch = False
        self._beginning: Checkpoint | None = None  # the state before the current epoch, if that may take long

    def __iter__(self) -> Iterator[EpochRecord]:
        """Train, and yield the record of each epoch.

        Raises:
            Diverged: the training loss or the validation error is not finite.
            KeyboardInterrupt: the process is to end, and an epoch takes long; see `progress.check`.
        """
        while not self._best.ends_after(len(self.records)):
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

    def checkpoint(self) -> Checkpoint | None:
        """The state of the training between two epochs.

        If the last epoch was interrupted or diverged: the state before it, if the epoch before took longer than
        `LONG_EPOCH`; else None. Shorter epochs end within the grace period of `progress.check`.
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
        """Resume from a checkpoint of a training with the same arguments; call it before the first epoch.

        On the CPU the records are the same as those of an uninterrupted training.
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
        """The name of the trainer, to which its checkpoints are bound."""
        if isinstance(self._epochs, FoldEpochs):
            return f"FoldEpochs of {', '.join(sorted(self._epochs.engines))}"
        return type(self._epochs).__name__

    def _run(self, epoch: int) -> EpochRecord:
        start = time.perf_counter()
        lr = float(self._epochs.optimizer.param_groups[0]["lr"])
        order = torch.randperm(len(self._train), generator=self._order)
        weight = self._training.label_weight(epoch)
        loss, error, *others = self._epochs.train(order, self._sizes, weight)
        val_error, val_error_per_atom, *val_others = self._epochs.validate()
        train, validation = len(self._train), len(self._validation)

        def forces_mae(errors: list[float], split: SplitTensors) -> float | None:
            known = split.forces is not None and split.components
            return errors[0] / split.components * self._scale if known else None

        def stress_mae(errors: list[float], split: SplitTensors) -> float | None:
            n = split.stress_components
            return errors[1] / n * self._scale if n else None

        return EpochRecord(
            epoch,
            loss / train,
            error / train * self._scale,
            val_error / validation * self._scale,
            val_error_per_atom / validation * self._scale,
            lr,
            time.perf_counter() - start,
            forces_mae(others, self._train),
            forces_mae(val_others, self._validation),
            stress_mae(others, self._train),
            stress_mae(val_others, self._validation),
        )

    @property
    def best(self) -> EpochRecord | None:
        """The record of the best epoch so far; None before the first."""
        return self._best.record

    @property
    def best_network(self) -> AtomicNetwork:
        """A copy of the network as it was after the best epoch so far, in evaluation mode."""
        return self._epochs.kept_network

    def held_out(self) -> HeldOut:
        """The errors of the structures of the validation split at the best epoch so far.

        With folds those of all structures, each by the network that was not trained on it.
        """
        if not isinstance(self._epochs, FoldEpochs):
            return held_out(self.best_network, self._validation, self._scale)
        pairs = zip(self._epochs.kept_networks, self._folds, strict=True)
        parts = [held_out(network, fold.validation, fold.scale) for network, fold in pairs]
        return joined(parts, np.concatenate([fold.held_out.numpy() for fold in self._folds]))
