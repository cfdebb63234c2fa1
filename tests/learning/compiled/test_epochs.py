"""Compiled epochs: the same numbers as by torch's operations, for everything that they can train."""

from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bdqm_tune.config.config import Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors import StoredDerivatives, StoredFeatures
from bdqm_tune.descriptors.memmap_rows import RowFile
from bdqm_tune.learning.batches import SplitTensors, batch_sizes
from bdqm_tune.learning.compiled import CompiledEpochs
from bdqm_tune.learning.compiled.epochs import _at_once, _data
from bdqm_tune.learning.compiled.kernel import epoch
from bdqm_tune.learning.compiled.passes import _drop
from bdqm_tune.learning.fit import EpochRecord, Fit
from bdqm_tune.learning.forces import ForceTensors
from bdqm_tune.learning.scaled_features import ScaledDerivatives
from bdqm_tune.learning.scalers import FeatureScaler
from bdqm_tune.learning.stress import StressTensors

CPU, N_FEATURES = torch.device("cpu"), 5


def split(
    seed: int, n: int, with_forces: bool, dtype: torch.dtype = torch.float64, with_stress: bool = False
) -> SplitTensors:
    """Structures of 1 to 40 atoms with smooth targets, and made-up derivatives; every fourth has no stress."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 40, n)
    features = random.normal(size=(sizes.sum(), N_FEATURES))
    targets = np.add.reduceat(np.tanh(features[:, 0]) + 0.1 * features[:, 1], np.cumsum(sizes) - sizes)
    if with_forces:
        scaler = FeatureScaler(np.zeros(N_FEATURES), random.uniform(0.5, 2, N_FEATURES))
        with NamedTemporaryFile() as rows:
            features.tofile(rows.name)
            of_atoms = StoredFeatures(RowFile(Path(rows.name), features.shape), np.cumsum(sizes) - sizes, sizes)

        def derivatives(count: NDArray[np.int64], *places: NDArray[np.int64], k: int) -> ScaledDerivatives:
            values = random.normal(size=(count.sum(), N_FEATURES, k))
            with NamedTemporaryFile() as file:
                values.tofile(file.name)
                stored = StoredDerivatives(
                    np.cumsum(count) - count, count, *places, RowFile(Path(file.name), values.shape)
                )
            return ScaledDerivatives(stored, of_atoms, np.ones(len(features), dtype=np.int64), scaler)

        count = 3 * sizes
        owner = np.repeat(sizes, count)
        centre, atom = (random.integers(0, owner) for _ in range(2))
        entries = derivatives(count, centre, atom, k=3)
        forces, stress = ForceTensors(random.normal(size=(len(features), 3)), entries, CPU, dtype), None
        if with_stress:
            count = np.where(np.arange(n) % 4, sizes, 0)
            atom = np.concatenate([np.arange(m) for m in count])
            stresses = np.where(count[:, None], random.normal(size=(n, 6)), np.nan)
            volumes = sizes * random.uniform(8, 20, n)
            stress = StressTensors(stresses, volumes, sizes, derivatives(count, atom, atom, k=6), CPU, dtype)
        return SplitTensors(scaler(features), sizes, targets, CPU, dtype, forces=forces, stress=stress)
    return SplitTensors(features, sizes, targets, CPU, dtype)


def records(
    compiled: bool,
    hyperparameters: dict[str, Any],
    with_forces: bool,
    training: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float64,
    with_stress: bool = False,
) -> list[EpochRecord]:
    fit = Fit(
        Hyperparameters(**{"batch_size": 8, "initialization": "xavier", **hyperparameters}),
        Training(**{"epochs": 20, "early_stopping": None, **(training or {})}),
        split(1, 33, with_forces, dtype, with_stress),
        split(2, 9, with_forces, dtype, with_stress),
        2.5,
        0,
        compiled=compiled,
    )
    return list(fit)


def compare(found: list[EpochRecord], expected: list[EpochRecord], rel: float) -> None:
    for a, b in zip(found, expected, strict=True):
        for name, value in b.metrics().items():
            if name != "epoch_seconds":
                assert a.metrics()[name] == pytest.approx(value, rel=rel), (a.epoch, name)


@pytest.mark.parametrize("with_forces", [False, True])
@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "silu", "softplus"])
def test_curves_are_those_of_torch(activation: str, batchnorm: bool, with_forces: bool) -> None:
    options = {"activation": activation, "batchnorm": batchnorm, "force_coefficient": 0.3, "num_nodes": 7}
    compare(*(records(compiled, options, with_forces) for compiled in (True, False)), rel=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"hidden_layers": [3, 11, 2]},
        {"hidden_layers": [4], "batch_size": 1},
        {"batch_size": 1000, "lr": 0.03},
        {"optimizer": "adamw", "weight_decay": 0.3},
        {"scheduler": "one_cycle"},
        {"scheduler": "plateau", "step_size": 1, "gamma": 0.7},
        {"initialization": "zero"},
    ],
)
@pytest.mark.parametrize("loss", ["mae", "mse", "huber"])
@pytest.mark.parametrize("energy_loss", ["per_atom", "total"])
def test_options_do_what_they_do_in_torch(options: dict[str, Any], loss: str, energy_loss: str) -> None:
    training = {"loss": loss, "energy_loss": energy_loss, "epochs": 6, "huber_delta": 0.2}
    compare(*(records(compiled, options, True, training) for compiled in (True, False)), rel=1e-6)


@pytest.mark.parametrize("loss", ["mae", "mse", "huber"])
@pytest.mark.parametrize("options", [{"batchnorm": True}, {"batch_size": 1}, {"hidden_layers": [3, 11, 2]}, {}])
def test_the_stress_is_trained_as_by_torch(options: dict[str, Any], loss: str) -> None:
    given = {"stress_coefficient": 0.4, "force_coefficient": 0.3, "activation": "gelu", **options}
    training = {"loss": loss, "epochs": 6, "huber_delta": 0.2}
    found, expected = (records(compiled, given, True, training, with_stress=True) for compiled in (True, False))
    assert "val_stress_mae" in expected[0].metrics()
    compare(found, expected, rel=1e-6)


@pytest.mark.parametrize(("with_forces", "with_stress"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("batchnorm", [False, True])
def test_single_precision_agrees_to_its_rounding(batchnorm: bool, with_forces: bool, with_stress: bool) -> None:
    found, expected = (
        records(True, {"batchnorm": batchnorm}, with_forces, {"epochs": 2, "loss": "mse"}, dtype, with_stress)
        for dtype in (torch.float32, torch.float64)
    )
    compare(found, expected, rel=1e-4)


def test_dropout_leaves_out_the_share_that_was_asked_for_and_keeps_the_mean() -> None:
    value, slope, curvature = (np.ones(200_000) for _ in range(3))
    _drop(0.3, np.uint64(5), 0, value, slope, curvature, True)
    assert set(np.unique(value)) == {0.0, 1 / 0.7}
    assert np.mean(value == 0) == pytest.approx(0.3, abs=0.005)
    assert (value == slope).all()
    assert (value == curvature).all()
    other = np.ones(200_000)
    _drop(0.3, np.uint64(6), 0, other, slope, curvature, False)
    assert np.mean((other == 0) & (value == 0)) == pytest.approx(0.09, abs=0.005)


@pytest.mark.parametrize("structures", [1, 9, 20])
@pytest.mark.parametrize("with_forces", [False, True])
@pytest.mark.parametrize("options", [{"dropout": True, "dropout_rate": 0.3}, {"batchnorm": True, "batch_size": 7}])
def test_in_parts_an_epoch_trains_the_same(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], with_forces: bool, structures: int
) -> None:
    calls = []

    def counted(*arguments: Any) -> Any:
        calls.append(len(arguments[3]))
        return epoch(*arguments)

    monkeypatch.setattr("bdqm_tune.learning.compiled.epochs.epoch", counted)
    train, validation = split(1, 33, with_forces), split(2, 19, with_forces)
    chosen, order, sums, states = Hyperparameters(**{"batch_size": 8, **options}), torch.arange(33).flip(0), [], []
    sizes = batch_sizes(33, chosen.batch_size)
    for at_once in (10**6, structures):
        monkeypatch.setattr("bdqm_tune.learning.compiled.epochs._at_once", lambda *_, n=at_once: n)
        epochs = CompiledEpochs(chosen, Training(), train, validation, 0, 1.0)
        sums.append([*epochs.train(order, sizes), *epochs.train(order, sizes), *epochs.validate()])
        states.append(epochs.state())
    assert calls[:3] == [33, 33, 19]
    assert max(calls[3:]) <= max(structures, *sizes)
    assert sums[1] == pytest.approx(sums[0], rel=1e-12)
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name


@pytest.mark.parametrize("with_forces", [False, True])
def test_more_structures_go_at_once_through_a_smaller_network(with_forces: bool) -> None:
    data = _data(split(1, 33, with_forces))
    few, many = (_at_once(data, n_parameters) for n_parameters in (10**6, 10**3))
    assert 1 <= few < many
    assert _at_once(data, 10**15) == 1


@pytest.mark.parametrize("with_forces", [False, True])
def test_the_gradient_with_dropout_is_that_of_the_loss_with_the_same_nodes_left_out(with_forces: bool) -> None:
    options = Hyperparameters(num_nodes=7, dropout=True, dropout_rate=0.4, batchnorm=True, initialization="xavier")
    data = split(1, 6, with_forces)
    epochs = CompiledEpochs(options, Training(loss="mse"), data, data, 0, 1.0)
    p = epochs._state.p
    start = p.copy()

    def loss(weights: NDArray[np.float64]) -> float:
        p[:] = weights
        return epochs._epoch(epochs._train, np.arange(6), np.array([6]), True, 0.0, 7)[0] / 6

    loss(start)
    gradient = epochs._state.gradient.copy()
    for i in np.random.default_rng(0).choice(len(p), 40, replace=False):
        step = np.zeros_like(p)
        step[i] = 1e-6
        numeric = (loss(start + step) - loss(start - step)) / 2e-6
        assert gradient[i] == pytest.approx(numeric, rel=1e-5, abs=1e-7)
