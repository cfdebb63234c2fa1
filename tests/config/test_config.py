"""Options: declared once, checked where they are given, and an error that names the key and what is valid."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from bdqm_tune.config.config import Config, describe, load_config
from bdqm_tune.config.hyperparameters import DEFAULT_SEARCH, Hyperparameters
from bdqm_tune.config.spaces import Space, parse_space
from bdqm_tune.errors import BadInput


def load(content: dict[str, Any] | str, tmp_path: Path) -> Config:
    """The configuration of a file with this content."""
    path = tmp_path / "config.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return load_config(path)


def refused(content: dict[str, Any] | str, tmp_path: Path) -> str:
    """The one line with which the content is refused, without the file's name."""
    with pytest.raises(BadInput) as caught:
        load(content, tmp_path)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    prefix = f"config {tmp_path / 'config.yaml'}: "
    assert message.startswith(prefix)
    assert "\n" not in message
    return message.removeprefix(prefix)


def test_without_a_file_everything_has_its_default() -> None:
    config = load_config()
    assert config == Config()
    assert config.data.train == "builtin"
    assert (config.data.validation.fraction, config.data.validation.split) == (0.1, "random")
    assert config.training.epochs == 100
    assert config.study.n_trials == 20
    assert (config.study.sampler, config.study.pruner) == ("tpe", "hyperband")
    assert config.training.forces == "auto"
    assert config.decided(False).objective == "val_energy_mae"
    assert config.decided(True).objective == "val_energy_forces"
    assert (config.backend, config.device) == ("native", "auto")


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "{}\n", "study:\ndata:\n"])
def test_an_empty_file_is_the_default(tmp_path: Path, content: str) -> None:
    assert load(content, tmp_path) == Config()


def test_the_default_space_is_the_one_that_is_asked_for() -> None:
    of_forces = {
        "num_layers": Space(kind="int", low=1, high=3),
        "num_nodes": Space(kind="int", low=8, high=64, log=True),
        "activation": Space(kind="choice", choices=("tanh", "gelu", "silu")),
        "lr": Space(kind="float", low=1e-3, high=1e-2, log=True),
        "batch_size": Space(kind="int", low=1, high=32, log=True),
        "force_coefficient": Space(kind="float", low=0.1, high=10.0, log=True),
    }
    assert Config().decided(True).spaces == of_forces
    assert Config().decided(False).spaces.keys() == of_forces.keys() - {"force_coefficient"}
    assert Config().fixed == {}
    assert Config().study.enqueue == [{}]


@pytest.mark.parametrize("where", ["file", "option", "option over a file"])
def test_the_space_of_the_predecessor_has_a_name(tmp_path: Path, where: str) -> None:
    content = {"search": "ampopt"} if where == "file" else {"search": {"lr": 1e-4}} if where != "option" else {}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    over = {} if where == "file" else {"": {"search": "ampopt"}}
    config = load_config(tmp_path / "config.yaml", {**over, "search": {"gamma": 0.5}})
    assert config.fixed == {"scheduler": "step", "gamma": 0.5}
    assert config.decided(False).spaces == {
        "num_layers": Space(kind="int", low=3, high=30),
        "num_nodes": Space(kind="int", low=4, high=50),
        "activation": Space(kind="choice", choices=("tanh", "relu", "gelu", "silu")),
        "batchnorm": Space(kind="choice", choices=(True, False)),
        "dropout": Space(kind="choice", choices=(True, False)),
        "dropout_rate": Space(kind="float", low=0.05, high=0.5),
        "lr": Space(kind="float", low=1e-5, high=1e-2, log=True),
        "batch_size": Space(kind="int", low=16, high=512, log=True),
        "step_size": Space(kind="int", low=5, high=100),
    }
    with pytest.raises(BadInput, match="search: must be ranges and values of hyperparameters, or ampopt, got"):
        load_config(None, {"": {"search": "amptorch"}})


@pytest.mark.parametrize("name", DEFAULT_SEARCH)
def test_the_configuration_that_is_tried_first_lies_in_the_default_space(name: str) -> None:
    space, value = Config().spaces[name], getattr(Hyperparameters(), name)
    assert value in space.choices if space.kind == "choice" else space.low <= value <= space.high


