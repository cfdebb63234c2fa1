"""Training: the same seed gives the same numbers, the best epoch is kept, and records say what happened."""

import math
from itertools import islice
from typing import Any

import ase.io
import numpy as np
import pytest
import torch

from bdqm_tune.config.config import Objective, Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.batches import SplitTensors, split_tensors
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.learning.fit import Diverged, EpochRecord, Fit
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import SingleNN
from tests.learning.conftest import rattled_alloys, small_config

SCALE = 2.5  # eV


def split(seed: int, n: int = 30, learnable: bool = True, dtype: torch.dtype = torch.float64) -> SplitTensors:
    """Structures whose target is a sum over their atoms, or has nothing to do with them."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 6, n)
    features = random.normal(size=(sizes.sum(), 4))
    sums = np.add.reduceat(np.tanh(features[:, 0]) + 0.5 * features[:, 1], np.cumsum(sizes) - sizes)
    targets = sums if learnable else random.normal(size=n)
    return SplitTensors(features, sizes, targets, torch.device("cpu"), dtype)


def make_fit(
    hyperparameters: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    seed: int = 0,
    learnable: bool = True,
    dtype: torch.dtype = torch.float64,
) -> Fit:
    return Fit(
        Hyperparameters(**{"num_nodes": 8, "num_layers": 2, "batch_size": 8, **(hyperparameters or {})}),
        Training(**{"epochs": 5, "early_stopping": None, **(training or {})}),
        split(1, learnable=learnable, dtype=dtype),
        split(2, n=11, learnable=learnable, dtype=dtype),
        SCALE,
        seed,
    )


def numbers(records: list[EpochRecord]) -> list[dict[str, float]]:
    """The records without the clock's part."""
    return [{k: v for k, v in record.metrics().items() if k != "epoch_seconds"} for record in records]


def by_hand(network: SingleNN, data: SplitTensors) -> tuple[float, float]:
    """MAE (eV) and MAE per atom (eV/atom) of the network, structure by structure."""
    errors, start = [], 0
    for n, target in zip(data.n_atoms.tolist(), data.targets, strict=True):
        with torch.no_grad():
            errors.append(abs(float(network(data.features[start : start + n]).sum() - target)) * SCALE)
        start += n
    return float(np.mean(errors)), float(np.mean(np.array(errors) / data.n_atoms.numpy()))


STOCHASTIC = {"dropout": True, "dropout_rate": 0.3, "batchnorm": True, "initialization": "xavier"}


