"""How many trials to stack, by times that are given and by the time that steps take here."""

from itertools import count

import numpy as np
import pytest
import torch

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batched.at_once import STEPS, best_number, bytes_a_trial, step_seconds
from bdqm_tune.learning.batched.epoch_schedule import Data
from bdqm_tune.learning.batches import SplitTensors


def data(n_atoms: int = 20) -> Data:
    random = np.random.default_rng(0)
    splits = []
    for n in (40, 10):
        features = random.normal(size=(n * n_atoms, 5))
        splits.append(
            SplitTensors(features, np.full(n, n_atoms), random.normal(size=n), torch.device("cpu"), torch.float32)
        )
    return Data(*splits)


@pytest.mark.parametrize(
    ("free", "most", "expected"), [(1, 64, 1), (6, 64, 8), (16, 64, 16), (1000, 64, 64), (64, 5, 4)]
)
def test_more_trials_are_taken_while_they_cost_little(free: int, most: int, expected: int) -> None:
    """Of a device on which so many trials take no more time than one, and each further one as much again."""
    asked = []

    def seconds(number: int) -> float:
        asked.append(number)
        return max(1.0, number / free)

    assert best_number(seconds, most) == expected
    assert max(asked) <= most


def test_what_runs_out_of_memory_is_not_taken() -> None:
    def seconds(number: int) -> float:
        if number > 4:
            raise torch.OutOfMemoryError("out of memory")
        return 1.0

    assert best_number(seconds, 64) == 4


@pytest.mark.parametrize("options", [{}, {"batchnorm": True}, {"hidden_layers": [4, 9], "activation": "gelu"}])
def test_a_step_is_timed(options: dict[str, object]) -> None:
    ticks = count()
    hyperparameters = Hyperparameters(**options)
    assert step_seconds(3, data(), hyperparameters, clock=lambda: float(next(ticks))) == 1 / STEPS
    assert 0 < step_seconds(3, data(), hyperparameters) < 1


def test_memory_grows_with_the_network_and_what_it_leaves() -> None:
    small = bytes_a_trial(data(), Hyperparameters(num_layers=2, num_nodes=8))
    # 2048 atoms, 16 nodes of which two numbers stay, four times the width in passing
    assert small == pytest.approx(2048 * (2 * 16 + 4 * 8) * 4, rel=0.3)
    assert bytes_a_trial(data(), Hyperparameters(num_layers=20, num_nodes=8)) > 4 * small
    batch = bytes_a_trial(data(200), Hyperparameters(num_layers=2, num_nodes=8, batchnorm=True, batch_size=32))
    assert batch > 4 * small  # 33 structures of 200 atoms go in one tile
