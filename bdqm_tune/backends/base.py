"""The contract of a backend: configuration and data in, one record an epoch out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.fit import Checkpoint, EpochRecord
from bdqm_tune.learning.held_out import HeldOut
from bdqm_tune.learning.potential import Potential


class TrainingRun(Protocol):
    """One network in training; with folds, those that validate it train beside it."""

    @property
    def n_parameters(self) -> int | None:
        """Trainable parameters; None: not known."""
        ...

    @property
    def records(self) -> list[EpochRecord]:
        """The records of all epochs so far, including those before a checkpoint."""
        ...

    @property
    def best(self) -> EpochRecord | None:
        """The epoch with the least objective so far."""
        ...

    def __iter__(self) -> Iterator[EpochRecord]:
        """Train, one epoch a step; after `restore`, from the epoch after the checkpoint."""
        ...

    @property
    def key(self) -> dict[str, Any]:
        """All that a training depends on, as plain JSON; it resumes only from a checkpoint with the same key."""
        ...

    def checkpoint(self) -> Checkpoint | None:
        """The state from which a training with the same key resumes; call it between epochs or after an interrupt.

        None: there is no such state, or the backend has no checkpoints.
        """
        ...

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume from a checkpoint with the same key; call it before the first epoch.

        Raises:
            NotImplementedError: the backend has no checkpoints.
        """
        ...

    def potential(self) -> Potential:
        """The model of the best epoch so far; with folds, the network that is trained on all structures."""
        ...

    def held_out(self) -> HeldOut | None:
        """The errors of the validation structures at the best epoch so far; None: the backend does not say.

        With folds those of all structures, each by the network that was not trained on it.
        """
        ...


@runtime_checkable
class OutOfProcess(Protocol):
    """What a `TrainingRun` has besides where a program trains, which has files of its own."""

    def work_in(self, place: Path) -> None:
        """Keep files in this folder, which outlives the process as a checkpoint does; call it before all else.

        Without it they are in a temporary folder.
        """
        ...

    def watch(self, look: Callable[[], None]) -> None:
        """Call `look` several times a second while the next epoch is waited for; what it raises ends the program."""
        ...

    def close(self) -> None:
        """End the program, wherever the training has come to; its files stay."""
        ...


class Backend(Protocol):
    """Holds the data, and starts trainings on it.

    It may have `tags`, a dict of text, which every run of its trainings gets in MLflow, see `tags_of`.
    """

    device: str  # name of the device that it trains on
    at_once: int  # default number of parallel trials, each in a thread

    def start(self, hyperparameters: Any, seed: int, dataset: Dataset | None = None) -> TrainingRun:
        """A training that has not begun.

        Args:
            hyperparameters: an object of the class that the backend declares.
            dataset: the backend's structures with features of another descriptor; None: the backend's dataset.
        """
        ...


def tags_of(backend: Backend) -> dict[str, str]:
    """What a backend says of itself for MLflow's runs; empty where it says nothing."""
    tags: dict[str, str] = getattr(backend, "tags", {})
    return tags
