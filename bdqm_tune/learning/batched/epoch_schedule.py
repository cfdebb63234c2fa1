"""The schedule of an epoch: the structures of a trial in tiles, of the same number of atoms for every trial."""

from collections.abc import Sequence

import numpy as np
import torch

from bdqm_tune.compiled import compiled
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batches import SplitTensors

# Atoms of a trial that go through its network together. All trials of a step have as many rows, whatever their batches:
# a batch is gone through tile by tile, and its gradient is added up. Many enough that some ten trials fill a GPU, few
# enough that small batches do not leave most of a tile empty.
TILE = 2048
NOTHING, TRAIN, TRAIN_AND_STEP, VALIDATE = 0, 1, 2, 3
FIELDS = 4  # of a tile: first structure in the order, structures, structures of the batch, what is done


class Data:
    """Both splits of a study as one list of structures, those to train on first."""

    def __init__(self, train: SplitTensors, validation: SplitTensors) -> None:
        assert train.features is not None
        assert validation.features is not None
        self.splits = train, validation
        self.features = train.features, validation.features
        self.n_train, self.n_features, self.dtype = len(train), train.n_features, train.dtype
        self.n_atoms = torch.cat([train.n_atoms, validation.n_atoms])
        self.first = torch.cat([train.first, validation.first + len(train.features)])
        self.targets = torch.cat([train.targets, validation.targets])
        self.atoms_on_cpu = self.n_atoms.numpy(force=True)

    def __len__(self) -> int:
        return len(self.atoms_on_cpu)

    def tile(self, hyperparameters: Hyperparameters) -> int:
        """Atoms of a tile, a power of two: those of the largest structure, and with batch normalisation of a batch."""
        most = int(self.atoms_on_cpu.max())
        if hyperparameters.batchnorm:
            largest = np.sort(self.atoms_on_cpu[: self.n_train])[::-1]
            most = max(most, int(largest[: hyperparameters.batch_size + 1].sum()))
        return max(TILE, 1 << (most - 1).bit_length())


class EpochSchedule:
    """An epoch: `order` (n,) of structures, and `tiles` (n_tiles, FIELDS), the first of which train."""

    def __init__(self, data: Data, order: torch.Tensor, sizes: Sequence[int], tile: int, whole: bool) -> None:
        """
        Args:
            order: (n_train,) of the structures to train on, or none; all others are validated afterwards.
            sizes: of the batches.
            whole: a batch goes in one tile.
        """
        validation = np.arange(data.n_train, len(data))
        self.n_batches = len(sizes)
        self.order = np.concatenate([order.numpy(), validation])
        lengths = np.array([*sizes, len(validation)], dtype=np.int64)
        self.tiles = _tiles(data.atoms_on_cpu, self.order, lengths, tile, whole)


@compiled
def _tiles(n_atoms, order, sizes, tile, whole):  # type: ignore[no-untyped-def]
    """Cut batches into tiles of at most so many atoms; the last batch is to validate."""
    tiles = np.zeros((len(order), FIELDS), np.int64)
    found, begin = 0, 0
    for b in range(len(sizes)):
        stop, train = begin + sizes[b], b < len(sizes) - 1
        while begin < stop:
            end, atoms = begin + 1, n_atoms[order[begin]]
            while end < stop and ((whole and train) or atoms + n_atoms[order[end]] <= tile):
                atoms += n_atoms[order[end]]
                end += 1
            what = VALIDATE
            if train:
                what = TRAIN_AND_STEP if end == stop else TRAIN
            tiles[found, 0], tiles[found, 1], tiles[found, 2], tiles[found, 3] = begin, end - begin, sizes[b], what
            found += 1
            begin = end
    return tiles[:found].copy()


def most_structures(data: Data, tile: int) -> int:
    """The most structures that a tile can have."""
    return min(len(data), tile // int(data.atoms_on_cpu.min()))
