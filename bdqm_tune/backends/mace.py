"""The published mace-torch as a backend: one training at a time, on the structures themselves."""

import copy
import time
from collections.abc import Iterator
from typing import Any

import torch
from ase.data import atomic_numbers

from bdqm_tune.backends.mace_epochs import MaceEpochs
from bdqm_tune.backends.mace_errors import RecordedLoss
from bdqm_tune.backends.mace_graphs import elements_of
from bdqm_tune.backends.mace_import import import_mace
from bdqm_tune.backends.mace_model import Foundation, model_with
from bdqm_tune.backends.mace_potential import MacePotential
from bdqm_tune.backends.native import pick_device
from bdqm_tune.config.backends.mace import MaceHyperparameters, MaceOptions
from bdqm_tune.config.config import Config, Training
from bdqm_tune.config.hyperparameters import Scheduler
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.fit import BestEpoch, Checkpoint, EpochRecord
from bdqm_tune.learning.held_out import HeldOut
from bdqm_tune.learning.targets import NO_REFERENCES, ReferenceEnergies, fit_reference_energies
from bdqm_tune.threads import torch_threads, usable_cores

# Schedules that go by the epochs bring the error down at their end: early stopping treats them alike.
LIKE: dict[str, Scheduler] = {"cosine": "cosine", "exponential": "cosine", "plateau": "plateau"}


class MaceRun:
    """One training of a model of MACE."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        references: ReferenceEnergies,
        hyperparameters: MaceHyperparameters,
        epochs: MaceEpochs,
        n_threads: int,
        key: dict[str, Any],
        foundation: str | None,
    ) -> None:
        """
        Args:
            references: that are added to what the model predicts.
            n_threads: of the CPU.
            foundation: SHA-256 of the file of the model that it starts from; None: there is none.
        """
        self.key, self.records = key, list[EpochRecord]()
        self._training: Training = config.training
        self._dataset, self._references, self._foundation = dataset, references, foundation
        self._epochs, self._n_threads = epochs, n_threads
        self._best = BestEpoch(config.training, config.objective, LIKE[hyperparameters.scheduler])
        self._kept: dict[str, torch.Tensor] | None = None  # weights of the best epoch
        self._trains_forces = bool(config.training.forces) and hyperparameters.forces_weight > 0
        self._in_epoch = False
        self._beginning: Checkpoint | None = None  # the state before the current epoch

    @property
    def n_parameters(self) -> int:
        return self._epochs.n_parameters

    @property
    def best(self) -> EpochRecord | None:
        return self._best.record

    def __iter__(self) -> Iterator[EpochRecord]:
        while not self._best.ends_after(len(self.records)):
            self._beginning = self.checkpoint()
            self._in_epoch = True
            record = self._run(len(self.records) + 1)
            if self._best.improves(record):
                self._kept = self._epochs.weights()
            self.records.append(record)
            self._in_epoch = False
            yield record

    def checkpoint(self) -> Checkpoint | None:
        if self._in_epoch:  # which was interrupted, or diverged
            return self._beginning
        tensors, plain = self._epochs.state()
        tensors |= {f"kept.{name}": value for name, value in (self._kept or {}).items()}
        order = self._epochs.order.get_state()
        return Checkpoint(list(self.records), self._epochs.lr, copy.deepcopy(plain), order, tensors)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume from a checkpoint; on the CPU, by as many threads, the records are those of an uninterrupted one."""
        self.records = list(checkpoint.records)
        for record in self.records:
            self._best.improves(record)
        self._epochs.restore(checkpoint.epochs, checkpoint.scheduler, checkpoint.lr)
        self._epochs.order.set_state(checkpoint.order)
        kept = {name: value for name, value in checkpoint.epochs.items() if name.startswith("kept.")}
        self._kept = {name.removeprefix("kept."): value.clone() for name, value in kept.items()} or None

    def potential(self) -> MacePotential:
        assert self._kept is not None, "no epoch has ended"
        arguments, precision = self._epochs.arguments, self._training.precision
        return MacePotential(
            model_with(arguments, self._kept, precision),
            arguments,
            precision,
            self._references,
            import_mace().version,
            self._trains_forces,
            tuple(elements_of(self._dataset.train.structures)),
            self._foundation,
        )

    def held_out(self) -> HeldOut | None:
        if self._kept is None:
            return None
        with torch_threads(self._n_threads):
            return self._epochs.errors_with(self._kept).held_out()

    def _run(self, epoch: int) -> EpochRecord:
        start = time.perf_counter()
        with torch_threads(self._n_threads):
            train, lr = self._epochs.train(epoch)
            validation: RecordedLoss = self._epochs.validate(epoch)
        return EpochRecord(
            epoch=epoch,
            train_loss=train.loss,
            train_energy_mae=train.energy_mae,
            val_energy_mae=validation.energy_mae,
            val_energy_mae_per_atom=validation.energy_mae_per_atom,
            lr=lr,
            epoch_seconds=time.perf_counter() - start,
            train_forces_mae=train.forces_mae,
            val_forces_mae=validation.forces_mae,
            train_stress_mae=train.stress_mae,
            val_stress_mae=validation.stress_mae,
        )


