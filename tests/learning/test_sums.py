"""Energies of many atoms in single precision: sums and what they are compared with are in double precision."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk

from bdqm_tune.config.config import Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batched import BatchedTrainer
from bdqm_tune.learning.batches import SplitTensors
from bdqm_tune.learning.contributions import contributions_of
from bdqm_tune.learning.fit import Fit
from bdqm_tune.learning.networks import SingleNN, sum_per_structure
from tests.learning.test_potential import random_potential

SCALE, OUTPUT = 2.0, 0.1
EXACT = float(np.float32(OUTPUT))  # what every atom contributes
N_ATOMS, TARGETS = np.array([4000, 1, 999]), np.array([123456.789, -0.1234567891, 99.8765432])


def test_a_sum_over_many_atoms_is_exact() -> None:
    random = np.random.default_rng(0)
    values = random.normal(loc=3.0, size=(60_000, 1)).astype(np.float32)
    structure = np.repeat([1, 0], [50_000, 10_000])
    found = sum_per_structure(torch.as_tensor(values), torch.as_tensor(structure), 2)
    expected = [math.fsum(map(float, values[structure == i, 0])) for i in range(2)]
    assert found.tolist() == pytest.approx(expected, rel=1e-13)


def test_a_predicted_energy_is_the_exact_sum_of_what_the_atoms_contribute() -> None:
    potential = random_potential(dtype=torch.float32)
    atoms = bulk("Cu", cubic=True).repeat((10, 10, 10))
    features = np.random.default_rng(1).normal(size=(len(atoms), potential.descriptor.n_features))
    contributions = contributions_of(potential.network, features.shape[1], potential.hyperparameters)
    outputs = contributions(potential.scaler(features, atoms.numbers), atoms.numbers, False)[0].tolist()
    assert outputs == np.float32(outputs).tolist()
    expected = len(atoms) * -3.7 + 1.7 * math.fsum(outputs)
    (energy,) = potential.predict_features(features, [atoms])
    assert energy == pytest.approx(expected, rel=1e-12)
    # In double precision an atom contributes otherwise by its rounding, in part at random.
    (double,) = potential.in_precision("float64").predict_features(features, [atoms])
    assert 0 < abs(double - energy) < 1.7 * 1e-7 * sum(map(abs, outputs))


@pytest.fixture(autouse=True)
def _constant_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output's bias alone says what an atom contributes."""
    made = SingleNN.__init__

    def init(self: SingleNN, n_features: int, hyperparameters: Hyperparameters) -> None:
        made(self, n_features, hyperparameters)
        if hyperparameters.initialization == "zero":
            torch.nn.init.constant_(self[-1].bias, OUTPUT)

    monkeypatch.setattr(SingleNN, "__init__", init)


def test_trainers_sum_and_compare_energies_in_double_precision() -> None:
    """With a learning rate that changes nothing, so that the errors are known."""
    features = np.random.default_rng(0).normal(size=(N_ATOMS.sum(), 3))
    split = SplitTensors(features, N_ATOMS, TARGETS, torch.device("cpu"), torch.float32)
    errors = np.abs(EXACT * N_ATOMS - TARGETS)
    options, wrong = Hyperparameters(hidden_layers=[4], initialization="zero", lr=1e-13, batch_size=2), []
    trainers: dict[str, dict[str, Any]] = {
        "TorchEpochs": {"compiled": False},
        "CompiledEpochs": {"compiled": True},
        "BatchedEpochs": {"trainer": BatchedTrainer()},
    }
    for (engine, how), loss, energy_loss in itertools.product(
        trainers.items(), ("mae", "mse", "huber"), ("per_atom", "total")
    ):
        # Some of the errors are above, some below.
        delta = float(np.median(errors / N_ATOMS if energy_loss == "per_atom" else errors))
        training = Training(epochs=1, loss=loss, energy_loss=energy_loss, huber_delta=SCALE * delta)
        fit = Fit(options, training, split, split, SCALE, 0, **how)
        assert fit.engine == engine
        (record,) = fit
        compared = errors / N_ATOMS if energy_loss == "per_atom" else errors
        expected = {
            "train_loss": np.mean(
                {
                    "mae": compared,
                    "mse": compared**2,
                    "huber": np.where(compared < delta, compared**2 / (2 * delta), compared - delta / 2),
                }[loss]
            ),
            "train_energy_mae": SCALE * errors.mean(),
            "val_energy_mae": SCALE * errors.mean(),
            "val_energy_mae_per_atom": SCALE * (errors / N_ATOMS).mean(),
        }
        wrong += [
            (engine, loss, energy_loss, name, record.metrics()[name], value)
            for name, value in expected.items()
            if record.metrics()[name] != pytest.approx(value, rel=1e-13)
        ]
        assert {p.dtype for p in fit.best_network.parameters()} == {torch.float32}
    assert not wrong