def test_the_file_of_the_design_is_read(tmp_path: Path) -> None:
    config = load(
        """
data:       {train: train.traj, test: test.traj, validation: {fraction: 0.1, split: composition, seed: 12}}
descriptor: {name: gmp, orders: [0, 1, 2, 3], sigmas: 8, cutoff: 6.0}
target:     {reference_energies: fit, objective: val_energy_mae}
training:   {epochs: 100, loss: mae, early_stopping: 30, precision: float32}
search:     {num_layers: {int: [3, 30]}, lr: {float: [1.0e-5, 1.0e-2], log: true}, batchnorm: false, \
activation: {choice: [tanh, relu]}}
study:      {name: oc20, sampler: tpe, pruner: hyperband, n_trials: 50, seed: 0}
""",
        tmp_path,
    )
    assert config.data.validation.split == "composition"
    assert (config.study.name, config.study.n_trials) == ("oc20", 50)
    assert config.fixed == {"batchnorm": False}
    assert config.spaces["activation"].choices == ("tanh", "relu")
    assert config.spaces["num_nodes"] == Config().spaces["num_nodes"]


@pytest.mark.parametrize(
    ("content", "unknown", "known"),
    [
        ({"trainning": {}}, "trainning", ["data", "descriptor", "target", "training", "search", "study", "device"]),
        ({"training": {"epoch": 3}}, "training.epoch", ["epochs", "loss", "early_stopping", "precision"]),
        (
            {"data": {"validation": {"split_by": "x"}}},
            "data.validation.split_by",
            ["fraction", "folds", "split", "seed"],
        ),
        ({"study": {"trials": 3}}, "study.trials", ["name", "sampler", "pruner", "n_trials", "seed", "enqueue"]),
    ],
)
def test_an_unknown_option_is_named_and_the_known_ones_are_listed(
    tmp_path: Path, content: dict[str, Any], unknown: str, known: list[str]
) -> None:
    message = refused(content, tmp_path)
    assert message.startswith(f"unknown option {unknown}; there are: ")
    listed = message.split("there are: ")[1].split(", ")
    assert set(known) <= set(listed)
    assert len(listed) == len(set(listed)) <= 13


