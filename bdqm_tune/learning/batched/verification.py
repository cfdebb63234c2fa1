"""Trains a small problem by the batched trainer and by torch's operations on the same device, and compares them.

The batched trainer computes forward, backward and optimizer by formulas of its own, in streams, by captured graphs.
Whether all this is right depends on the device and on versions, so that it is compared there, before a study uses it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from bdqm_tune.config.config import Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import one_line
from bdqm_tune.learning.batched.epoch_schedule import TRAIN_AND_STEP, VALIDATE, Data, EpochSchedule
from bdqm_tune.learning.batched.epochs import BatchedEpochs, running_statistics
from bdqm_tune.learning.batched.trainer import BatchedTrainer
from bdqm_tune.learning.batched.verdict import Case, Comparison, Verdict
from bdqm_tune.learning.batches import SplitTensors
from bdqm_tune.learning.networks import AtomicNetwork
from bdqm_tune.learning.plain_network import KNOWN_ACTIVATIONS
from bdqm_tune.learning.torch_epochs import TorchEpochs
from bdqm_tune.progress import interruptible, told_to_end

SECONDS = 10.0  # after which no further case is begun
LONGEST = 60.0  # seconds after which an epoch is given up
N_FEATURES, SEED, SCALE = 5, 1, 1.0
# Atoms of the structures. One batch has more than a tile takes, and so is gone through in several.
SIZES = [3, 40, 17, 1, 5, 900, 800, 700, 28, 2, 11, 35, 9, 60, 21, 4, 33, 13, 8, 26, 50, 7, 19, 30, 16]
VALIDATION_SIZES = [12, 1100, 30, 1000, 5]
# Odd: of an even number the signs of absolute errors may add up to 0. Of what rounding leaves of it Adam makes steps.
BATCH = 5
LAYERS = ([9, 4], [5], [7, 7, 6])  # in turn, so that slots are padded
DROPOUT_RATE = 0.3
# Rounding is measured: weights that differ in the last place at the start give results that differ by as much. The
# formulas of the batched trainer sum in another order, which is more than one such change.
ROUNDINGS = 50.0  # times what was measured
FLOAT64 = torch.float64
LEAST = {torch.float32: 1e-3, FLOAT64: 1e-10}  # bounds of a difference, below which it is no fault


class Problem(NamedTuple):
    """Random structures with smooth targets, on a device."""

    train: SplitTensors
    validation: SplitTensors


class Trained(NamedTuple):
    """What a trainer made of a case: numbers of each quantity, on the CPU in float64."""

    values: dict[str, torch.Tensor]


def all_cases() -> list[Case]:
    """All options that the batched trainer knows; optimizers and losses in turn."""
    return some_cases(list(KNOWN_ACTIVATIONS), [False, True], [False, True])


def some_cases(
    activations: Sequence[str],
    batchnorm: Sequence[bool] = (False,),
    dropout: Sequence[bool] = (False,),
    optimizers: Sequence[str] = ("adam", "adamw"),
    losses: Sequence[str] = ("mae", "mse", "huber"),
    energy_losses: Sequence[str] = ("per_atom", "total"),
) -> list[Case]:
    """Every combination of the first three; of the others each in turn, all of them at least once.

    The first cases have every activation, for a check that runs out of time.
    """
    networks = [(a, b, d) for b, d, a in product(batchnorm, dropout, activations)]
    n = max(len(networks), len(optimizers), len(losses), len(energy_losses))
    # Of two options with two values each the second changes half as often, so that all pairs occur.
    return [
        Case(
            *networks[i % len(networks)],
            optimizers[i % len(optimizers)],
            losses[i % len(losses)],
            energy_losses[i // 2 % len(energy_losses)],
        )
        for i in range(n)
    ]


def verify(
    cases: Sequence[Case],
    device: torch.device,
    dtype: torch.dtype,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Verdict:
    """Train each case by both, and compare losses, gradients, weights and what a checkpoint has.

    First one after the other in double precision, where a wrong formula cannot hide in rounding: alone in one stream,
    steps called and then captured. Then all at the same time in the study's precision, in streams beside one another.

    Args:
        dtype: of the study.
        seconds: after which no further case is begun; those that are left are `Verdict.unchecked`.

    Raises:
        KeyboardInterrupt: the process is to end.
    """
    start = clock()
    comparisons: list[Comparison] = []
    compared: list[tuple[int, Case]] = []
    problem = make_problem(device, FLOAT64)
    for i, case in enumerate(cases):
        if clock() - start > seconds:
            break
        comparisons.append(compare(problem, case, i, BatchedTrainer()))
        compared.append((i, case))
    problem, trainer = make_problem(device, dtype), BatchedTrainer()
    with ThreadPoolExecutor(max(1, len(compared))) as pool:
        batched = [pool.submit(_attempt, problem, case, i, trainer) for i, case in compared]
        for (i, case), future in zip(compared, batched, strict=True):
            comparisons.append(_comparison(problem, case, i, future.result()))
    return Verdict(_name(device), _versions(), comparisons, cases[len(compared) :], clock() - start)


def make_problem(device: torch.device, dtype: torch.dtype) -> Problem:
    random = np.random.default_rng(0)

    def split(sizes: Sequence[int]) -> SplitTensors:
        n_atoms = np.array(sizes)
        features = random.normal(size=(n_atoms.sum(), N_FEATURES))
        targets = np.add.reduceat(np.tanh(features[:, 0]) + 0.1 * features[:, 1], np.cumsum(n_atoms) - n_atoms)
        return SplitTensors(features, n_atoms, targets / np.sqrt(n_atoms), device, dtype)

    return Problem(split(SIZES), split(VALIDATION_SIZES))


def compare(problem: Problem, case: Case, index: int, trainer: BatchedTrainer) -> Comparison:
    """Train a case by both, and compare.

    Args:
        index: of the case, by which the layers differ.
    """
    return _comparison(problem, case, index, _attempt(problem, case, index, trainer))


def _attempt(problem: Problem, case: Case, index: int, trainer: BatchedTrainer) -> Trained | Exception:
    """What the batched trainer makes of a case, or what it raised. It is given up after `LONGEST`."""
    deadline = time.monotonic() + LONGEST
    try:
        with interruptible(lambda: time.monotonic() > deadline):
            return batched(problem, case, index, trainer)
    except KeyboardInterrupt:
        if told_to_end.is_set():
            raise
        return TimeoutError(f"no end after {LONGEST:.0f} s")
    except Exception as error:  # whatever it is: it must not end the study
        return error


def _comparison(problem: Problem, case: Case, index: int, found: Trained | Exception) -> Comparison:
    precision = str(problem.train.dtype).removeprefix("torch.")
    if isinstance(found, Exception):
        return Comparison(case, precision, error=f"{type(found).__name__}: {one_line(found)}")
    expected, moved = (plain(problem, case, index, nudged).values for nudged in (False, True))
    least = LEAST[problem.train.dtype]
    differences = {name: _difference(found.values[name], value) for name, value in expected.items()}
    bounds = {name: max(least, ROUNDINGS * _difference(moved[name], value)) for name, value in expected.items()}
    worst = max(differences, key=lambda name: differences[name] / bounds[name])
    return Comparison(case, precision, worst, differences[worst], bounds[worst])


def _difference(values: torch.Tensor, expected: torch.Tensor) -> float:
    """The greatest difference relative to the largest value; infinite where one is not a number."""
    if not values.numel():
        return 0.0
    difference = float((values - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
    return difference if difference == difference else float("inf")


def _epochs() -> list[tuple[torch.Tensor, list[int]]]:
    """Order and batches of each epoch: of one step, for its gradient; then of enough steps that they are captured."""
    n, random = len(SIZES), torch.Generator().manual_seed(SEED)
    sizes = [BATCH] * (n // BATCH)
    orders = [torch.arange(n), *(torch.randperm(n, generator=random) for _ in range(3))]
    return [(torch.arange(BATCH), [BATCH]), *((order, sizes) for order in orders)]


def _options(case: Case, index: int) -> tuple[Hyperparameters, Training]:
    hyperparameters = Hyperparameters.model_validate(
        {
            "hidden_layers": LAYERS[index % len(LAYERS)],
            "activation": case.activation,
            "batchnorm": case.batchnorm,
            "dropout": case.dropout,
            "dropout_rate": DROPOUT_RATE,
            "optimizer": case.optimizer,
            "weight_decay": 0.1,
            "lr": 3e-3,
            "batch_size": BATCH,
            "initialization": "xavier",  # for zero the gradient of all layers but the last is 0 at first
        }
    )
    return hyperparameters, Training.model_validate({"loss": case.loss, "energy_loss": case.energy_loss})


def batched(problem: Problem, case: Case, index: int, trainer: BatchedTrainer) -> Trained:
    """By the batched trainer, which resumes from the checkpoint of the first epochs."""
    options = *_options(case, index), *problem, SEED, SCALE, trainer
    epochs, sums = BatchedEpochs(*options), list[float]()
    gradient: torch.Tensor | None = None
    for number, (order, sizes) in enumerate(_epochs()):
        sums += [*epochs.train(order, sizes), *epochs.validate()]
        if gradient is None:
            gradient = epochs.state()["weights"][1]
        if number == 1:
            epochs.keep()
            state = epochs.state()
            epochs = BatchedEpochs(*options)
            epochs.restore(state)
    assert gradient is not None
    state = epochs.state()
    return _trained(sums, gradient, state["weights"], state["running"], epochs.kept_network)


def plain(problem: Problem, case: Case, index: int, nudged: bool) -> Trained:
    """By torch's operations.

    Args:
        nudged: with weights that differ in the last place at the start.
    """
    hyperparameters, training = _options(case, index)
    epochs, sums = TorchEpochs(hyperparameters, training, *problem, SEED, SCALE), list[float]()
    network = epochs.network
    if nudged:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1 + 2 * torch.finfo(parameter.dtype).eps)
    if case.batchnorm:
        _without_noise(network)
    if case.dropout:
        _replace_dropout(network, _masks(problem, hyperparameters))
    gradient: torch.Tensor | None = None
    for number, (order, sizes) in enumerate(_epochs()):
        sums += [*epochs.train(order, sizes), *epochs.validate()]
        if gradient is None:
            gradient = _moment(epochs, "exp_avg")
        if number == 1:
            epochs.keep()
    assert gradient is not None
    values = nn.utils.parameters_to_vector(network.parameters()).detach()
    weights = torch.stack([values, _moment(epochs, "exp_avg"), _moment(epochs, "exp_avg_sq")])
    return _trained(sums, gradient, weights, running_statistics(network), epochs.kept_network)


def _trained(
    sums: list[float], gradient: torch.Tensor, weights: torch.Tensor, running: torch.Tensor, kept: AtomicNetwork
) -> Trained:
    kept_values = nn.utils.parameters_to_vector(kept.parameters()).detach()
    found = {
        "losses": torch.tensor(sums),
        "gradient": gradient,
        "weights": weights[0],
        "first moments": weights[1],
        "second moments": weights[2],
        "statistics": running,
        "kept weights": kept_values,
        "kept statistics": running_statistics(kept),
    }
    return Trained({name: value.detach().to("cpu", FLOAT64) for name, value in found.items()})


def _moment(epochs: TorchEpochs, name: str) -> torch.Tensor:
    state = epochs.optimizer.state
    return torch.cat([state[parameter][name].flatten() for parameter in epochs.network.parameters()])


def _masks(problem: Problem, hyperparameters: Hyperparameters) -> Iterator[torch.Tensor]:
    """The factors of dropout (n_atoms, all hidden nodes) of each batch, drawn as for the slot of a trial."""
    data, keep = Data(*problem), 1 - DROPOUT_RATE
    tile = data.tile(hyperparameters)
    features = data.features[0]
    generator = torch.Generator(features.device).manual_seed(SEED)
    parts: list[torch.Tensor] = []
    for order, sizes in _epochs():
        schedule = EpochSchedule(data, order, sizes, tile, whole=hyperparameters.batchnorm)
        for first, count, _, what in schedule.tiles.tolist():
            if what == VALIDATE:
                continue
            drawn = features.new_empty(tile, sum(hyperparameters.layers)).bernoulli_(keep, generator=generator)
            n_atoms = int(data.atoms_on_cpu[schedule.order[first : first + count]].sum())
            parts.append(drawn[:n_atoms] / keep)
            if what == TRAIN_AND_STEP:
                yield torch.cat(parts)
                parts = []


def _without_noise(network: nn.Module) -> None:
    """Set the gradient of the biases before batch normalisation to what it is, 0, as the batched trainer does.

    The batch's mean takes such a bias away. Of what rounding leaves of it Adam makes steps, which would hide all else.
    """
    layers = list(network.children())
    for layer, above in pairwise(layers):
        if isinstance(above, nn.BatchNorm1d) and isinstance(layer, nn.Linear):
            layer.bias.register_hook(torch.zeros_like)


def _replace_dropout(network: nn.Module, masks: Iterator[torch.Tensor]) -> None:
    """Let each layer of dropout take its columns of the next mask."""
    width, before, current = 0, 0, list[torch.Tensor]()
    for name, layer in list(network.named_children()):
        if isinstance(layer, nn.Linear):
            width = layer.out_features
        elif isinstance(layer, nn.Dropout):
            setattr(network, name, _Masked(lambda: next(masks), slice(before, before + width), current))
            before += width


class _Masked(nn.Module):
    """Dropout by given factors."""

    def __init__(self, take: Callable[[], torch.Tensor], columns: slice, current: list[torch.Tensor]) -> None:
        """
        Args:
            take: the mask of the next batch; a function, as the network is copied and a generator cannot be.
            current: the mask of the batch, the same list for all layers; the first layer takes the next one.
        """
        super().__init__()
        self._take, self._columns, self._current = take, columns, current

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return values
        if self._columns.start == 0:
            self._current[:] = [self._take()]
        return values * self._current[0][:, self._columns]


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _versions() -> str:
    built_for = torch.version.cuda or torch.version.hip
    return f"torch {torch.__version__}, {f'CUDA {built_for}' if built_for else 'no CUDA'}"
