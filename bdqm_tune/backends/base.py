"""The contract of a backend: configuration and data in, one record an epoch out."""

from collections.abc import Iterator
from typing import Any, Protocol

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.fit import Checkpoint, EpochRecord
from bdqm_tune.learning.potential import Potential


class TrainingRun(Protocol):
    """One network in training."""

    @property
    def n_parameters(self) -> int:
        """Trainable parameters."""
        ...

    @property
    def records(self) -> list[EpochRecord]:
        """Of all epochs so far, those before a checkpoint as well."""
        ...

    @property
    def best(self) -> EpochRecord | None:
        """The epoch with the least objective so far."""
        ...

    def __iter__(self) -> Iterator[EpochRecord]:
        """Train, one epoch a step; after the epochs of a checkpoint, where it goes on from one."""
        ...

    @property
    def key(self) -> dict[str, Any]:
        """Plain JSON, of all that a training depends on: with another one's checkpoint it cannot go on."""
        ...

    def checkpoint(self) -> Checkpoint | None:
        """What a training with the same key can go on from; asked for between epochs, or when one was interrupted.

        None: there is nothing to go on from, or the backend cannot.
        """
        ...

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint with the same key; before the first epoch."""
        ...

    def potential(self) -> Potential:
        """The model of the best epoch so far."""
        ...


class Backend(Protocol):
    """Holds the data; starts as many trainings on it as asked."""

    device: str  # what it trains on, in words
    at_once: int  # trainings to run at the same time, each in a thread, unless the user wants it otherwise

    def start(self, hyperparameters: Hyperparameters, seed: int, dataset: Dataset | None = None) -> TrainingRun:
        """A training that has not begun.

        Args:
            dataset: the structures that the backend was made with, described otherwise; None: as they were.
        """
        ...
