"""What is searched, what is fixed, what is tried first."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from bdqm_tune.config.config import Config, load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.study.search_space import distributions, enqueued, grid, known_parameters, suggest

Configure = Callable[..., Config]


def suggestions(config: Config, n: int = 40, n_train: int = 270) -> list[tuple[dict[str, Any], Hyperparameters]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(n)]
    return [
        (trial.params, hyperparameters)
        for trial in trials
        if (hyperparameters := suggest(trial, config, n_train).hyperparameters)
    ]


AMPOPT = load_config(None, {"": {"search": "ampopt"}})


def test_the_default_space_is_of_small_networks() -> None:
    of_energies = {
        "num_layers": IntDistribution(1, 3),
        "num_nodes": IntDistribution(8, 64, log=True),
        "activation": CategoricalDistribution(["tanh", "gelu", "silu"]),
        "lr": FloatDistribution(1e-3, 1e-2, log=True),
        "batch_size": IntDistribution(1, 32, log=True),
    }
    assert distributions(load_config().decided(False), n_train=1000) == of_energies
    weight = {"force_coefficient": FloatDistribution(0.1, 10.0, log=True)}
    assert distributions(load_config().decided(True), n_train=1000) == of_energies | weight


def test_the_space_of_the_predecessor_is_its_own() -> None:
    assert distributions(AMPOPT.decided(False), n_train=1000) == {
        "num_layers": IntDistribution(3, 30),
        "num_nodes": IntDistribution(4, 50),
        "activation": CategoricalDistribution(["tanh", "relu", "gelu", "silu"]),
        "batchnorm": CategoricalDistribution([True, False]),
        "dropout": CategoricalDistribution([True, False]),
        "dropout_rate": FloatDistribution(0.05, 0.5),
        "lr": FloatDistribution(1e-5, 1e-2, log=True),
        "batch_size": IntDistribution(16, 512, log=True),
        "gamma": FloatDistribution(0.1, 1.0),
        "step_size": IntDistribution(5, 100),
    }


def test_batches_are_no_larger_than_the_training_split() -> None:
    assert distributions(AMPOPT, n_train=270)["batch_size"] == IntDistribution(16, 270, log=True)
    assert distributions(AMPOPT, n_train=9)["batch_size"] == IntDistribution(9, 9, log=True)


def test_the_dropout_rate_is_searched_only_with_dropout() -> None:
    seen = {(hyperparameters.dropout, "dropout_rate" in params) for params, hyperparameters in suggestions(AMPOPT)}
    assert seen == {(True, True), (False, False)}
    without = AMPOPT.updated({"search": {"dropout": False}})
    assert "dropout_rate" not in distributions(without, 270)


def test_a_schedule_without_steps_has_no_step_hyperparameters() -> None:
    cosine = distributions(AMPOPT.updated({"search": {"scheduler": "cosine"}}), 270)
    assert "gamma" not in cosine
    assert "step_size" not in cosine


@pytest.mark.parametrize("scheduler", ["step", "plateau"])
def test_a_factor_and_its_epochs_are_searched_where_the_schedule_has_them(scheduler: str) -> None:
    space = distributions(AMPOPT.updated({"search": {"scheduler": scheduler}}), 270)
    assert {"gamma", "step_size"} < space.keys()


def test_weights_decay_with_adamw_only() -> None:
    decay = {"weight_decay": {"float": [1e-4, 1e-1], "log": True}}
    assert "weight_decay" not in distributions(load_config(None, {"search": decay}), 270)
    both = load_config(None, {"search": decay | {"optimizer": {"choice": ["adam", "adamw"]}}})
    seen = {(tried.optimizer, "weight_decay" in params) for params, tried in suggestions(both)}
    assert seen == {("adam", False), ("adamw", True)}


def test_an_explicit_list_of_layers_reaches_every_trial() -> None:
    config = load_config(None, {"search": {"hidden_layers": [9, 5], "network": {"choice": ["single", "per_element"]}}})
    for params, hyperparameters in suggestions(config, n=5):
        assert hyperparameters.layers == [9, 5]
        assert not {"hidden_layers", "num_layers", "num_nodes"} & params.keys()
    assert all(first["network"] == "single" for first in enqueued(config, n_train=270))


def test_fixed_values_reach_every_trial_and_are_not_searched() -> None:
    config = load_config(None, {"search": {"lr": "1e-3", "activation": "gelu"}})
    for params, hyperparameters in suggestions(config, n=5):
        assert (hyperparameters.lr, hyperparameters.activation) == (1e-3, "gelu")
        assert not {"lr", "activation"} & params.keys()


def test_the_default_configuration_is_tried_first() -> None:
    first, *_ = enqueued(load_config(), n_train=270)
    defaults = Hyperparameters()
    assert first == {
        name: getattr(defaults, name) for name in distributions(load_config(), 270) if name != "dropout_rate"
    }


def test_a_default_outside_the_space_is_left_to_the_sampler() -> None:
    first, *_ = enqueued(load_config(None, {"search": {"num_nodes": {"int": [4, 8]}}}), n_train=270)
    assert "num_nodes" not in first


def test_an_enqueued_value_outside_the_space_is_refused() -> None:
    for entry, problem in (({"lr": 0.5}, "outside the search space"), ({"scheduler": "step"}, "fixes it to cosine")):
        config = load_config(None, {"study": {"enqueue": [entry]}})
        with pytest.raises(BadInput, match=problem):
            enqueued(config, n_train=270)


def test_the_grid_holds_each_combination_once_and_inside_the_space() -> None:
    search = {
        "num_layers": {"int": [3, 30]},
        "dropout": {"choice": [True, False]},
        "lr": {"float": [1e-4, 1e-2], "log": True},
    }
    rest = {"num_nodes": 8, "activation": "tanh", "batchnorm": False, "batch_size": 16, "gamma": 0.5, "step_size": 9}
    config = AMPOPT.updated({"search": search | rest, "training": {"forces": False}})
    points = grid(config, n_train=270)
    # 3 depths × 3 learning rates × (no dropout, or dropout at 3 rates)
    assert len(points) == 36 == len({tuple(sorted(point.items())) for point in points})
    assert {point["num_layers"] for point in points} == {3, 16, 30}
    assert sorted({point["lr"] for point in points}) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert all(("dropout_rate" in point) == point["dropout"] for point in points)
    space = distributions(config, 270)
    assert all(space[name]._contains(space[name].to_internal_repr(value)) for p in points for name, value in p.items())


def test_a_stepped_range_has_all_its_steps_in_the_grid() -> None:
    config = load_config(None, {"search": {"num_layers": {"int": [2, 10], "step": 2}}})
    assert {point["num_layers"] for point in grid(config, 270)} == {2, 4, 6, 8, 10}


def test_more_trials_than_the_grid_has_left_are_refused() -> None:
    search = {name: getattr(Hyperparameters(), name) for name in distributions(load_config(), 270)}
    config = load_config(
        None,
        {"search": search | {"activation": {"choice": ["tanh", "relu"]}}, "study": {"sampler": "grid", "n_trials": 2}},
    )
    first = known_parameters(config, 270, [])
    assert sorted(point["activation"] for point in first) == ["relu", "tanh"]
    tried = [optuna.trial.create_trial(value=1.0, system_attrs={"fixed_params": first[0]})]
    with pytest.raises(BadInput, match="1 points that were not tried, fewer than 2"):
        known_parameters(config, 270, tried)


def tried_first(n_train: int = 270, **groups: dict[str, Any]) -> list[dict[str, Any]]:
    return enqueued(load_config(None, {"study": {"enqueue": "auto"}, **groups}).decided(True), n_train)


def test_a_study_can_try_several_good_configurations_first() -> None:
    default, gelu, wide = tried_first()
    assert default == {name: getattr(Hyperparameters(), name) for name in default}
    assert gelu == default | {"activation": "gelu"}
    assert wide == gelu | {"num_nodes": 60, "batch_size": 16}


def test_what_a_study_does_not_search_stays_in_what_it_tries_first() -> None:
    fixed = tried_first(search={"activation": "tanh", "num_nodes": {"int": [4, 16]}})
    assert [entry["batch_size"] for entry in fixed] == [4, 16]
    assert all("activation" not in entry for entry in fixed)
    assert all("num_nodes" not in entry for entry in fixed)  # neither 32 nor 60: left to the sampler
    assert [entry["batch_size"] for entry in tried_first(n_train=9)] == [4, 4, 4]
    assert tried_first(study={"enqueue": [{}]}) == tried_first()[:1]
    assert tried_first(study={"enqueue": []}) == []
