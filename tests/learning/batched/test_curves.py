"""Stacked trials: each as it would be alone by torch's operations, whoever comes and goes beside it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

from bdqm_tune.config.config import Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batched import BatchedEpochs, BatchedTrainer, can_batch, epoch_schedule, group
from bdqm_tune.learning.batched.slots import Job, State
from bdqm_tune.learning.batches import SplitTensors
from bdqm_tune.learning.fit import EpochRecord, Fit
from bdqm_tune.progress import interruptible
from tests.marks import few

CPU, N_FEATURES = torch.device("cpu"), 5
ACTIVATIONS = ["tanh", "relu", "gelu", "silu", "softplus"]


def split(seed: int, n: int, dtype: torch.dtype = torch.float64) -> SplitTensors:
    """Structures of 1 to 40 atoms with smooth targets."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 40, n)
    features = random.normal(size=(sizes.sum(), N_FEATURES))
    targets = np.add.reduceat(np.tanh(features[:, 0]) + 0.1 * features[:, 1], np.cumsum(sizes) - sizes)
    return SplitTensors(features, sizes, targets, CPU, dtype)


TRAIN, VALIDATION = split(1, 33), split(2, 9)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that most batches here, of some 160 or 650 atoms, take several."""
    monkeypatch.setattr(epoch_schedule, "TILE", 256)


def fit(options: dict[str, Any], trainer: BatchedTrainer | None) -> Fit:
    training = {name: options[name] for name in ("epochs", "loss", "huber_delta", "energy_loss") if name in options}
    others = {name: value for name, value in options.items() if name not in training}
    return Fit(
        Hyperparameters(**{"batch_size": 8, "initialization": "xavier", **others}),
        Training(**{"epochs": 20, "early_stopping": None, **training}),
        TRAIN,
        VALIDATION,
        scale=2.5,
        seed=0,
        compiled=False,
        trainer=trainer,
    )


def together(
    trials: list[dict[str, Any]], at_once: int, trainer: BatchedTrainer | None = None
) -> list[list[EpochRecord]]:
    """Their records; so many train at the same time, and where one ends the next begins."""
    trainer = trainer or BatchedTrainer()
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda options: list(fit(options, trainer)), trials))


def compare(found: list[EpochRecord], expected: list[EpochRecord], rel: float) -> None:
    for a, b in zip(found, expected, strict=True):
        for name, value in b.metrics().items():
            if name != "epoch_seconds":
                assert a.metrics()[name] == pytest.approx(value, rel=rel), (a.epoch, name)


def accuracy(options: dict[str, Any]) -> float:
    """To which the numbers are to be those of torch.

    With batch normalisation the gradient of a bias is 0 but for rounding. Where errors are large, torch's Adam makes
    steps of that, which show in validation while the running means lag behind.
    """
    return 1e-5 if options["batchnorm"] else 1e-9


def some_trials(seed: int, n: int) -> list[dict[str, Any]]:
    """Trials that differ in everything."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        trial = {
            "activation": str(random.choice(ACTIVATIONS)),
            "batchnorm": bool(random.integers(2)),
            "hidden_layers": random.integers(1, 12, random.integers(1, 5)).tolist(),
            "optimizer": str(random.choice(["adam", "adamw"])),
            "weight_decay": 0.1,
            "lr": float(10 ** random.uniform(-3, -2)),
            "batch_size": int(random.choice([1, 3, 8, 16, 100])),
            "scheduler": str(random.choice(["step", "cosine", "one_cycle", "plateau", "none"])),
            "step_size": 2,
            "loss": str(random.choice(["mae", "mse", "huber"])),
            "huber_delta": float(random.choice([0.01, 0.3])),
            "energy_loss": str(random.choice(["per_atom", "total"])),
            "epochs": int(random.integers(2, 21)),
        }
        found.append(trial)
    return found


