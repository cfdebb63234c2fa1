"""The number of parallel trials on a device, by its speed and its memory."""

import time
from collections.abc import Callable

import numpy as np
import torch

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batched.cuda_stream import WARM_UP
from bdqm_tune.learning.batched.epoch_schedule import FIELDS, VALIDATE, Data, EpochSchedule
from bdqm_tune.learning.batched.group import Group
from bdqm_tune.learning.batched.layout import Layout
from bdqm_tune.learning.batched.slots import Job, State
from bdqm_tune.learning.memory_budget import free_memory

GAIN = 1.1  # in trials a second that twice as many trials must bring
MOST = 64
STEPS = 32
SHARE = 0.8  # of the memory that the data leave free


def trials_at_once(data: Data, middle: Hyperparameters, largest: Hyperparameters) -> int:
    """The number of parallel trials on the device of the data, 1 to `MOST`.

    Args:
        middle: typical hyperparameters, for measuring the time.
        largest: those that take most memory, for estimating it.
    """
    most = int(SHARE * free_memory(data.targets.device) / bytes_a_trial(data, largest))
    return best_number(lambda number: step_seconds(number, data, middle), max(1, min(most, MOST)))


def best_number(seconds: Callable[[int], float], most: int) -> int:
    """Double the number of parallel trials while their throughput grows by `GAIN`.

    Args:
        seconds: time of a step of so many trials, s; it may raise torch.OutOfMemoryError, which ends the search.
        most: trials, at least 1.
    """
    best, rate = 1, 0.0
    number = 1
    while number <= most:
        try:
            throughput = number / seconds(number)
        except torch.OutOfMemoryError:
            break
        if throughput < GAIN * rate:
            break
        best, rate, number = number, throughput, 2 * number
    return best


def step_seconds(
    number: int, data: Data, hyperparameters: Hyperparameters, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of a step of so many trials with these hyperparameters."""
    tile = data.tile(hyperparameters)
    group = Group(data, hyperparameters.activation, hyperparameters.batchnorm, tile)
    group.waiting = [_job(data, hyperparameters, tile) for _ in range(number)]
    device = data.targets.device
    for _ in range(WARM_UP):
        _step(group)
    _wait(device)
    start = clock()
    for _ in range(STEPS):
        _step(group)
    _wait(device)
    return (clock() - start) / STEPS


def bytes_a_trial(data: Data, hyperparameters: Hyperparameters) -> int:
    """Estimated memory of a trial in a group, bytes: mainly what layers save for the backward pass."""
    tile, layers = data.tile(hyperparameters), hyperparameters.layers
    layout = Layout(data.n_features, [len(layers)], layers, hyperparameters.batchnorm)
    saved = 2 + hyperparameters.batchnorm + 2 * hyperparameters.dropout  # values, what was before them, and so on
    passing = 4 * max(*layout.widths, data.n_features)
    numbers = tile * (saved * layout.n_nodes + passing) + 8 * layout.n_parameters
    return numbers * data.dtype.itemsize + 8 * (len(data) + 8 * tile)


def _job(data: Data, hyperparameters: Hyperparameters, tile: int) -> Job:
    layers, batchnorm, like = hyperparameters.layers, hyperparameters.batchnorm, data.features[0]
    places = Layout(data.n_features, [len(layers)], layers, batchnorm).places(layers)
    size = min(hyperparameters.batch_size, data.n_train)
    schedule = EpochSchedule(data, torch.arange(data.n_train)[:size], [size], tile, whole=batchnorm)
    steps = schedule.tiles[schedule.tiles[:, 3] != VALIDATE]  # repeated
    schedule.tiles = np.resize(steps, (WARM_UP + STEPS, FIELDS))
    state = State(like.new_full((3, len(places.parameters)), 0.01), like.new_ones(len(places.running)), 0)
    return Job(tuple(layers), state, schedule, lr=1e-3, decay=0.0, transition=0.0, per_atom=True)


def _step(group: Group) -> None:
    while not group.advance():
        time.sleep(1e-5)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