@pytest.mark.parametrize("hyperparameters", [{}, {"initialization": "default"}, STOCHASTIC])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_seed_gives_the_same_numbers(hyperparameters: dict[str, Any], dtype: torch.dtype) -> None:
    first, second = make_fit(hyperparameters, dtype=dtype), None
    records = numbers(list(first))
    torch.rand(17)
    second = make_fit(hyperparameters, dtype=dtype)
    assert numbers(list(second)) == records
    for a, b in zip(first.best_network.state_dict().values(), second.best_network.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("hyperparameters", [{}, STOCHASTIC])
def test_another_seed_gives_other_numbers(hyperparameters: dict[str, Any]) -> None:
    first, second = (numbers(list(make_fit(hyperparameters, seed=seed))) for seed in (0, 1))
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_random_numbers_drawn_between_epochs_change_nothing() -> None:
    undisturbed = numbers(list(make_fit(STOCHASTIC)))
    records = []
    for record in make_fit(STOCHASTIC):
        records.append(record)
        torch.rand(3)
    assert numbers(records) == undisturbed


def test_training_leaves_the_users_random_numbers_alone() -> None:
    torch.manual_seed(99)
    expected = torch.rand(1)
    torch.manual_seed(99)
    list(make_fit())
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("hyperparameters", [{}, {"batchnorm": True, "dropout": True}])
def test_the_best_epoch_is_what_is_kept_and_scored(hyperparameters: dict[str, Any]) -> None:
    # Targets that cannot be learned: the validation error rises once the network overfits.
    options = {"lr": 0.03, "initialization": "xavier", "scheduler": "none", "activation": "tanh"}
    fit = make_fit({**options, **hyperparameters}, {"epochs": 20}, learnable=False)
    records = list(fit)
    best = min(records, key=lambda record: record.val_energy_mae)
    assert best.epoch < 20
    assert records[-1].val_energy_mae > best.val_energy_mae
    assert fit.best == best
    mae, mae_per_atom = by_hand(fit.best_network, split(2, n=11, learnable=False))
    assert mae == pytest.approx(best.val_energy_mae, rel=1e-10)
    assert mae_per_atom == pytest.approx(best.val_energy_mae_per_atom, rel=1e-10)


@pytest.mark.parametrize(("smoothing", "window"), [(1, 1), (5, 5), (100, 100), ("auto", 2)])
def test_the_best_epoch_has_the_least_mean_of_itself_and_those_before(smoothing: int | str, window: int) -> None:
    fit = make_fit({"lr": 0.03, "scheduler": "none"}, {"epochs": 40, "smoothing": smoothing}, learnable=False)
    errors = np.array([record.val_energy_mae for record in fit])
    means = [errors[max(0, i - window + 1) : i + 1].mean() for i in range(len(errors))]
    assert fit.best is not None
    assert fit.best.epoch == 1 + int(np.argmin(means))
    assert (fit.best.val_energy_mae == errors.min()) == (window == 1), "else the test shows nothing"
    assert by_hand(fit.best_network, split(2, n=11, learnable=False))[0] == pytest.approx(fit.best.val_energy_mae)


@pytest.mark.parametrize("epochs", [1, 19, 20, 59, 100, 2000])
def test_by_default_a_twentieth_of_the_epochs_is_averaged(epochs: int) -> None:
    assert Training(epochs=epochs).window == {1: 1, 19: 1, 20: 1, 59: 2, 100: 5, 2000: 100}[epochs]


def test_a_resumed_training_has_the_best_epoch_of_an_undisturbed_one() -> None:
    options = {"lr": 0.03, "scheduler": "none"}, {"epochs": 30, "smoothing": 4, "early_stopping": 9}
    undisturbed, first, second = (make_fit(*options, learnable=False) for _ in range(3))
    list(undisturbed)
    list(islice(first, 5))
    checkpoint = first.checkpoint()
    assert checkpoint is not None
    second.restore(checkpoint)
    list(second)
    assert second.best is not None
    assert undisturbed.best is not None
    assert second.best.epoch == undisturbed.best.epoch
    assert len(second.records) == len(undisturbed.records)


def test_the_best_so_far_is_at_hand_after_every_epoch() -> None:
    fit = make_fit({"lr": 0.03}, {"epochs": 12}, learnable=False)
    assert fit.best is None
    least = math.inf
    for record in fit:
        least = min(least, record.val_energy_mae)
        assert fit.best is not None
        assert fit.best.val_energy_mae == least
        assert by_hand(fit.best_network, split(2, n=11, learnable=False))[0] == pytest.approx(least, rel=1e-10)


def test_the_best_network_is_a_copy_that_predicts_without_dropout() -> None:
    fit = make_fit(STOCHASTIC)
    next(iter(fit))
    network = fit.best_network
    assert not network.training
    for parameter in network.parameters():
        parameter.data.zero_()
    assert by_hand(fit.best_network, split(2, n=11))[0] == pytest.approx(fit.best.val_energy_mae, rel=1e-10)


def test_before_the_first_epoch_the_best_network_is_the_initial_one_without_dropout() -> None:
    network = make_fit(STOCHASTIC).best_network
    assert not network.training
    inputs = torch.ones(5, 4, dtype=torch.float64)
    assert torch.equal(network(inputs), make_fit(STOCHASTIC).best_network(inputs))
    assert network(inputs).abs().min() > 0


def test_looking_at_the_best_network_does_not_disturb_the_training() -> None:
    undisturbed = numbers(list(make_fit(STOCHASTIC)))
    fit = make_fit(STOCHASTIC)
    looked = []
    for record in fit:
        looked.append(record)
        fit.best_network.train()
    assert numbers(looked) == undisturbed


def test_training_ends_when_nothing_got_better_for_so_many_epochs() -> None:
    fit = make_fit({"lr": 0.03, "initialization": "xavier"}, {"epochs": 300, "early_stopping": 7}, learnable=False)
    records = list(fit)
    assert fit.best is not None
    assert records[-1].epoch == fit.best.epoch + 7 < 300
    assert [record.epoch for record in records] == list(range(1, len(records) + 1))


def test_without_early_stopping_all_epochs_are_trained() -> None:
    options = {"lr": 0.03, "initialization": "xavier"}
    assert len(list(make_fit(options, {"epochs": 40, "early_stopping": None}, learnable=False))) == 40


def test_an_epoch_is_trained_only_when_it_is_asked_for() -> None:
    fit = make_fit()
    records = list(islice(fit, 2))
    assert [record.epoch for record in records] == [1, 2]
    assert numbers(records) == numbers(list(make_fit()))[:2]


def test_step_schedule() -> None:
    records = list(make_fit({"scheduler": "step", "lr": 0.01, "gamma": 0.5, "step_size": 3}, {"epochs": 8}))
    assert [r.lr for r in records] == pytest.approx([0.01] * 3 + [0.005] * 3 + [0.0025] * 2)


def test_cosine_schedule() -> None:
    records = list(make_fit({"scheduler": "cosine", "lr": 0.01}, {"epochs": 10}))
    expected = [0.005 * (1 + math.cos(math.pi * k / 10)) for k in range(10)]
    assert [r.lr for r in records] == pytest.approx(expected)


def test_no_schedule() -> None:
    records = list(make_fit({"scheduler": "none", "lr": 0.01, "gamma": 0.1, "step_size": 1}, {"epochs": 7}))
    assert [r.lr for r in records] == pytest.approx([0.01] * 7)


@pytest.mark.parametrize(("loss", "power"), [("mae", 1), ("mse", 2)])
@pytest.mark.parametrize("energy_loss", ["per_atom", "total"])
@pytest.mark.parametrize("batch_size", [7, 64])
def test_losses_are_means_over_all_structures_whatever_the_batches(
    loss: str, power: int, batch_size: int, energy_loss: str
) -> None:
    # The network gives 0 at first, and such a small learning rate leaves it there.
    fit = make_fit({"batch_size": batch_size, "lr": 1e-13}, {"epochs": 1, "loss": loss, "energy_loss": energy_loss})
    (record,) = fit
    train, validation = split(1), split(2, n=11)
    errors = train.targets.abs() / (train.n_atoms if energy_loss == "per_atom" else 1)
    assert record.train_loss == pytest.approx(float((errors**power).mean()), rel=1e-9)
    assert record.train_energy_mae == pytest.approx(SCALE * float(train.targets.abs().mean()), rel=1e-9)
    assert record.val_energy_mae == pytest.approx(SCALE * float(validation.targets.abs().mean()), rel=1e-9)
    per_atom = (validation.targets.abs() / validation.n_atoms).mean()
    assert record.val_energy_mae_per_atom == pytest.approx(SCALE * float(per_atom), rel=1e-9)


@pytest.mark.parametrize("loss", ["mae", "mse", "huber"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "silu"])
def test_what_can_be_learned_is_learned(loss: str, activation: str) -> None:
    options = {"activation": activation, "lr": 0.03, "num_layers": 1, "batch_size": 10}
    records = list(make_fit(options, {"epochs": 25, "loss": loss}))
    assert records[-1].train_energy_mae < 0.3 * records[0].train_energy_mae
    assert records[-1].train_loss < 0.3 * records[0].train_loss
    assert records[-1].val_energy_mae < 0.5 * records[0].val_energy_mae


@pytest.mark.parametrize("initialization", ["xavier", "default", "zero"])
@pytest.mark.parametrize("options", [{"batchnorm": True}, {"dropout": True}, {"batchnorm": True, "dropout": True}])
def test_batch_normalisation_and_dropout_learn(options: dict[str, Any], initialization: str) -> None:
    sizes = {"num_layers": 1, "num_nodes": 16, "batch_size": 10, "dropout_rate": 0.05}
    fit = make_fit({**options, **sizes, "initialization": initialization, "lr": 0.03}, {"epochs": 25})
    assert min(r.val_energy_mae for r in fit) < 0.6 * SCALE * float(split(2, n=11).targets.abs().mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_networks_have_the_precision_of_the_data(dtype: torch.dtype) -> None:
    assert {p.dtype for p in make_fit(dtype=dtype).best_network.parameters()} == {dtype}


def test_precisions_agree_at_first() -> None:
    single, double = (
        next(iter(make_fit({"initialization": "xavier"}, dtype=d))) for d in (torch.float32, torch.float64)
    )
    assert single.val_energy_mae == pytest.approx(double.val_energy_mae, rel=1e-4)
    assert single.val_energy_mae != double.val_energy_mae


def test_what_grows_without_bound_has_diverged() -> None:
    wild = {"lr": 10.0, "num_layers": 20, "num_nodes": 32, "activation": "relu", "initialization": "xavier"}
    fit = make_fit(wild, {"epochs": 50, "loss": "mse"}, dtype=torch.float32)
    records = []
    with pytest.raises(Diverged, match=r"^diverged in epoch \d+: ") as caught:
        for record in fit:
            records.append(record)
    assert all(math.isfinite(record.val_energy_mae) for record in records)
    assert f"epoch {len(records) + 1}:" in str(caught.value)
    assert fit.best is None or math.isfinite(fit.best.val_energy_mae)


def test_a_validation_error_that_is_no_number_has_diverged() -> None:
    validation = split(2, n=11)
    validation.features[3, 1] = math.nan
    fit = Fit(Hyperparameters(num_nodes=4, initialization="xavier"), Training(), split(1), validation, SCALE, seed=0)
    with pytest.raises(Diverged, match="epoch 1: .*validation MAE nan"):
        next(iter(fit))
    assert fit.best is None


def test_a_network_initialised_to_zero_gives_zero_before_training() -> None:
    network = make_fit({"initialization": "zero", "batchnorm": True}).best_network
    assert network(torch.randn(50, 4, dtype=torch.float64)).abs().max() == 0
    hidden = [p for name, p in network.named_parameters() if name == "0.weight"]
    assert hidden[0].abs().min() > 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (4 * 8 + 8) + (8 * 8 + 8) + (8 + 1)),
        ({"batchnorm": True}, (4 * 8 + 8) + (8 * 8 + 8) + (8 + 1) + 2 * 2 * 8),
        ({"num_layers": 5, "num_nodes": 3}, (4 * 3 + 3) + 4 * (3 * 3 + 3) + (3 + 1)),
    ],
)
def test_parameters_are_counted(options: dict[str, Any], expected: int) -> None:
    assert make_fit(options).n_parameters == expected