def test_an_unknown_hyperparameter_is_named_and_the_known_ones_are_listed(tmp_path: Path) -> None:
    message = refused({"search": {"learning_rate": 0.1}}, tmp_path)
    assert "unknown hyperparameter 'learning_rate'" in message
    assert message.split("there are: ")[1].split(", ") == list(Hyperparameters.model_fields)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"training": {"epochs": "many"}}, ["training.epochs", "got 'many'"]),
        ({"training": {"epochs": 2.5}}, ["training.epochs", "got 2.5"]),
        ({"training": {"epochs": 0}}, ["training.epochs", "greater than or equal to 1", "got 0"]),
        ({"training": {"epochs": None}}, ["training.epochs"]),
        ({"training": {"loss": "l1"}}, ["training.loss", "'mae', 'mse' or 'huber'", "got 'l1'"]),
        ({"training": {"early_stopping": 0}}, ["training.early_stopping"]),
        ({"training": 3}, ["training", "got 3"]),
        ({"training": [1, 2]}, ["training"]),
        ({"data": {"train": []}}, ["data.train: must be a file, or a list of files, got []"]),
        ({"data": {"train": None}}, ["data.train: must be a file, or a list of files, got None"]),
        ({"data": {"test": ["a.traj", 3]}}, ["data.test: must be a file, or a list of files, got ['a.traj', 3]"]),
        ({"data": {"validation_file": " "}}, ["data.validation_file: must be a file"]),
        ({"data": {"energy_key": ""}}, ["data.energy_key", "at least 1 character"]),
        ({"data": {"min_covalent_ratio": -1}}, ["data.min_covalent_ratio", "greater than or equal to 0"]),
        ({"data": {"validation": {"fraction": 0}}}, ["data.validation.fraction", "greater than 0"]),
        ({"data": {"validation": {"fraction": 1.0}}}, ["data.validation.fraction", "less than 1"]),
        ({"data": {"validation": {"fraction": float("nan")}}}, ["data.validation.fraction"]),
        ({"descriptor": {"orders": []}}, ["descriptor.orders"]),
        ({"descriptor": {"orders": [10]}}, ["descriptor.orders.0", "less than or equal to 9"]),
        ({"descriptor": {"sigmas": 0}}, ["descriptor.sigmas"]),
        ({"descriptor": {"sigmas": [0.5, -1]}}, ["descriptor.sigmas"]),
        ({"descriptor": {"sigmas": []}}, ["descriptor.sigmas"]),
        ({"descriptor": {"cutoff": 0}}, ["descriptor.cutoff", "greater than 0"]),
        ({"descriptor": {"cutoff": float("inf")}}, ["descriptor.cutoff"]),
        ({"descriptor": {"name": "soap"}}, ["descriptor.name", "'gmp'", "got 'soap'"]),
        ({"study": {"n_trials": 0}}, ["study.n_trials", "got 0"]),
        ({"study": {"n_trials": -3}}, ["study.n_trials"]),
        ({"study": {"sampler": "bayes"}}, ["study.sampler", "'tpe'", "'cmaes'", "'qmc'", "got 'bayes'"]),
        ({"study": {"pruner": "asha"}}, ["study.pruner", "'hyperband'", "'none'", "got 'asha'"]),
        ({"study": {"seed": -1}}, ["study.seed"]),
        ({"study": {"seed": 2**31}}, ["study.seed"]),
        ({"study": {"name": ""}}, ["study.name"]),
        ({"study": {"name": "two\nlines"}}, ["study.name", "printable"]),
        ({"study": {"name": " padded"}}, ["study.name", "without blanks"]),
        ({"descriptor": {"scaling": "minmax"}}, ["descriptor.scaling", "'normalise'", "got 'minmax'"]),
        ({"descriptor": {"scaling_range": [1, 0]}}, ["descriptor.scaling_range", "[low, high]"]),
        ({"descriptor": {"scaling_range": [0]}}, ["descriptor.scaling_range"]),
        ({"target": {"scaling": "mean"}}, ["target.scaling", "'mean_deviation'", "got 'mean'"]),
        ({"target": {"objective": "val_loss"}}, ["target.objective", "'val_forces_mae'", "got 'val_loss'"]),
        (
            {"target": {"objective": "val_forces_mae"}, "training": {"forces": False}},
            ["target.objective", "needs training.forces: true"],
        ),
        ({"training": {"forces": "some"}}, ["training.forces", "got 'some'"]),
        ({"study": {"objectives": []}}, ["study.objectives"]),
        ({"study": {"objectives": 5}}, ["study.objectives", "got 5"]),
        ({"study": {"objectives": ["val_energy_mae", "size"]}}, ["study.objectives.1", "'n_parameters'", "got 'size'"]),
        (
            {"study": {"objectives": ["n_parameters"]}},
            ["study.objectives: must have the error among them", "val_forces_mae"],
        ),
        ({"device": "gpu"}, ["device", "got 'gpu'"]),
        ({"device": "cuda:x"}, ["device"]),
        ({"backend": "amptorch2"}, ["backend", "native, amptorch"]),
        ({"search": 3}, ["search", "got 3"]),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(
    tmp_path: Path, content: dict[str, Any], named: list[str]
) -> None:
    message = refused(content, tmp_path)
    for part in named:
        assert part in message


@pytest.mark.parametrize("name", ["epochs", "n_trials", "seed"])
def test_a_truth_value_is_no_number(tmp_path: Path, name: str) -> None:
    assert name in refused({"training" if name == "epochs" else "study": {name: True}}, tmp_path)


def test_several_problems_are_told_at_once(tmp_path: Path) -> None:
    message = refused({"training": {"epochs": 0, "loss": "x"}, "study": {"n_trials": 0}}, tmp_path)
    assert all(name in message for name in ("training.epochs", "training.loss", "study.n_trials"))


