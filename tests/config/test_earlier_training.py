"""Training options in what studies and runs record, and records of the time before one of them existed."""

from typing import Any

import pytest

from bdqm_tune.config.config import Config, load_config
from bdqm_tune.config.earlier_training import (
    BEFORE,
    EARLIER_SEARCHES,
    as_before,
    same_training,
    with_earlier_search,
    with_earlier_training,
)
from bdqm_tune.config.hyperparameters import AMPOPT_SEARCH, DEFAULT_SEARCH
from bdqm_tune.errors import BadInput


def config(training: dict[str, Any] | None = None, **search: Any) -> Config:
    return load_config(None, {"training": training or {}, "search": search})


def earlier(training: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the version before `energy_loss` recorded."""
    record = config(training).training.model_dump()
    return {option: value for option, value in record.items() if option not in BEFORE}


def test_a_record_of_earlier_versions_agrees_with_total_energies_alone() -> None:
    each = {"smoothing": 1, "stress": False, "energy_stage": 1.0}
    total, per_atom = (config({"energy_loss": loss} | each).training.model_dump() for loss in ("total", "per_atom"))
    assert same_training(earlier(), total)
    assert as_before(total) == earlier()
    assert not same_training(earlier(), per_atom)
    assert as_before(per_atom) == earlier() | {"energy_loss": "per_atom"}
    smoothed = config({"energy_loss": "total", "stress": False, "energy_stage": 1.0}).training.model_dump()
    assert not same_training(earlier(), smoothed)
    assert not same_training({**earlier(), "loss": "mse"}, total)


def test_a_study_of_an_earlier_version_goes_on_with_its_loss_and_weight() -> None:
    made = with_earlier_training(config({"forces": True}), earlier({"forces": True}))
    assert made.training.energy_loss == "total"
    assert made.fixed["force_coefficient"] == 0.01
    assert made.training.smoothing == 1
    assert made.training.stress is False
    assert made.training.energy_stage == 1.0
    of_energies = with_earlier_training(config({"forces": False}), earlier())
    assert of_energies.training.energy_loss == "total"
    assert "force_coefficient" not in of_energies.fixed


RANGES = {"num_layers": None, "num_nodes": None, "lr": None, "batch_size": None, "gamma": None, "step_size": None}
CHOICES = {"activation": ("tanh", "relu", "gelu", "silu"), "batchnorm": (True, False), "dropout": (True, False)}
FEW = {"num_layers": None, "lr": None, "force_coefficient": None}


@pytest.mark.parametrize(
    ("searched", "space"),
    [
        (RANGES | CHOICES, AMPOPT_SEARCH),
        (FEW | {"activation": ("tanh", "relu", "gelu", "silu")}, EARLIER_SEARCHES[1]),
        (FEW | {"activation": ("tanh", "gelu", "silu")}, DEFAULT_SEARCH),
        ({}, DEFAULT_SEARCH),
    ],
)
def test_a_study_goes_on_in_the_default_search_space_of_its_version(
    searched: dict[str, Any], space: dict[str, Any]
) -> None:
    space = {name: DEFAULT_SEARCH[name] for name in ("force_coefficient", "stress_coefficient")} | space
    assert with_earlier_search(config(), searched).search == space
    given = {"lr": 1e-3, "num_nodes": {"int": [5, 6]}}
    assert with_earlier_search(config(**given), searched).search == space | given
    layers = with_earlier_search(config(hidden_layers=[5, 5]), {k: v for k, v in searched.items() if k[:3] != "num"})
    assert layers.fixed["hidden_layers"] == [5, 5]
    assert "num_layers" not in layers.search


def test_a_study_that_stopped_early_by_default_does_so_whatever_its_schedule() -> None:
    record = {**config().training.model_dump(), "early_stopping": 30}
    assert with_earlier_training(config(), record).training.early_stopping == 30
    assert with_earlier_training(config({"early_stopping": None}), record).training.early_stopping is None
    assert with_earlier_training(config(), {**record, "early_stopping": 7}).training.early_stopping == "auto"


def test_what_is_given_stays_and_what_is_recorded_now_changes_nothing() -> None:
    given = with_earlier_training(config({"energy_loss": "per_atom", "forces": True}), earlier({"forces": True}))
    assert given.training.energy_loss == "per_atom", "which is refused, as it differs"
    weighed = with_earlier_training(config({"forces": True}, force_coefficient=0.5), earlier({"forces": True}))
    assert weighed.fixed["force_coefficient"] == 0.5
    now = config({"forces": True})
    assert with_earlier_training(now, now.training.model_dump()) is now


@pytest.mark.parametrize(
    ("training", "study", "objective"),
    [
        ({"forces": False}, {}, "val_energy_mae"),
        ({"forces": True}, {}, "val_energy_forces"),
        ({"forces": "partial"}, {}, "val_energy_forces"),
        ({"forces": True}, {"objectives": ["val_forces_mae", "n_parameters"]}, "val_forces_mae"),
        ({}, {"objectives": ["val_energy_mae_per_atom", "time_per_atom"]}, "val_energy_mae_per_atom"),
    ],
)
def test_the_objective_is_chosen_by_what_is_trained(
    training: dict[str, Any], study: dict[str, Any], objective: str
) -> None:
    made = load_config(None, {"training": training, "study": study})
    assert made.objective == objective
    assert made.objectives[0] == objective


@pytest.mark.parametrize("name", ["val_forces_mae", "val_energy_forces"])
def test_an_objective_of_forces_needs_them(name: str) -> None:
    with pytest.raises(BadInput, match=f"target.objective: {name} needs training.forces: true"):
        load_config(None, {"target": {"objective": name}, "training": {"forces": False}})
    with pytest.raises(BadInput, match=f"{name} needs training.forces: true"):
        load_config(None, {"study": {"objectives": [name, "n_parameters"]}, "training": {"forces": False}})
    with pytest.raises(BadInput, match=f"{name} needs training.forces: true"):
        load_config(None, {"target": {"objective": name}}).decided(False)


def test_the_weight_of_forces_is_searched_where_it_has_a_unit_that_is_known() -> None:
    assert config({"forces": True}).spaces["force_coefficient"].low == 0.1
    assert "force_coefficient" not in config({"forces": True, "energy_loss": "total"}).spaces
    changed = config({"forces": True}).updated({"training": {"forces": False}})
    assert "force_coefficient" not in changed.spaces
    given = config({"forces": True}, num_layers=2)
    assert given.fixed["num_layers"] == 2
    assert "force_coefficient" in given.spaces


def test_amptorch_has_the_loss_of_total_energies() -> None:
    assert load_config(None, {"": {"backend": "amptorch"}}).training.energy_loss == "total"
    with pytest.raises(BadInput, match=r"training\.energy_loss: amptorch's loss is of total energies"):
        load_config(None, {"": {"backend": "amptorch"}, "training": {"energy_loss": "per_atom"}})


def test_a_record_of_before_hubers_loss_agrees_with_now() -> None:
    now = load_config(None, {}).training.model_dump()
    then = {option: value for option, value in now.items() if option != "huber_delta"}
    assert same_training(then, now)
    assert as_before(now) == then
    config = load_config(None, {})
    assert with_earlier_training(config, then) is config


def test_a_study_of_before_the_stress_was_trained_goes_on_without() -> None:
    now = config({"forces": True, "stress": False}).training.model_dump()
    then = {option: value for option, value in now.items() if option != "stress"}
    assert same_training(then, now)
    assert as_before(now) == {option: value for option, value in then.items() if option != "huber_delta"}
    made = with_earlier_training(config({"forces": True}), then)
    assert made.training.stress is False
    assert "stress_coefficient" not in made.spaces
    assert with_earlier_training(config({"forces": True, "stress": True}), then).training.stress is True, "refused"
