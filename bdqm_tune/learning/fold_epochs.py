"""Cross-validation: networks that train side by side, one without each fold, and one on all structures."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bdqm_tune.learning.batches import SplitTensors, batch_sizes
from bdqm_tune.learning.epochs import Epochs
from bdqm_tune.learning.networks import AtomicNetwork


class Fold(NamedTuple):
    """What one network is trained and validated on."""

    train: SplitTensors
    validation: SplitTensors
    trained: torch.Tensor  # (n_train,) indices of its structures among all, ascending
    held_out: torch.Tensor  # (n_validation,) the same of those that it is validated on
    scale: float  # eV of one unit of its scaled targets


class FoldEpochs:
    """Trains k + 1 networks, see `Epochs`; the one on all structures is kept, those of the folds validate.

    The networks train one after the other, each on its own structures in the order that all of them have in the epoch:
    a permutation of all structures, drawn at random, is one of those of a fold as well.
    """

    def __init__(
        self,
        make: Callable[[SplitTensors, SplitTensors, float], Epochs],
        train: SplitTensors,
        folds: Sequence[Fold],
        batch_size: int,
        scale: float,
    ) -> None:
        """
        Args:
            make: gives a network for a training and a validation split, and the scale of its targets.
            train: all structures.
            scale: eV of one unit of their scaled targets.
        """
        self._all = make(train, train, scale)  # which is never validated on what it learns from
        self._folds, self._batch_size, self._scale = folds, batch_size, scale
        self._of_folds = [make(fold.train, fold.validation, fold.scale) for fold in folds]
        self._places = [_places(fold.trained, len(train)) for fold in folds]
        self.optimizer = self._all.optimizer

    @property
    def engines(self) -> set[str]:
        """The names of the trainers of its networks."""
        return {type(epochs).__name__ for epochs in self._members}

    @property
    def _members(self) -> list[Epochs]:
        return [self._all, *self._of_folds]

    def train(self, order: torch.Tensor, sizes: Sequence[int], weight: float = 1.0) -> list[float]:
        """As `Epochs.train`; the sums are means over all networks, each of as many structures as there are."""
        lr = self.optimizer.param_groups[0]["lr"]
        totals = _added(np.zeros(4), self._all.train(order, sizes, weight))
        for fold, epochs, places in zip(self._folds, self._of_folds, self._places, strict=True):
            for group in epochs.optimizer.param_groups:
                group["lr"] = lr
            own = places[order]
            own = own[own >= 0]
            loss, *errors = epochs.train(own, batch_sizes(len(own), self._batch_size), weight)
            totals = _added(totals, [loss, *(error * fold.scale / self._scale for error in errors)])
        # Each structure is trained on by all networks but one: k times.
        return (totals / len(self._folds)).tolist()

    def validate(self) -> list[float]:
        """As `Epochs.validate`; each structure counts once, by the network that is not trained on it."""
        totals = np.zeros(4)
        for fold, epochs in zip(self._folds, self._of_folds, strict=True):
            totals = _added(totals, [error * fold.scale / self._scale for error in epochs.validate()])
        return totals.tolist()

    def keep(self) -> None:
        for epochs in self._members:
            epochs.keep()

    @property
    def kept_network(self) -> AtomicNetwork:
        """That which is trained on all structures."""
        return self._all.kept_network

    @property
    def kept_networks(self) -> list[AtomicNetwork]:
        """Those of the folds, in evaluation mode."""
        return [epochs.kept_network for epochs in self._of_folds]

    def state(self) -> dict[str, torch.Tensor]:
        return {f"{i}.{name}": value for i, each in enumerate(self._members) for name, value in each.state().items()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        for i, epochs in enumerate(self._members):
            own = f"{i}."
            epochs.restore({name.removeprefix(own): v for name, v in state.items() if name.startswith(own)})


def _added(totals: NDArray[np.float64], sums: Sequence[float]) -> NDArray[np.float64]:
    """Totals (4,) with sums added; those of forces and stress are missing where a trainer has none."""
    return totals + np.pad(sums, (0, len(totals) - len(sums)))


def _places(trained: torch.Tensor, n: int) -> torch.Tensor:
    """For each of n structures (n,) its place among those of a fold; -1: it is not among them."""
    places = torch.full((n,), -1, dtype=torch.int64)
    places[trained] = torch.arange(len(trained))
    return places