@pytest.mark.parametrize(
    ("name", "entry", "named"),
    [
        ("lr", {"float": [1e-2, 1e-5]}, ["lr", "is empty", "plain value"]),
        ("lr", {"float": [1e-3, 1e-3]}, ["is empty"]),
        ("num_layers", {"int": [5, 5]}, ["num_layers: the range [5, 5] is empty"]),
        ("gamma", {"float": [0.0, 0.5], "log": True}, ["gamma", "greater than 0"]),
        ("dropout_rate", {"float": [0.0, 0.5], "log": True}, ["dropout_rate", "must begin above 0"]),
        ("lr", {"float": [1e-5, 11]}, ["lr", "less than or equal to 10", "got 11"]),
        ("num_layers", {"int": [0, 5]}, ["num_layers", "greater than or equal to 1", "got 0"]),
        ("num_layers", {"int": [3, 101]}, ["num_layers", "got 101"]),
        ("num_layers", {"int": [3, 4.5]}, ["num_layers", "got 4.5"]),
        ("num_layers", {"float": [3, 5]}, ["num_layers: float does not fit a int"]),
        ("lr", {"int": [1, 2]}, ["lr: int does not fit a float"]),
        ("batchnorm", {"int": [0, 1]}, ["batchnorm: int does not fit a bool"]),
        ("activation", {"float": [0, 1]}, ["activation: float does not fit a choice"]),
        ("activation", {"choice": ["tanh", "sine"]}, ["activation", "'silu'", "got 'sine'"]),
        ("activation", {"choice": []}, ["activation: choice needs a list"]),
        ("activation", {"choice": "tanh"}, ["activation: choice needs a list, got 'tanh'"]),
        ("lr", {"float": [1e-3]}, ["lr: float needs [low, high]"]),
        ("lr", {"float": [1e-4, 1e-3, 1e-2]}, ["lr: float needs [low, high]"]),
        ("lr", {"float": 1e-3}, ["lr: float needs a list"]),
        ("lr", {"float": ["low", "high"]}, ["lr", "got 'low'"]),
        ("lr", {"float": [1e-4, 1e-3], "log": "yes"}, ["lr: log must be true or false, got 'yes'"]),
        ("lr", {"float": [1e-4, 1e-3], "logarithmic": True}, ["lr: needs one of int, float, choice"]),
        ("lr", {"float": [1e-4, 1e-3], "choice": [1e-3]}, ["lr: needs one of"]),
        ("lr", {}, ["lr: needs one of"]),
        ("num_nodes", {"int": [4, 50], "step": 0}, ["num_nodes: step must be a positive"]),
        ("num_nodes", {"int": [4, 50], "step": -2}, ["num_nodes: step"]),
        ("num_nodes", {"int": [4, 50], "step": True}, ["num_nodes: step"]),
        ("num_nodes", {"int": [4, 50], "step": 2, "log": True}, ["num_nodes: step", "not together with log"]),
        ("num_nodes", {"int": [4, 50], "step": 0.5}, ["num_nodes: step"]),
        ("num_nodes", 0, ["num_nodes", "got 0"]),
        ("num_nodes", "many", ["num_nodes", "got 'many'"]),
        ("num_nodes", None, ["num_nodes"]),
        ("activation", "sine", ["activation", "got 'sine'"]),
        ("lr", [1e-4, 1e-3], ["lr"]),
        ("hidden_layers", [20, 0], ["hidden_layers", "greater than or equal to 1"]),
        ("hidden_layers", [], ["hidden_layers"]),
        ("hidden_layers", "20x", ["hidden_layers", "got '20x'"]),
        ("hidden_layers", {"choice": [[20, 20], [30]]}, ["hidden_layers", "search num_layers and num_nodes"]),
        ("network", "bpnn", ["network", "'per_element'", "got 'bpnn'"]),
        ("optimizer", "sgd", ["optimizer", "'lbfgs'", "got 'sgd'"]),
        ("scheduler", "cosin", ["scheduler", "'plateau'", "got 'cosin'"]),
        ("force_coefficient", -0.1, ["force_coefficient", "greater than or equal to 0"]),
    ],
)
def test_a_search_entry_that_cannot_be_is_refused(tmp_path: Path, name: str, entry: Any, named: list[str]) -> None:
    message = refused({"search": {name: entry}}, tmp_path)
    for part in named:
        assert part in message


