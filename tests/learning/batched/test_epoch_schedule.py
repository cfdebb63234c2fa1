"""An epoch in tiles: every structure once, no more atoms than there is room for, and a step after each batch."""

import numpy as np
import pytest
import torch

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batched.epoch_schedule import TILE, TRAIN, TRAIN_AND_STEP, VALIDATE, Data, EpochSchedule
from bdqm_tune.learning.batches import SplitTensors, batch_sizes

CPU = torch.device("cpu")


def data(seed: int = 0, most: int = 60) -> Data:
    """50 structures to train on and 20 others, of up to so many atoms."""
    random = np.random.default_rng(seed)
    splits = []
    for n in (50, 20):
        n_atoms = random.integers(1, most, n)
        splits.append(SplitTensors(np.zeros((n_atoms.sum(), 3)), n_atoms, np.zeros(n), CPU, torch.float64))
    return Data(*splits)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 49, 100])
def test_tiles_take_up_the_batches_and_then_the_validation_split(batch_size: int, whole: bool) -> None:
    both, sizes = data(), batch_sizes(50, batch_size)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    plan = EpochSchedule(both, order, sizes, 128, whole)
    assert plan.order.tolist() == [*order.tolist(), *range(50, 70)]
    assert plan.n_batches == len(sizes)
    begin, count, batch, what = plan.tiles.T
    assert begin.tolist() == [0, *np.cumsum(count)[:-1].tolist()]
    assert count.sum() == 70
    ends = np.cumsum(count)
    assert ends[what == TRAIN_AND_STEP].tolist() == np.cumsum(sizes).tolist()
    assert batch[what == TRAIN_AND_STEP].tolist() == sizes
    assert (begin[what == VALIDATE] >= 50).all()
    assert set(what.tolist()) <= {TRAIN, TRAIN_AND_STEP, VALIDATE}
    atoms = np.add.reduceat(both.atoms_on_cpu[plan.order], begin)
    if whole:
        assert TRAIN not in what
    else:
        assert (atoms <= 128).all()
        # As full as whole structures allow: a tile and the next of its batch together would not have fitted.
        goes_on = (what[:-1] == TRAIN) | ((what[:-1] == VALIDATE) & (what[1:] == VALIDATE))
        next_one = both.atoms_on_cpu[plan.order][ends[:-1]]
        assert (atoms[:-1] + next_one > 128)[goes_on].all()


def test_a_tile_holds_the_largest_structure_and_with_batch_normalisation_the_largest_batch() -> None:
    small, large = data(most=60), data(most=5000)
    assert small.tile(Hyperparameters()) == TILE
    for batch_size in (1, 10, 1000):
        tile = large.tile(Hyperparameters(batchnorm=True, batch_size=batch_size))
        train = np.sort(large.atoms_on_cpu[:50])[::-1]
        assert tile >= train[: batch_size + 1].sum()  # one that is left over joins the batch before it
        assert tile & (tile - 1) == 0
    assert large.tile(Hyperparameters()) == 8192


def test_validation_alone_is_an_epoch_too() -> None:
    plan = EpochSchedule(data(), torch.arange(0), [], 2048, whole=False)
    assert plan.tiles.tolist() == [[0, 20, 20, VALIDATE]]
    assert plan.n_batches == 0
