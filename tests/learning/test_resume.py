"""A training that is stored and goes on elsewhere: the same numbers, bit for bit, as if it had never been left."""

import itertools
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import ase.io
import pytest
import torch

from bdqm_tune.backends.native import NativeBackend, NativeRun
from bdqm_tune.config.config import Objective
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.checkpoint import NoCheckpoint, read_checkpoint, write_checkpoint
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.learning.fit import Diverged, EpochRecord, Fit
from bdqm_tune.progress import interruptible
from tests.learning.conftest import rattled_alloys, small_config
from tests.learning.test_fit import make_fit, numbers
from tests.marks import few

EPOCHS = 4
CHOICES = {
    "activation": ["tanh", "relu", "gelu", "silu", "softplus"],
    "batchnorm": [False, True],
    "dropout": [False, True],
    "network": ["single", "per_element"],
    "optimizer": ["adam", "adamw", "lbfgs"],
    "scheduler": ["step", "cosine", "one_cycle", "plateau", "none"],
    "precision": ["float32", "float64"],
    "forces": [False, True],
}
EVERY = 31  # so that all pairs of choices are among those that are tried
TRIED = [dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())][::EVERY]
Start = Callable[..., NativeRun]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts a training on 16 small alloys with the options of both groups."""
    folder = tmp_path_factory.mktemp("alloys")
    ase.io.write(folder / "train.traj", rattled_alloys(16))
    given = small_config(folder / "train.traj", training={"forces": True}, **{"": {"device": "cpu"}})
    data = prepare(given, folder / "home")

    @cache
    def backend(**training: Any) -> NativeBackend:
        options = {"epochs": EPOCHS, "early_stopping": None, **training}
        return NativeBackend(data.config.updated({"training": options}), data)

    def start(options: dict[str, Any], seed: int = 5, **training: Any) -> NativeRun:
        chosen = {name: value for name, value in options.items() if name not in ("precision", "forces")}
        training |= {name: options[name] for name in ("precision", "forces") if name in options}
        batch_size = 12 if options.get("optimizer") == "lbfgs" else 5
        fast = {"lr": 0.01, "batch_size": batch_size, "num_nodes": 5, "num_layers": 2, "initialization": "xavier"}
        return backend(**training).start(Hyperparameters(**(fast | chosen)), seed)

    return start


def test_all_pairs_of_choices_are_tried() -> None:
    for a, b in itertools.combinations(CHOICES, 2):
        assert {(tried[a], tried[b]) for tried in TRIED} == set(itertools.product(CHOICES[a], CHOICES[b]))


@pytest.mark.parametrize("number", few(range(0, len(TRIED), 3), [n for n in range(len(TRIED)) if n % 3]))
def test_a_training_goes_on_bit_for_bit(start: Start, tmp_path: Path, number: int) -> None:
    options = {**TRIED[number], "step_size": 1 + number % 3, "dropout_rate": 0.3}
    undisturbed, left = start(options), start(options)
    list(undisturbed)
    list(islice(left, 1 + number % (EPOCHS - 1)))
    checkpoint = left.checkpoint()
    assert checkpoint is not None
    list(left)  # which must not change what is in the checkpoint
    write_checkpoint(tmp_path / "checkpoint", checkpoint, left.key)

    resumed = start(options)
    resumed.restore(read_checkpoint(tmp_path / "checkpoint", resumed.key))
    assert resumed.records == left.records[: len(resumed.records)]
    list(resumed)
    for other in (left, resumed):
        assert [record.epoch for record in other.records] == list(range(1, EPOCHS + 1))
        assert numbers(other.records) == numbers(undisturbed.records)
        assert_same_weights(other, undisturbed)
    objective: Objective = "val_energy_forces" if options.get("forces") else "val_energy_mae"
    assert resumed.best == min(resumed.records, key=lambda record: record.value(objective))


def assert_same_weights(a: NativeRun, b: NativeRun) -> None:
    """Of the best epoch, and of all that training goes on from."""
    states = [run.potential().network.state_dict() for run in (a, b)], [run.checkpoint() for run in (a, b)]
    checkpoints = [checkpoint.epochs for checkpoint in states[1] if checkpoint is not None]
    for found, expected in (states[0], checkpoints):
        assert found.keys() == expected.keys()
        assert [name for name, value in found.items() if not torch.equal(value, expected[name])] == []


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_training_may_be_left_after_any_epoch_or_before_the_first(start: Start, optimizer: str) -> None:
    options = {"optimizer": optimizer, "dropout": True, "batchnorm": True, "scheduler": "plateau", "step_size": 1}
    undisturbed = start(options)
    list(undisturbed)
    for n in range(EPOCHS + 1):
        left, resumed = start(options), start(options)
        list(islice(left, n))
        checkpoint = left.checkpoint()
        assert checkpoint is not None
        resumed.restore(checkpoint)
        assert resumed.best == left.best
        assert len(list(resumed)) == EPOCHS - n
        assert numbers(resumed.records) == numbers(undisturbed.records)
        assert_same_weights(resumed, undisturbed)


def test_a_training_may_be_left_after_every_epoch(start: Start) -> None:
    undisturbed, run = start({"dropout": True}), start({"dropout": True})
    list(undisturbed)
    for _ in range(EPOCHS):
        next(iter(run))
        checkpoint, run = run.checkpoint(), start({"dropout": True})
        assert checkpoint is not None
        run.restore(checkpoint)
    assert numbers(run.records) == numbers(undisturbed.records)
    assert_same_weights(run, undisturbed)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"options": {"lr": 0.02}}, "hyperparameters"),
        ({"options": {"network": "per_element"}}, "engine, hyperparameters"),
        ({"options": {"precision": "float64"}}, "training"),
        ({"options": {}, "epochs": 7}, "training"),
        ({"options": {}, "seed": 6}, "seed"),
    ],
)
def test_another_training_does_not_go_on_from_it(
    start: Start, tmp_path: Path, other: dict[str, Any], named: str
) -> None:
    run = start({})
    next(iter(run))
    checkpoint = run.checkpoint()
    assert checkpoint is not None
    write_checkpoint(tmp_path / "checkpoint", checkpoint, run.key)
    with pytest.raises(NoCheckpoint, match=f"of a training with another {named}$"):
        read_checkpoint(tmp_path / "checkpoint", start(**other).key)


def test_other_data_has_another_key(start: Start, dataset: Dataset) -> None:
    config = dataset.config.updated({"": {"device": "cpu"}})
    keys = start({}).key, NativeBackend(config, dataset).start(Hyperparameters(), 5).key
    assert keys[0]["data"] != keys[1]["data"]


def through_checkpoints(fit: Fit, again: Callable[[], Fit]) -> tuple[list[EpochRecord], Fit]:
    """Train to the end, every epoch by another `Fit`."""
    while True:
        record = next(iter(fit), None)
        if record is None:
            return fit.records, fit
        checkpoint, fit = fit.checkpoint(), again()
        assert checkpoint is not None
        fit.restore(checkpoint)


def test_it_ends_early_when_it_would_have() -> None:
    def again() -> Fit:
        training = {"epochs": 300, "early_stopping": 7}
        return make_fit({"lr": 0.03, "initialization": "xavier"}, training, learnable=False)

    undisturbed = again()
    expected = list(undisturbed)
    records, last = through_checkpoints(again(), again)
    assert numbers(records) == numbers(expected)
    assert len(records) < 300
    assert last.best is not None
    assert undisturbed.best is not None
    assert last.best.epoch == undisturbed.best.epoch


def test_it_diverges_when_it_would_have() -> None:
    def again() -> Fit:
        wild = {"lr": 1.0, "num_layers": 20, "num_nodes": 32, "activation": "relu", "initialization": "xavier"}
        wild |= {"batch_size": 30, "scheduler": "none"}
        return make_fit(wild, {"epochs": 50, "loss": "mse", "energy_loss": "total"}, dtype=torch.float32)

    with pytest.raises(Diverged) as expected:
        list(again())
    with pytest.raises(Diverged) as found:
        through_checkpoints(again(), again)
    assert str(found.value) == str(expected.value)
    assert "epoch 1:" not in str(found.value)


def interrupt(fit: Fit, after: int) -> None:
    """Ask for one more epoch, and be told after so many questions that the work is to end."""
    asked = itertools.count()
    with interruptible(lambda: next(asked) >= after), pytest.raises(KeyboardInterrupt):
        next(iter(fit))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("after", [0, 2, 4])
def test_an_epoch_that_takes_long_is_left_and_begun_again(
    monkeypatch: pytest.MonkeyPatch, compiled: bool, after: int
) -> None:
    engine = "bdqm_tune.learning.compiled.epochs" if compiled else "bdqm_tune.learning.torch_epochs"
    monkeypatch.setattr(f"{engine}.GRACE", 0.0)
    monkeypatch.setattr("bdqm_tune.learning.compiled.epochs.WORK_AT_ONCE", 1.0)
    monkeypatch.setattr("bdqm_tune.learning.fit.LONG_EPOCH", 0.0)
    monkeypatch.setattr("bdqm_tune.learning.fit.can_compile", lambda *_: compiled)
    options = {"dropout": True, "batchnorm": True, "scheduler": "step", "step_size": 1}
    undisturbed = make_fit(options)
    list(undisturbed)
    fit = make_fit(options)
    list(islice(fit, 3))
    interrupt(fit, after)
    checkpoint = fit.checkpoint()
    assert checkpoint is not None
    assert len(checkpoint.records) == 3
    resumed = make_fit(options)
    resumed.restore(checkpoint)
    list(resumed)
    assert numbers(resumed.records) == numbers(undisturbed.records)
    for a, b in zip(resumed.best_network.parameters(), undisturbed.best_network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_of_a_short_epoch_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdqm_tune.learning.torch_epochs.GRACE", 0.0)
    monkeypatch.setattr("bdqm_tune.learning.fit.LONG_EPOCH", 60.0)
    fit = make_fit({"optimizer": "lbfgs"})
    list(islice(fit, 3))
    interrupt(fit, 2)
    assert fit.checkpoint() is None


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_short_epoch_ends_although_the_work_is_to_end(monkeypatch: pytest.MonkeyPatch, optimizer: str) -> None:
    monkeypatch.setattr("bdqm_tune.learning.compiled.epochs.WORK_AT_ONCE", 1.0)
    for engine in ("compiled.epochs", "torch_epochs"):  # a machine with much else to do takes longer than is given
        monkeypatch.setattr(f"bdqm_tune.learning.{engine}.GRACE", 600.0)
    expected = make_fit({"optimizer": optimizer})
    list(islice(expected, 3))
    fit = make_fit({"optimizer": optimizer})
    with interruptible(lambda: True):
        list(islice(fit, 3))
    assert numbers(fit.records) == numbers(expected.records)
    assert fit.checkpoint() is not None