class MaceBackend:
    """Trains models of MACE, one after the other: torch's default type, which mace goes by, is one for all threads."""

    at_once = 1

    def __init__(self, config: Config, dataset: Dataset) -> None:
        """
        Args:
            config: what it leaves to the data is decided as in `dataset`.

        Raises:
            BadInput: mace-torch is not installed, there is no such GPU, a batch is larger than the training split, or
                the foundation model cannot be read or does not have an element.
        """
        import_mace()
        decided = dataset.config.training
        self._config, self._dataset = config.decided(bool(decided.forces), bool(decided.stress)), dataset
        self._place = pick_device(config.device)
        self.device = "cpu" if self._place.type == "cpu" else torch.cuda.get_device_name(self._place)
        self._n_threads = usable_cores()
        self._check_batch(config.fixed.get("batch_size", 1))
        file = MaceOptions(**config.backend_options).foundation_model
        self._foundation = None if file is None else Foundation(file)
        self._references = self._dataset.references
        if self._foundation is not None:
            self._references = self._references_beside(self._foundation)

    def start(self, hyperparameters: MaceHyperparameters, seed: int, dataset: Dataset | None = None) -> MaceRun:
        self._check_batch(hyperparameters.batch_size)
        data, config = dataset or self._dataset, self._config
        with torch_threads(self._n_threads):
            epochs = MaceEpochs(
                hyperparameters, config.training, data, self._references, seed, self._place, self._foundation
            )
        foundation = None if self._foundation is None else self._foundation.digest
        key = {
            "backend": "mace",
            "engine": import_mace().version,
            "device": self._place.type,
            "hyperparameters": hyperparameters.model_dump(mode="json"),
            "training": config.training.model_dump(mode="json"),
            "target": config.target.model_dump(mode="json") | {"objective": config.objective},
            "foundation model": foundation,
            "seed": seed,
            "data": data.digest,
        }
        return MaceRun(config, data, self._references, hyperparameters, epochs, self._n_threads, key, foundation)

    def _check_batch(self, batch_size: int) -> None:
        """Raise BadInput for a batch that the training split does not fill, for it would train nothing."""
        if batch_size > (n_train := len(self._dataset.train.structures)):
            raise BadInput(
                f"backend mace: batch_size {batch_size}: mace leaves out batches that are not full, and there are "
                f"{n_train} training structures; search.batch_size must be {n_train} or less"
            )

    def _references_beside(self, foundation: Foundation) -> ReferenceEnergies:
        """Reference energies to fine-tune with: what is to be fitted is fitted to what the foundation model leaves.

        Fitted without it they would have the binding energies in them, which the foundation model predicts itself: the
        training would begin some eV an atom off.
        """
        option, train = self._config.target.reference_energies, self._dataset.train.structures
        of_elements = option.items() if isinstance(option, dict) else ()
        if option != "fit" and not any(energy == "fit" for _, energy in of_elements):
            return self._dataset.references
        given = {atomic_numbers[symbol]: energy for symbol, energy in of_elements if energy != "fit"}
        precision = self._config.training.precision
        numbers = elements_of(train, self._dataset.validation.structures)
        model, arguments = foundation.start(numbers, precision)
        potential = MacePotential(
            model, arguments, precision, NO_REFERENCES, import_mace().version, known_elements=tuple(numbers)
        )
        with torch_threads(self._n_threads):
            interaction = potential.predict(train.atoms, forces=False).energies
        return fit_reference_energies(train.atoms, train.energies - interaction, given)
