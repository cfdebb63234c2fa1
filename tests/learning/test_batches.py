"""A batch is an index: the same as a loop over structures, every structure once an epoch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bdqm_tune.learning.batches import SplitTensors, batch_sizes
from bdqm_tune.learning.networks import sum_per_structure

SIZES = [3, 1, 7, 2, 2, 5, 1, 4, 6, 3]


def arrays(sizes: list[int]) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Every feature and target different from every other."""
    return np.arange(2.0 * sum(sizes)).reshape(-1, 2), np.array(sizes), -1.0 - np.arange(len(sizes))


def tensors(sizes: list[int]) -> SplitTensors:
    return SplitTensors(*arrays(sizes), torch.device("cpu"), torch.float64)


@given(data=st.data(), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_a_batch_is_what_a_loop_over_its_structures_gives(data: st.DataObject, sizes: list[int]) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=20))
    features, _, targets = arrays(sizes)
    first = np.concatenate([[0], np.cumsum(sizes)])
    rows = [features[first[i] : first[i + 1]] for i in chosen]
    owners = [place for place, i in enumerate(chosen) for _ in range(sizes[i])]
    batch = tensors(sizes).batch(torch.tensor(chosen))
    assert batch.features.tolist() == np.concatenate(rows).tolist()
    assert batch.structure.tolist() == owners
    assert batch.targets.tolist() == targets[chosen].tolist()
    assert batch.n_atoms.tolist() == [sizes[i] for i in chosen]


def test_sums_per_structure_are_those_of_a_loop() -> None:
    batch = tensors(SIZES).batch(torch.tensor([4, 0, 9]))
    summed = sum_per_structure(batch.features[:, :1], batch.structure, 3)
    features, _, _ = arrays(SIZES)
    first = np.concatenate([[0], np.cumsum(SIZES)])
    assert summed.tolist() == [features[first[i] : first[i + 1], 0].sum() for i in (4, 0, 9)]


@given(n=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 100))
@settings(max_examples=80, deadline=None)
def test_batches_hold_every_structure_once(n: int, batch_size: int, seed: int) -> None:
    split, sizes = tensors([i % 4 + 1 for i in range(n)]), batch_sizes(n, batch_size)
    batches = list(split.in_batches(torch.randperm(n, generator=torch.Generator().manual_seed(seed)), sizes))
    assert sorted(target for batch in batches for target in batch.targets.tolist()) == sorted(split.targets.tolist())
    assert [len(batch.targets) for batch in batches] == sizes
    assert all(size == batch_size for size in sizes[:-1])
    # A single one left over has joined the last batch.
    assert sizes[-1] <= batch_size + 1
    assert sizes[-1] > 1 or n == 1 or batch_size == 1


@pytest.mark.parametrize(
    ("n", "batch_size", "expected"),
    [(10, 3, [3, 3, 4]), (10, 4, [4, 4, 2]), (10, 5, [5, 5]), (10, 9, [10]), (10, 64, [10]), (1, 8, [1])],
)
def test_one_left_over_joins_the_batch_before(n: int, batch_size: int, expected: list[int]) -> None:
    assert batch_sizes(n, batch_size) == expected


def test_in_order_is_in_order() -> None:
    batches = list(tensors(SIZES).in_order(batch_size=4))
    assert [len(batch.targets) for batch in batches] == [4, 4, 2]
    assert torch.cat([batch.targets for batch in batches]).tolist() == arrays(SIZES)[2].tolist()
    assert torch.cat([batch.features for batch in batches]).tolist() == arrays(SIZES)[0].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_have_the_precision_asked_for(dtype: torch.dtype) -> None:
    batch = SplitTensors(*arrays(SIZES), torch.device("cpu"), dtype).batch(torch.tensor([1]))
    assert batch.features.dtype == dtype
    assert batch.targets.dtype == torch.float64