@pytest.mark.parametrize("seed", few([0], [1, 2]))
def test_in_a_mixed_cohort_curves_are_those_of_torch(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether trials wait for one another or not."""
    trials = some_trials(seed, 12)
    alone = [list(fit(options, None)) for options in trials]
    for timeout in (0.0, 60.0):
        monkeypatch.setattr(group, "SLOT_TIMEOUT", timeout)
        for options, found, expected in zip(trials, together(trials, at_once=5), alone, strict=True):
            compare(found, expected, rel=accuracy(options))


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("activation", few(ACTIVATIONS[:2], ACTIVATIONS[2:]))
def test_deep_and_shallow_wide_and_narrow_share_a_stack(activation: str, batchnorm: bool) -> None:
    layers = [[7, 7, 7], [3, 11], [4], [2, 3, 4, 5, 6], [9, 1]]
    trials = [{"activation": activation, "batchnorm": batchnorm, "hidden_layers": each} for each in layers]
    for options, found in zip(trials, together(trials, at_once=5), strict=True):
        compare(found, list(fit(options, None)), rel=1e-6)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[group.Group]:
    """All that are made."""
    made: list[group.Group] = []

    class Seen(group.Group):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr("bdqm_tune.learning.batched.trainer.Group", Seen)
    return made


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_padding_stays_zero(activation: str, batchnorm: bool, groups: list[group.Group]) -> None:
    common = {"activation": activation, "batchnorm": batchnorm, "optimizer": "adamw", "epochs": 4}
    together([{**common, "hidden_layers": layers} for layers in ([7, 7, 7], [3, 11, 2], [4])], at_once=3)
    (one,) = groups
    memory = one._memory
    assert memory is not None
    padding = memory.used == 0
    assert padding.any()
    assert (memory.weights[:, padding] == 0).all()
    assert (memory.weights[:, ~padding] != 0).any(1).all()


DROPOUT = {"dropout": True, "dropout_rate": 0.3}


@pytest.mark.parametrize("batchnorm", [False, True])
def test_with_dropout_a_trial_is_the_same_alone_and_in_a_crowd(batchnorm: bool) -> None:
    layers = [[7, 7, 7], [3, 11], [4], [6, 6, 6]]
    trials = [{**DROPOUT, "epochs": 6, "batchnorm": batchnorm, "hidden_layers": each} for each in layers]
    crowd = [*trials, *({**trial, "dropout": False} for trial in trials), {**trials[0], "epochs": 2}]
    found = together(crowd, at_once=6)
    for options, records in zip(trials, found, strict=False):
        compare(records, together([options], at_once=1)[0], rel=1e-9)
        without = next(iter(fit({**options, "dropout": False}, None)))
        assert records[0].train_loss != pytest.approx(without.train_loss)


class Watched(BatchedTrainer):
    """Works without a thread, and keeps the factors of dropout of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.factors: list[torch.Tensor] = []

    def run(self, key: Any, job: Job) -> tuple[list[float], State]:
        alone = group.Group(*key)
        alone.waiting.append(job)
        while not job.ended.done():
            alone.advance()
            if alone._memory is not None and alone._memory.factors[0] is not None:
                self.factors.append(alone._memory.factors[0].clone())
        return job.ended.result()


def test_dropout_leaves_out_the_share_that_was_asked_for_and_keeps_the_mean() -> None:
    trainer = Watched()
    list(fit({**DROPOUT, "hidden_layers": [5, 9], "epochs": 1}, trainer))
    *train, last = trainer.factors
    assert (last == 1).all()  # of validation
    widths, padded = [*range(5), *range(8, 17)], [*range(5, 8), *range(17, 24)]
    drawn = torch.stack([factor[:, widths] for factor in train if (factor != 1).any()])
    assert len(drawn) >= 4
    assert set(drawn.unique().tolist()) == {0.0, 1 / 0.7}
    assert float((drawn == 0).double().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(((drawn[0] == 0) & (drawn[1] == 0)).double().mean()) == pytest.approx(0.09, abs=0.02)
    assert all((factor[:, padded] == 1).all() for factor in train)


def test_a_restored_training_goes_on_as_if_it_had_not_been_left() -> None:
    for options in ({}, {**DROPOUT, "batchnorm": True}, {"optimizer": "adamw", "hidden_layers": [3, 9]}):
        sizes, orders = [8, 8, 8, 9], torch.Generator().manual_seed(1)
        order = [torch.randperm(33, generator=orders) for _ in range(4)]
        whole, half, rest = (epochs_of(options) for _ in range(3))
        sums = [(whole.train(each, sizes), whole.validate()) for each in order]
        for each in order[:2]:
            half.train(each, sizes)
            half.keep()
        kept = half.state()
        half.train(order[2], sizes)  # which does not change what was taken
        rest.restore(kept)
        assert [(rest.train(each, sizes), rest.validate()) for each in order[2:]] == sums[2:]
        kept_network = rest.kept_network.state_dict()
        for name, value in half.kept_network.state_dict().items():
            assert kept_network[name].equal(value), name


def epochs_of(options: dict[str, Any]) -> BatchedEpochs:
    hyperparameters = Hyperparameters(**{"batch_size": 8, "initialization": "xavier", **options})
    return BatchedEpochs(hyperparameters, Training(), TRAIN, VALIDATION, 0, 1.0, BatchedTrainer())


def test_a_restored_training_validates_as_it_did() -> None:
    epochs = epochs_of({"batchnorm": True})
    epochs.train(torch.arange(33), [11, 11, 11])
    expected = epochs.validate()
    other = epochs_of({"batchnorm": True})
    other.restore(epochs.state())
    assert other.validate() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("batchnorm", [False, True])
def test_the_kept_network_predicts_what_was_validated(batchnorm: bool) -> None:
    training = fit({"batchnorm": batchnorm, "epochs": 5, "hidden_layers": [6, 3]}, BatchedTrainer())
    list(training)
    assert training.best is not None
    network, (batch,) = training.best_network, list(VALIDATION.in_order())
    with torch.no_grad():
        energies = torch.zeros(9, dtype=torch.float64).index_add(0, batch.structure, network(batch.features)[:, 0])
    error = (energies - batch.targets).abs().mean() * 2.5
    assert float(error) == pytest.approx(training.best.val_energy_mae, rel=1e-9)


def test_single_precision_agrees_to_its_rounding() -> None:
    def records(dtype: torch.dtype, batchnorm: bool) -> list[EpochRecord]:
        data = split(1, 33, dtype), split(2, 9, dtype)
        options = Hyperparameters(batch_size=8, batchnorm=batchnorm, initialization="xavier")
        return list(Fit(options, Training(epochs=2, loss="mse"), *data, 2.5, 0, trainer=BatchedTrainer()))

    for batchnorm in (False, True):
        compare(records(torch.float32, batchnorm), records(torch.float64, batchnorm), rel=1e-4)


def test_a_failure_reaches_all_who_wait_and_the_stack_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = BatchedTrainer()
    with monkeypatch.context() as patch:

        def fail(*_: Any) -> None:
            raise RuntimeError("out of memory")

        patch.setattr(group.Group, "_take_step", fail)
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(list, fit({"epochs": 2}, trainer)) for _ in range(3)]
            assert [str(each.exception(timeout=30)) for each in waiting] == ["out of memory"] * 3
    compare(list(fit({"epochs": 2}, trainer)), list(fit({"epochs": 2}, None)), rel=1e-6)


def test_it_takes_what_it_can_train() -> None:
    assert can_batch(Hyperparameters(), TRAIN, VALIDATION)
    assert not can_batch(Hyperparameters(optimizer="lbfgs"), TRAIN, VALIDATION)
    assert not can_batch(Hyperparameters(network="per_element"), TRAIN, VALIDATION)


def test_an_epoch_that_is_given_up_leaves_the_others_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, step, over = BatchedTrainer(), group.Step.__call__, threading.Event()
    monkeypatch.setattr("bdqm_tune.learning.batched.trainer.POLL", 0.01)
    monkeypatch.setattr("bdqm_tune.learning.batched.trainer.GRACE", 0.0)
    monkeypatch.setattr(group.Step, "__call__", lambda self: (time.sleep(0.005), step(self))[1])
    options = {"epochs": 30, "dropout": True, "dropout_rate": 0.2}

    def leave() -> Fit:
        training = fit({**options, "lr": 1e-3, "epochs": 10_000}, trainer)
        with interruptible(over.is_set), suppress(KeyboardInterrupt):
            for _ in training:
                if len(training.records) == 3:
                    over.set()
        return training

    with ThreadPoolExecutor(2) as pool:
        left, stays = pool.submit(leave), pool.submit(lambda: list(fit(options, trainer)))
        assert len(left.result(timeout=60).records) == 3
        compare(stays.result(timeout=60), list(fit(options, BatchedTrainer())), 1e-9)
    assert left.result()._in_epoch
