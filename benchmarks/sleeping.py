"""A backend that sleeps in place of training, and gives records and models of plausible size."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.fit import Checkpoint, EpochRecord
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import SingleNN


def epoch_record(epoch: int, error: float, seconds: float) -> EpochRecord:
    """With all metrics that are logged of an epoch."""
    return EpochRecord(epoch, error, error, error, error, 1e-3, seconds, error, error)


@dataclass
class SleepingRun:
    """A training that learns nothing, and measures how long it waits between its epochs."""

    dataset: Dataset
    hyperparameters: Hyperparameters
    epochs: int
    seconds: float  # of an epoch
    n_parameters: int = 1000
    best: EpochRecord | None = None
    records: list[EpochRecord] = field(default_factory=list)
    slept: float = 0.0  # seconds
    waited: float = 0.0  # seconds

    def __iter__(self) -> Iterator[EpochRecord]:
        for epoch in range(1, self.epochs + 1):
            start = time.perf_counter()
            time.sleep(self.seconds)
            error = random.random() / epoch
            record = epoch_record(epoch, error, self.seconds)
            self.best = record if self.best is None or error < self.best.val_energy_mae else self.best
            self.records.append(record)
            end = time.perf_counter()
            self.slept += end - start
            yield record
            self.waited += time.perf_counter() - end

    @property
    def key(self) -> dict[str, Any]:
        return self.hyperparameters.model_dump()

    def checkpoint(self) -> None:
        """There is none to resume from."""

    def restore(self, checkpoint: Checkpoint) -> None:
        raise NotImplementedError

    def potential(self) -> NetworkPotential:
        network = SingleNN(self.dataset.descriptor.n_features, self.hyperparameters)
        return NetworkPotential.from_dataset(self.dataset, self.hyperparameters, network)


@dataclass
class Sleeper:
    """The backend of such trainings."""

    dataset: Dataset
    epochs: int
    seconds: float  # of an epoch
    device: str = "none"
    at_once: int = 1
    runs: list[SleepingRun] = field(default_factory=list)

    def start(self, hyperparameters: Hyperparameters, seed: int, dataset: Dataset | None = None) -> SleepingRun:
        self.runs.append(SleepingRun(dataset or self.dataset, hyperparameters, self.epochs, self.seconds))
        return self.runs[-1]