@pytest.mark.parametrize(
    ("name", "entry", "expected"),
    [
        ("lr", {"float": [1e-4, 1e-3], "log": True}, Space(kind="float", low=1e-4, high=1e-3, log=True)),
        ("num_nodes", {"int": [4, 48], "step": 4}, Space(kind="int", low=4, high=48, step=4)),
        ("gamma", {"float": [0.2, 1.0], "step": 0.1}, Space(kind="float", low=0.2, high=1.0, step=0.1)),
        ("num_layers", {"choice": [3, 5, 9]}, Space(kind="choice", choices=(3, 5, 9))),
        ("dropout", {"choice": [True]}, Space(kind="choice", choices=(True,))),
        ("scheduler", {"choice": ["step", "cosine"]}, Space(kind="choice", choices=("step", "cosine"))),
    ],
)
def test_a_search_entry_is_a_space(tmp_path: Path, name: str, entry: dict[str, Any], expected: Space) -> None:
    config = load({"search": {name: entry}}, tmp_path)
    assert config.spaces[name] == expected
    assert name not in config.fixed


def test_a_range_of_the_forces_weight_needs_forces(tmp_path: Path) -> None:
    entry = {"force_coefficient": {"float": [0.01, 1.0], "log": True}}
    message = refused({"search": entry, "training": {"forces": False}}, tmp_path)
    assert message == "search.force_coefficient: a range needs training.forces: true"
    config = load_config(None, {"search": entry})
    assert config.decided(True).spaces["force_coefficient"].low == 0.01
    with pytest.raises(BadInput, match="a range needs training.forces: true"):
        config.decided(False)


@pytest.mark.parametrize(
    ("name", "value"), [("lr", 1e-3), ("num_layers", 4), ("activation", "relu"), ("batchnorm", True), ("gamma", 1.0)]
)
def test_a_plain_value_fixes_a_hyperparameter(tmp_path: Path, name: str, value: Any) -> None:
    config = load({"search": {name: value}}, tmp_path)
    schedule = {"scheduler": "step"} if name == "gamma" else {}
    assert config.fixed == {name: value} | schedule, "which counts with that schedule only"
    assert type(config.fixed[name]) is type(value)
    assert config.spaces.keys() == DEFAULT_SEARCH.keys() - {name}


@pytest.mark.parametrize("given", [[30, 20, 10], "30x20x10"])
def test_an_explicit_list_of_layers_stands_in_the_place_of_their_number_and_size(given: Any, tmp_path: Path) -> None:
    config = load({"search": {"hidden_layers": given}}, tmp_path)
    assert config.fixed == {"hidden_layers": [30, 20, 10]}
    assert config.spaces.keys() == DEFAULT_SEARCH.keys() - {"num_layers", "num_nodes"}
    assert Config(**yaml.safe_load(yaml.safe_dump(config.model_dump()))) == config
    assert "hidden_layers replaces num_layers" in refused(
        {"search": {"hidden_layers": given, "num_layers": 3}}, tmp_path
    )


def test_of_two_ways_to_give_layers_the_override_counts(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("search: {num_layers: 4, num_nodes: 8}\n")
    config = load_config(path, {"search": {"hidden_layers": "5x5"}})
    assert config.fixed == {"hidden_layers": [5, 5]}
    assert config.updated({"search": {"num_nodes": 7}}).fixed == {"num_nodes": 7}


def test_layers_that_count_for_nothing_are_not_told() -> None:
    assert {"num_layers", "num_nodes"}.isdisjoint(Hyperparameters(hidden_layers=[3, 3]).model_dump())
    options = Hyperparameters(**Hyperparameters(num_nodes=5).model_dump())
    assert (options.layers, options.hidden_layers) == ([5, 5, 5], None)
    assert Hyperparameters(**Hyperparameters(hidden_layers=[3, 4]).model_dump()).layers == [3, 4]


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path: Path) -> None:
    text = "search:\n  lr: 1e-3\n  gamma: {float: [1e-1, 5e-1]}\ndescriptor: {sigmas: [1e-1, 2]}\n"
    assert yaml.safe_load(text)["search"]["lr"] == "1e-3"
    config = load(text, tmp_path)
    assert config.fixed == {"lr": 0.001, "scheduler": "step"}
    assert config.spaces["gamma"] == Space(kind="float", low=0.1, high=0.5)
    assert config.descriptor.sigmas == [0.1, 2.0]


