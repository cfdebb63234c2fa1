"""A training of MACE, epoch by epoch, by the functions of mace-torch that `mace_run_train` calls, in its order.

With the same hyperparameters, seed, structures and number of threads the figures are those of `mace_run_train`.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler

from bdqm_tune.backends.mace_errors import RecordedLoss
from bdqm_tune.backends.mace_graphs import elements_of, labelled_graphs
from bdqm_tune.backends.mace_import import default_dtype, import_mace
from bdqm_tune.backends.mace_model import Foundation, arguments_of, model_of
from bdqm_tune.config.backends.mace import MaceHyperparameters
from bdqm_tune.config.config import Training
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.optimisation import optimizer_state, restore_optimizer
from bdqm_tune.learning.targets import ReferenceEnergies
from bdqm_tune.progress import GRACE, check

VALIDATION_BATCH = 10  # structures, as in mace_run_train


class MaceEpochs:
    """A model of MACE with all that its training changes."""

    def __init__(
        self,
        hyperparameters: MaceHyperparameters,
        training: Training,
        dataset: Dataset,
        references: ReferenceEnergies,
        seed: int,
        device: torch.device,
        foundation: Foundation | None = None,
    ) -> None:
        """
        Args:
            training: with nothing left to the data.
            references: what is learned are the energies less these.
            seed: of weights and order.
            foundation: a model to start from; None: random weights.

        Raises:
            BadInput: the foundation model does not have an element, or cannot be trained further.
        """
        mace = import_mace()
        self._hyperparameters, self._training, self._device = hyperparameters, training, device
        self._losses: dict[float, Any] = {}
        train, validation = dataset.train.structures, dataset.validation.structures
        self.numbers = elements_of(train, validation)
        r_max = float(hyperparameters.r_max or 0) if foundation is None else foundation.r_max
        with default_dtype(training.precision), torch.random.fork_rng(devices=[]):
            # The order of what follows is that of mace_run_train: it decides which random numbers each step gets.
            torch.manual_seed(seed)
            self.order = torch.Generator().manual_seed(seed)
            self._train = mace.DataLoader(
                labelled_graphs(train, references, self.numbers, r_max),
                hyperparameters.batch_size,
                shuffle=True,
                drop_last=True,
                generator=self.order,
            )
            self._validation = mace.DataLoader(
                labelled_graphs(validation, references, self.numbers, r_max),
                VALIDATION_BATCH,
                shuffle=False,
                generator=torch.Generator().manual_seed(seed),  # else it takes a number from torch's own
            )
            n_neighbours = mace.modules.compute_avg_num_neighbors(self._train)
            # Without forces, which give the scale of an atom's energy, its deviation does.
            scaling = "rms_forces_scaling" if training.forces else "std_scaling"
            _, scale = mace.modules.scaling_classes[scaling](self._train, [[0.0] * len(self.numbers)])
            if foundation is None:
                self.arguments = arguments_of(hyperparameters, self.numbers, n_neighbours, np.atleast_1d(scale))
                self.model = model_of(self.arguments, training.precision)
            else:
                self.model, self.arguments = foundation.start(self.numbers, training.precision)
            self.model.to(device)
            options = SimpleNamespace(**hyperparameters.model_dump(), optimizer="adam", beta=0.9, freeze=None)
            options.lr_params_factors = "{}"
            self.optimizer = mace.scripts.get_optimizer(options, mace.scripts.get_params_options(options, self.model))
            self._ema = None
            if hyperparameters.ema:
                self._ema = mace.ExponentialMovingAverage(self.model.parameters(), decay=hyperparameters.ema_decay)
        self._scheduler = _schedule(self.optimizer, hyperparameters, training.epochs)
        self._validation_loss: float | None = None

    @property
    def n_parameters(self) -> int:
        """Trainable parameters."""
        return sum(weight.numel() for weight in self.model.parameters())

    @property
    def lr(self) -> float:
        """The learning rate."""
        return float(self.optimizer.param_groups[0]["lr"])

    def train(self, epoch: int) -> tuple[RecordedLoss, float]:
        """Train for one epoch, counted from 1; returns the errors during it, and its learning rate."""
        mace = import_mace()
        if self._validation_loss is not None:
            if isinstance(self._scheduler, lr_scheduler.ReduceLROnPlateau):
                self._scheduler.step(self._validation_loss)
            else:
                self._scheduler.step()
        with default_dtype(self._training.precision):
            errors = RecordedLoss(self._loss(epoch))
            for batch in _checked(self._train):
                mace.take_step(
                    self.model,
                    errors,
                    batch,
                    self.optimizer,
                    self._ema,
                    self._outputs,
                    self._hyperparameters.clip_grad,
                    self._device,
                )
        return errors, self.lr

    def validate(self, epoch: int) -> RecordedLoss:
        """The errors of the validation split, by the running mean of the weights where there is one."""
        with self._averaged():
            loss, errors = self._evaluate(self.model, epoch)
        self._validation_loss = loss
        return errors

    def errors_with(self, weights: Mapping[str, torch.Tensor]) -> RecordedLoss:
        """The errors of the validation split by the model with other weights, which it does not keep."""
        own = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(weights)
        try:
            return self._evaluate(self.model, 1)[1]
        finally:
            self.model.load_state_dict(own)

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy, on the CPU, of the weights with which it validates."""
        with self._averaged():
            return _copied(self.model.state_dict())

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """A copy of all that the next epochs depend on, but for `lr` and `order`: tensors, and plain JSON."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in optimizer_state(self.optimizer).items()}
        plain = {"schedule": self._scheduler.state_dict(), "validation_loss": self._validation_loss, "ema_updates": 0}
        if self._ema is not None:
            tensors |= {f"ema.{i}": value for i, value in enumerate(self._ema.shadow_params)}
            plain["ema_updates"] = self._ema.num_updates
        return _copied(tensors), plain

    def restore(self, tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any], lr: float) -> None:
        """Restore what `state` gave, of a training with the same arguments."""

        def part(name: str) -> dict[str, torch.Tensor]:
            start = f"{name}."
            return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}

        self.model.load_state_dict(part("model"))
        restore_optimizer(self.optimizer, part("optimizer"))
        self._scheduler.load_state_dict(dict(plain["schedule"]))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self._validation_loss = plain["validation_loss"]
        if self._ema is not None:
            means = part("ema")
            self._ema.shadow_params = [means[str(i)].to(self._device, copy=True) for i in range(len(means))]
            self._ema.num_updates = plain["ema_updates"]

    @property
    def _outputs(self) -> dict[str, bool]:
        """What mace computes of a structure."""
        forces, stress = bool(self._training.forces), bool(self._training.stress)
        return {"energy": True, "forces": forces, "virials": False, "stress": stress, "dipoles": False}

    def _evaluate(self, model: torch.nn.Module, epoch: int) -> tuple[float, RecordedLoss]:
        with default_dtype(self._training.precision):
            errors = RecordedLoss(self._loss(epoch))
            loss, _ = import_mace().tools.evaluate(
                model, errors, _checked(self._validation), self._outputs, self._device
            )
        return float(loss), errors

    def _loss(self, epoch: int) -> Any:
        """The loss of an epoch: in the last ones, forces and stress weigh less (`training.energy_stage`)."""
        weight = self._training.label_weight(epoch)
        if weight not in self._losses:
            self._losses[weight] = self._make_loss(weight)
        return self._losses[weight]

    def _make_loss(self, weight: float) -> Any:
        mace, options = import_mace(), self._hyperparameters
        if not self._training.forces:
            of_energies = mace.modules.loss.weighted_mean_squared_error_energy
            return lambda pred, ref, ddp: options.energy_weight * of_energies(ref, pred, ddp)
        given = SimpleNamespace(
            loss="stress" if self._training.stress else "weighted",
            energy_weight=options.energy_weight,
            forces_weight=weight * options.forces_weight,
            stress_weight=weight * options.stress_weight,
        )
        return mace.scripts.get_loss_fn(given, dipole_only=False, compute_dipole=False).to(self._device)

    def _averaged(self) -> AbstractContextManager[None]:
        averaged: AbstractContextManager[None] = nullcontext() if self._ema is None else self._ema.average_parameters()
        return averaged


def _schedule(
    optimizer: torch.optim.Optimizer, hyperparameters: MaceHyperparameters, epochs: int
) -> lr_scheduler.LRScheduler:
    match hyperparameters.scheduler:
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
        case "exponential":
            return lr_scheduler.ExponentialLR(optimizer, gamma=hyperparameters.lr_final ** (1 / epochs))
        case "plateau":
            factor, patience = hyperparameters.lr_factor, hyperparameters.scheduler_patience
            return lr_scheduler.ReduceLROnPlateau(optimizer, factor=factor, patience=patience)


def _checked(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, until the process is to end."""
    for batch in batches:
        check(GRACE)
        yield batch


def _copied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