def test_a_record_has_the_names_that_are_logged() -> None:
    record = next(iter(make_fit()))
    assert set(record.metrics()) == {
        "train_loss",
        "train_energy_mae",
        "val_energy_mae",
        "val_energy_mae_per_atom",
        "lr",
        "epoch_seconds",
    }
    assert record.epoch_seconds > 0


@pytest.fixture(scope="module")
def force_data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Twelve small alloys with EMT forces, a quarter of them for validation."""
    folder = tmp_path_factory.mktemp("forces")
    ase.io.write(folder / "train.traj", rattled_alloys(12))
    return prepare(small_config(folder / "train.traj", training={"forces": True}), folder / "home")


def force_fit(
    data: Dataset,
    hyperparameters: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    objective: Objective = "val_energy_mae",
    compiled: bool | None = None,
) -> Fit:
    splits = [
        split_tensors(data, part, torch.device("cpu"), torch.float64, with_forces=True)
        for part in (data.train, data.validation)
    ]
    options = {"num_nodes": 8, "num_layers": 2, "batch_size": 4, "lr": 0.01, "initialization": "xavier"}
    return Fit(
        Hyperparameters(**(options | (hyperparameters or {}))),
        Training(**{"epochs": 5, "early_stopping": None, "forces": True, **(training or {})}),
        *splits,
        data.scale,
        0,
        objective,
        compiled,
    )


def test_a_record_with_forces_has_their_errors_too(force_data: Dataset) -> None:
    record = next(iter(force_fit(force_data)))
    assert {"train_forces_mae", "val_forces_mae"} < set(record.metrics())


def test_the_error_of_energies_and_forces_is_that_of_a_step_of_a_tenth_of_an_angstrom(force_data: Dataset) -> None:
    records = list(force_fit(force_data, {"force_coefficient": 3.0}, {"epochs": 8}, "val_energy_forces"))
    for record in records:
        assert record.val_forces_mae is not None
        expected = record.val_energy_mae_per_atom + 0.1 * record.val_forces_mae
        assert record.value("val_energy_forces") == record.metrics()["val_energy_forces"] == pytest.approx(expected)
    fit = force_fit(force_data, {"force_coefficient": 3.0}, {"epochs": 8}, "val_energy_forces")
    list(fit)
    assert fit.best is not None
    assert fit.best.epoch == min(records, key=lambda record: record.value("val_energy_forces")).epoch


@pytest.mark.parametrize("loss", ["mae", "mse"])
@pytest.mark.parametrize("energy_loss", ["per_atom", "total"])
@pytest.mark.parametrize("coefficient", [0.0, 0.3])
def test_the_loss_is_that_of_the_energies_and_a_share_of_that_of_the_forces(
    force_data: Dataset, loss: str, coefficient: float, energy_loss: str
) -> None:
    # The network gives 0 at first, and such a small learning rate leaves it there.
    options = {"initialization": "zero", "lr": 1e-13, "force_coefficient": coefficient, "batch_size": 64}
    (record,) = force_fit(force_data, options, {"epochs": 1, "loss": loss, "energy_loss": energy_loss})
    structures, power = force_data.train.structures, {"mae": 1, "mse": 2}[loss]
    assert structures.forces is not None
    labels = np.concatenate(structures.forces)
    targets = force_data.scaled_targets(force_data.train) / (structures.n_atoms if energy_loss == "per_atom" else 1)
    of_energies = np.mean(np.abs(targets) ** power)
    force_loss = np.mean(np.abs(labels / force_data.scale) ** power)
    assert record.train_loss == pytest.approx(of_energies + coefficient * force_loss, rel=1e-9)
    assert record.train_forces_mae == pytest.approx(np.abs(labels).mean(), rel=1e-9)
    held_out = force_data.validation.structures.forces
    assert held_out is not None
    assert record.val_forces_mae == pytest.approx(np.abs(np.concatenate(held_out)).mean(), rel=1e-9)


@pytest.mark.parametrize(("energy_stage", "n_full"), [(0.8, 4), (0.5, 2), (1.0, 5)])
@pytest.mark.parametrize("compiled", [True, False])
def test_in_the_last_epochs_forces_weigh_a_tenth(
    force_data: Dataset, energy_stage: float, n_full: int, compiled: bool
) -> None:
    # As above, nothing moves: the loss changes by the weight alone.
    options = {"initialization": "zero", "lr": 1e-13, "force_coefficient": 0.3, "batch_size": 64}
    training = {"epochs": 5, "energy_stage": energy_stage}
    losses = [record.train_loss for record in force_fit(force_data, options, training, compiled=compiled)]
    of_energies = next(iter(force_fit(force_data, {**options, "force_coefficient": 0.0}, training))).train_loss
    of_forces = losses[0] - of_energies
    assert of_forces > 0.1
    assert losses[:n_full] == pytest.approx(n_full * [of_energies + of_forces], rel=1e-9)
    assert losses[n_full:] == pytest.approx((5 - n_full) * [of_energies + 0.1 * of_forces], rel=1e-9)


def test_the_forces_that_are_scored_are_those_of_the_potential(force_data: Dataset) -> None:
    options = Hyperparameters(num_nodes=8, num_layers=2, batchnorm=True, network="per_element")
    fit = force_fit(force_data, {"batchnorm": True, "network": "per_element"})
    list(fit)
    held_out = force_data.validation.structures
    assert fit.best is not None
    assert held_out.forces is not None
    predicted = NetworkPotential.from_dataset(force_data, options, fit.best_network).predict(held_out.atoms)
    assert predicted.forces is not None
    error = np.abs(np.concatenate(predicted.forces) - np.concatenate(held_out.forces)).mean()
    assert error == pytest.approx(fit.best.val_forces_mae, rel=1e-9)
    assert np.abs(predicted.energies - held_out.energies).mean() == pytest.approx(fit.best.val_energy_mae, rel=1e-9)


@pytest.mark.parametrize(
    "options", [{}, {"network": "per_element"}, {"batchnorm": True}, {"optimizer": "lbfgs", "lr": 0.3, "batch_size": 9}]
)
def test_forces_are_learned(force_data: Dataset, options: dict[str, Any]) -> None:
    records = list(
        force_fit(
            force_data,
            {"force_coefficient": 1.0, "scheduler": "none", "activation": "tanh", "batch_size": 32, **options},
            {"epochs": 30},
        )
    )
    errors = [record.train_forces_mae for record in records if record.train_forces_mae is not None]
    assert errors[-1] < 0.6 * errors[0]


def test_training_on_forces_gives_better_forces_than_training_on_energies(force_data: Dataset) -> None:
    with_forces, without = (
        min(r.val_forces_mae or math.inf for r in force_fit(force_data, {"force_coefficient": c}, {"epochs": 40}))
        for c in (1.0, 0.0)
    )
    assert with_forces < 0.8 * without


def test_the_best_epoch_is_that_of_the_objective(force_data: Dataset) -> None:
    options = {"lr": 0.05, "force_coefficient": 0.1}
    by_energy = force_fit(force_data, options, {"epochs": 25})
    by_forces = force_fit(force_data, options, {"epochs": 25}, "val_forces_mae")
    records = list(by_energy)
    assert numbers(list(by_forces)) == numbers(records)
    assert by_energy.best == min(records, key=lambda record: record.val_energy_mae)
    assert by_forces.best is not None
    assert by_forces.best.val_forces_mae == min(record.val_forces_mae for record in records if record.val_forces_mae)


def test_an_objective_of_forces_needs_forces() -> None:
    fit = make_fit()
    fit._best.objective = "val_forces_mae"
    with pytest.raises(BdqmError, match=r"needs training\.forces"):
        next(iter(fit))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lbfgs"])
@pytest.mark.parametrize("scheduler", ["step", "cosine", "one_cycle", "plateau", "none"])
def test_every_optimizer_and_schedule_trains(optimizer: str, scheduler: str) -> None:
    options = {"optimizer": optimizer, "scheduler": scheduler, "lr": 0.02, "batch_size": 30, "step_size": 5}
    records = list(make_fit(options, {"epochs": 20}))
    assert records[-1].train_energy_mae < 0.95 * records[0].train_energy_mae


def test_a_plateau_of_the_objective_lowers_the_rate() -> None:
    options = {"scheduler": "plateau", "step_size": 4, "gamma": 0.1, "lr": 0.03, "initialization": "xavier"}
    records = list(make_fit(options, {"epochs": 40}, learnable=False))
    best, since, expected = math.inf, 0, 0.03
    for record in records:
        assert record.lr == pytest.approx(expected)
        best, since = (record.val_energy_mae, 0) if record.val_energy_mae < best else (best, since + 1)
        if since == 4:
            expected, since = 0.1 * expected, 0
    assert expected < 0.03


@pytest.mark.parametrize(("scheduler", "epochs"), [("none", 31), ("step", 31), ("cosine", 60), ("one_cycle", 60)])
def test_a_training_whose_schedule_anneals_goes_to_its_end(scheduler: str, epochs: int) -> None:
    # Such a small learning rate changes no bit: no epoch is better than the first.
    options = {"scheduler": scheduler, "lr": 1e-30, "step_size": 5, "initialization": "xavier"}
    assert len(list(make_fit(options, {"epochs": 60, "early_stopping": "auto"}))) == epochs
    assert len(list(make_fit(options, {"epochs": 60, "early_stopping": 4}))) == 5, "what is given counts"
    assert len(list(make_fit(options, {"epochs": 60, "early_stopping": None}))) == 60