@pytest.mark.parametrize("content", ["study: [unclosed\n", "a: b: c\n", "\tstudy: x\n", "study: {n: 1\n"])
def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path, content: str) -> None:
    assert refused(content, tmp_path).startswith("not valid YAML: ")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\xfa\x00")
    with pytest.raises(BadInput, match="not valid YAML"):
        load_config(tmp_path / "config.yaml")


def test_yaml_that_would_run_code_is_refused(tmp_path: Path) -> None:
    content = f"study: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{tmp_path}/x']]\n"
    refused(content, tmp_path)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("content", ["- study\n- data\n", "just text\n", "42\n", "false\n", "[]\n"])
def test_a_file_without_groups_is_refused_and_the_groups_are_listed(tmp_path: Path, content: str) -> None:
    message = refused(content, tmp_path)
    assert "must hold groups of options" in message
    assert "study" in message


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.yaml: No such file"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(BadInput, match="Is a directory"):
        load_config(tmp_path)


def test_overrides_stand_over_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("study: {name: mine, n_trials: 7}\ntraining: {epochs: 5}\nsearch: {lr: 0.01, batchnorm: true}\n")
    config = load_config(path, {"study": {"n_trials": 9}, "search": {"lr": "2e-3"}, "": {"device": "cpu"}})
    assert (config.study.name, config.study.n_trials, config.training.epochs) == ("mine", 9, 5)
    assert config.fixed == {"lr": 0.002, "batchnorm": True}
    assert config.device == "cpu"


def test_overrides_without_a_file_are_options() -> None:
    assert load_config(None, {"training": {"epochs": 3}}).training.epochs == 3
    with pytest.raises(BadInput, match=r"^options: training\.epochs: .*, got 0$"):
        load_config(None, {"training": {"epochs": 0}})
    with pytest.raises(BadInput, match=r"^options: unknown option training\.epoch; there are: epochs"):
        load_config(None, {"training": {"epoch": 1}})


def test_an_override_of_a_group_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("training: 5\n")
    with pytest.raises(BadInput, match="training must be a group of options, got 5"):
        load_config(path, {"training": {"epochs": 3}})


def test_an_updated_copy_has_other_options_and_the_original_keeps_its_own() -> None:
    original = load_config(None, {"study": {"name": "mine"}, "search": {"lr": 1e-3}})
    changed = original.updated({"study": {"n_trials": 3}, "search": {"gamma": 0.5}, "": {"device": "cpu"}})
    assert (changed.study.name, changed.study.n_trials, changed.device) == ("mine", 3, "cpu")
    assert changed.fixed == {"lr": 1e-3, "gamma": 0.5, "scheduler": "step"}
    assert (original.study.n_trials, original.device, original.fixed) == (20, "auto", {"lr": 1e-3})
    assert original.updated({}) == original


def test_several_objectives_go_without_a_pruner(tmp_path: Path) -> None:
    several = ["time_per_atom", "val_energy_mae"]
    config = load(f"study: {{objectives: [{', '.join(several)}]}}", tmp_path)
    assert (config.study.pruner, config.objectives) == ("none", several[::-1])
    for changed in (
        load_config(None, {"study": {"objectives": "time_per_atom, val_energy_mae"}}),
        Config().updated({"study": {"objectives": several}}),
        config.updated({"study": {"n_trials": 5}}),
        Config(**yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))),
    ):
        assert (changed.study.pruner, changed.objectives) == ("none", several[::-1])
    for one in (None, ["val_energy_mae"], "val_energy_mae"):
        changed = Config().updated({"study": {"objectives": one}})
        assert changed.study.pruner == "hyperband"
        assert changed.decided(False).objectives == ["val_energy_mae"]
    with pytest.raises(BadInput, match="pruner must be none, got median"):
        Config().updated({"study": {"objectives": several, "pruner": "median"}})
    with pytest.raises(BadInput, match="sampler cmaes knows one objective only; of several do tpe, random"):
        Config().updated({"study": {"objectives": several, "sampler": "cmaes"}})


