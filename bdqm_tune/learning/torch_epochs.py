"""Training with torch's operations: any network and optimizer, on any device."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from bdqm_tune.config.config import Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batches import Batch, SplitTensors
from bdqm_tune.learning.losses import make_loss
from bdqm_tune.learning.networks import AtomicNetwork, borrowed_random_numbers, make_network, sum_per_structure
from bdqm_tune.learning.optimisation import make_optimizer, optimizer_state, restore_optimizer
from bdqm_tune.learning.plain_network import is_plain
from bdqm_tune.progress import GRACE, check


class Predicted(NamedTuple):
    """What a network says of a batch, in units of the energy scale."""

    energies: torch.Tensor  # (n_structures,)
    forces: torch.Tensor | None = None  # (n_atoms, 3), 1/Å
    virials: torch.Tensor | None = None  # (n_structures, 6) stress · volume per atom


class TorchEpochs:
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
        self._force_coefficient = hyperparameters.force_coefficient
        self._stress_coefficient = hyperparameters.stress_coefficient
        self._weight = 1.0  # of both in the current epoch
        self._train, self._validation = train, validation
        with borrowed_random_numbers(self._devices):
            torch.manual_seed(seed)
            network = make_network(train.n_features, hyperparameters, train.elements)
            self._random_states = self._get_random_states()
        self._by_element = bool(network.elements)
        # Any other network may draw random numbers of its own.
        self._draws = hyperparameters.dropout or not is_plain(network, train.n_features, hyperparameters)
        self._network = network.to(train.device, train.dtype)
        self.optimizer = make_optimizer(self._network.parameters(), hyperparameters)
        self._loss = make_loss(training, scale)
        self._per_atom = training.energy_loss == "per_atom"
        self.keep()

    def keep(self) -> None:
        self._kept_weights = copy.deepcopy(self._network.state_dict())

    @property
    def network(self) -> AtomicNetwork:
        """The network in training, not a copy."""
        return self._network

    @property
    def kept_network(self) -> AtomicNetwork:
        network = copy.deepcopy(self._network)
        network.load_state_dict(self._kept_weights)
        return network.eval()

    def train(self, order: torch.Tensor, sizes: Sequence[int], weight: float = 1.0) -> list[float]:
        self._network.train()
        self._weight = weight
        # Sums stay on the device; reading them back in every step would make a GPU wait.
        totals = self._sums(self._train)
        with self._own_random_numbers():
            for batch in self._train.in_batches(order, sizes, self._by_element):
                loss, *errors = self._step(batch)
                totals += torch.stack([loss * len(batch.targets), *(_sum(error.abs()) for error in errors)])
        return [float(total) for total in totals.tolist()]

    def validate(self) -> list[float]:
        self._network.eval()
        totals = self._sums(self._validation)
        for batch in self._validation.in_order(by_element=self._by_element):
            check(GRACE)
            predicted = predict_batch(self._network, batch, train=False)
            error, *others = (e.abs() for e in self._errors(batch, predicted))
            totals += torch.stack([_sum(error), _sum(error / batch.n_atoms), *map(_sum, others)])
        return [float(total) for total in totals.tolist()]

    def state(self) -> dict[str, torch.Tensor]:
        parts = {
            "network": self._network.state_dict(),
            "kept": self._kept_weights,
            "random": {str(i): state for i, state in enumerate(self._random_states)},
            "optimizer": optimizer_state(self.optimizer),
        }
        return {
            f"{part}.{name}": v.to("cpu", copy=True) for part, values in parts.items() for name, v in values.items()
        }

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        def part(name: str) -> dict[str, torch.Tensor]:
            return {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")}

        self._network.load_state_dict(part("kept"))
        self.keep()
        self._network.load_state_dict(part("network"))
        self._random_states = [state[f"random.{i}"].clone() for i in range(len(self._random_states))]
        restore_optimizer(self.optimizer, part("optimizer"))

    @property
    def _devices(self) -> list[torch.device]:
        device = self._train.device
        return [device] if device.type == "cuda" else []

    def _get_random_states(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._devices)]

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        if not self._draws:
            yield
            return
        # Dropout draws from torch's global generators: set this training's states, and restore the caller's.
        with borrowed_random_numbers(self._devices):
            torch.set_rng_state(self._random_states[0])
            for device, state in zip(self._devices, self._random_states[1:], strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
            self._random_states = self._get_random_states()

    def _sums(self, split: SplitTensors) -> torch.Tensor:
        return split.targets.new_zeros(2 + (split.forces is not None) + (split.stress is not None))

    def _step(self, batch: Batch) -> list[torch.Tensor]:
        """Take a step of the optimizer; returns the loss before it, then the errors."""
        results: list[torch.Tensor] = []

        def closure() -> torch.Tensor:  # L-BFGS calls it more than once
            check(GRACE)
            predicted = predict_batch(self._network, batch, train=True)
            errors = predicted.energies - batch.targets
            if self._per_atom:
                errors = errors / batch.n_atoms
            loss: torch.Tensor = self._loss(errors, torch.zeros_like(errors))
            if batch.forces is not None and predicted.forces is not None:
                loss = loss + self._weight * self._force_coefficient * batch.forces.loss(self._loss, predicted.forces)
            if batch.stress is not None and predicted.virials is not None:
                loss = loss + self._weight * self._stress_coefficient * batch.stress.loss(self._loss, predicted.virials)
            self.optimizer.zero_grad()
            loss.backward()
            if not results:
                results.extend([loss.detach(), *self._errors(batch, predicted)])
            return loss

        # Typed to return a float, for which a GPU would have to be synchronised.
        self.optimizer.step(closure)  # type: ignore[arg-type]
        return results

    def _errors(self, batch: Batch, predicted: Predicted) -> list[torch.Tensor]:
        """Errors of energies (n_structures,) and, if trained, of forces (n_atoms, 3) and stress (n_structures, 6)."""
        errors = [predicted.energies.detach() - batch.targets]
        if batch.forces is not None and predicted.forces is not None:
            errors.append(batch.forces.errors(predicted.forces.detach()))
        if batch.stress is not None and predicted.virials is not None:
            errors.append(batch.stress.errors(predicted.virials.detach()))
        return errors


def predict_batch(network: AtomicNetwork, batch: Batch, train: bool) -> Predicted:
    """What the batch has labels of.

    Args:
        train: whether a loss of them is to be differentiated.
    """
    n = len(batch.targets)
    if batch.forces is None and batch.stress is None:
        with torch.set_grad_enabled(train):
            return Predicted(sum_per_structure(network(batch.features, batch.numbers), batch.structure, n))
    features = batch.features.requires_grad_()
    energies = sum_per_structure(network(features, batch.numbers), batch.structure, n)
    (gradient,) = torch.autograd.grad(energies.sum(), features, create_graph=train)
    forces = None if batch.forces is None else batch.forces.forces(gradient)
    return Predicted(energies, forces, None if batch.stress is None else batch.stress.virials(gradient))


def _sum(values: torch.Tensor) -> torch.Tensor:
    return values.sum(dtype=torch.float64)