def test_an_update_is_checked_like_a_file() -> None:
    with pytest.raises(BadInput, match=r"study\.n_trials: .*, got 0"):
        Config().updated({"study": {"n_trials": 0}})
    with pytest.raises(BadInput, match="unknown option studies"):
        Config().updated({"studies": {"n_trials": 1}})


def test_the_options_of_a_configuration_bring_it_back() -> None:
    config = load_config(None, {"search": {"lr": 1e-3, "num_nodes": {"int": [8, 16], "step": 4}}})
    assert Config(**yaml.safe_load(yaml.safe_dump(config.model_dump()))) == config


def test_options_do_not_change_afterwards() -> None:
    with pytest.raises(ValidationError):
        Config().study.n_trials = 3


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"learning_rate": 0.1}, ["learning_rate", "num_layers", "lr"]),
        ({"lr": -1}, ["lr", "greater than 0"]),
        ({"num_layers": "three"}, ["num_layers"]),
    ],
)
def test_an_enqueued_configuration_that_cannot_be_is_refused(
    tmp_path: Path, entry: dict[str, Any], named: list[str]
) -> None:
    message = refused({"study": {"enqueue": [{}, entry]}}, tmp_path)
    assert "study.enqueue" in message
    for part in named:
        assert part in message


def test_configurations_can_be_enqueued(tmp_path: Path) -> None:
    config = load({"study": {"enqueue": [{"lr": 0.01, "num_layers": 3}, {}]}}, tmp_path)
    assert config.study.enqueue == [{"lr": 0.01, "num_layers": 3}, {}]
    assert load({"study": {"enqueue": []}}, tmp_path).study.enqueue == []


def test_parse_space_gives_the_value_as_its_type() -> None:
    assert parse_space("num_layers", "7", Hyperparameters) == 7
    assert parse_space("lr", 1, Hyperparameters) == 1.0
    assert isinstance(parse_space("lr", 1, Hyperparameters), float)
    with pytest.raises(ValueError, match="unknown hyperparameter 'depth'; there are: num_layers"):
        parse_space("depth", 3, Hyperparameters)


@pytest.mark.parametrize(
    ("descriptor", "named"),
    [
        ({"groups": {0: [1]}}, ["descriptor: groups does not belong to gmp; its options are: name, orders, sigmas"]),
        ({"g2": None, "gamma": 2.0}, ["descriptor: g2, gamma does not belong to gmp"]),
        ({"name": "gmp_groups", "orders": [0]}, ["orders does not belong to gmp_groups", "groups"]),
        ({"name": "gmp_groups", "solid": True}, ["solid does not belong to gmp_groups"]),
        ({"name": "gmp_groups", "groups": {}}, ["descriptor.groups"]),
        ({"name": "gmp_groups", "groups": {10: [1]}}, ["descriptor.groups.10", "less than or equal to 9"]),
        ({"name": "gmp_groups", "groups": {1: 1}}, ["descriptor.groups.1", "list"]),
        ({"name": "gmp_groups", "cutoff": None}, ["cutoff: gmp_groups needs a distance"]),
        (
            {"name": "gmp_groups", "square": False, "scaling": "log"},
            ["scaling: without square the features may be negative"],
        ),
        (
            {"name": "symmetry_functions", "sigmas": 3},
            ["sigmas does not belong to symmetry_functions", "g4", "scaling"],
        ),
        ({"name": "symmetry_functions", "cutoff": None}, ["cutoff: symmetry_functions needs a distance"]),
        ({"name": "symmetry_functions", "elements": []}, ["descriptor.elements"]),
        ({"name": "symmetry_functions", "g2": [1.0]}, ["descriptor.g2", "dict"]),
        ({"name": "symmetry_functions", "gamma": 2.0}, ["gamma belongs to cutoff_function: polynomial"]),
        ({"name": "symmetry_functions", "cutoff_function": "polynomial"}, ["gamma belongs to cutoff_function"]),
        ({"name": "symmetry_functions", "cutoff_function": "cubic"}, ["'cosine', 'polynomial', 'quintic' or 'tanh'"]),
        (
            {"name": "symmetry_functions", "functions": {"H": []}, "g2": {"etas": [1.0], "rs": [0.0]}},
            ["functions are given one by one, or as combinations by g2, g4 and g5; give one of these"],
        ),
        ({"name": "symmetry_functions", "functions": "all"}, ["descriptor.functions", "'auto'"]),
        ({"name": "symmetry_functions", "g3": {}}, ["unknown option descriptor.g3; there are: ", "g2"]),
    ],
)
def test_an_option_that_does_not_fit_the_descriptor_is_refused(
    tmp_path: Path, descriptor: dict[str, Any], named: list[str]
) -> None:
    message = refused({"descriptor": descriptor}, tmp_path)
    for part in named:
        assert part in message


@pytest.mark.parametrize("name", ["gmp", "gmp_groups", "symmetry_functions"])
def test_the_options_of_a_descriptor_are_those_that_it_has_and_come_back_from_json(name: str) -> None:
    options = load_config(None, {"descriptor": {"name": name}}).descriptor
    dumped = options.model_dump()
    assert ("orders" in dumped, "groups" in dumped, "g2" in dumped) == tuple(
        name == other for other in ("gmp", "gmp_groups", "symmetry_functions")
    )
    assert json.loads(json.dumps(dumped)) == dumped
    assert load_config(None, {"descriptor": dumped}).descriptor == options


def options_of(model: type[BaseModel], groups: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every option, by its groups and its name."""
    for name, field in model.model_fields.items():
        yield (*groups, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from options_of(field.annotation, (*groups, name))


WRONG = [{"a": 1}, [1, {"b": 2}], [[]], -7.5, "nonsense", object(), None, True, [], "", {1: [1, "a"]}]
INTERNAL = re.compile(
    r"\.(str|int|float|bool|list|dict|constrained|function|literal|nullable|\[key\])\b", re.IGNORECASE
)


@pytest.mark.parametrize("option", list(options_of(Config)), ids=".".join)
def test_a_message_names_an_option_once_and_no_type_of_pydantics(option: tuple[str, ...]) -> None:
    refused = 0
    for wrong in WRONG:
        content: Any = wrong
        for key in reversed(option):
            content = {key: content}
        try:
            Config(**content)
        except ValidationError as error:
            message = describe(error)
        except ValueError as error:
            message = str(error)
        else:
            continue
        refused += 1
        places = [part.split(": ")[0] for part in message.split("; ")]
        assert not INTERNAL.search(message), message
        assert len(places) == len(set(places)), message
    assert refused or option[-1] == "enqueue"


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"": {"cohort": "many"}}, "cohort: must be 'auto' or a whole number from 1 to 1000, got 'many'"),
        ({"": {"cohort": 0}}, "cohort: must be 'auto' or a whole number from 1 to 1000, got 0"),
        (
            {"training": {"early_stopping": "never"}},
            "training.early_stopping: must be a whole number from 1 to 1000000, 'auto' or null, got 'never'",
        ),
        ({"training": {"forces": 7}}, "training.forces: must be true or false, 'partial' or 'auto', got 7"),
        (
            {"descriptor": {"sigmas": "wide"}},
            "descriptor.sigmas: must be a whole number from 1 to 40 or a list of numbers above 0 and at most 100.0, "
            "got 'wide'",
        ),
        ({"descriptor": {"sigmas": [0.1, "a"]}}, "descriptor.sigmas.1: Input should be a valid number"),
        ({"search": {"descriptor.sigmas": {"choice": ["wide"]}}}, "descriptor.sigmas: must be a whole number from 1"),
    ],
)  # fmt: skip
def test_of_several_types_the_message_names_all(groups: Any, message: str) -> None:
    with pytest.raises(BadInput) as raised:
        load_config(None, groups)
    assert message in str(raised.value)
