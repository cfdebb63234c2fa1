"""amptorch's configuration as ours: each key goes somewhere or is named."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from bdqm_tune.amptorch_import import read_config, translate
from bdqm_tune.cli.main import app
from bdqm_tune.config.config import Config, load_config
from bdqm_tune.errors import BadInput

CONFIG: dict[str, Any] = {
    "model": {
        "name": "singlenn",
        "get_forces": True,
        "num_layers": 3,
        "num_nodes": 20,
        "batchnorm": True,
        "activation": "torch.nn.Tanh",
    },
    "optim": {
        "device": "cpu",
        "gpus": 0,
        "force_coefficient": 0.01,
        "lr": 0.001,
        "batch_size": 16,
        "epochs": 300,
        "loss": "mae",
        "metric": "mae",
        "scheduler": {"policy": "StepLR", "params": {"step_size": 100, "gamma": 0.5}},
    },
    "dataset": {
        "raw_data": "train.traj",
        "val_split": 0.1,
        "elements": ["H", "O"],
        "fp_scheme": "gmpordernorm",
        "fp_params": {
            "MCSHs": {"orders": [0, 1, 2], "sigmas": [0.4, 0.8]},
            "atom_gaussians": {"H": "g/H_pseudodensity_2.g", "O": "g/O_pseudodensity_4.g"},
            "cutoff": 6.0,
        },
        "scaling": {"type": "normalize", "range": [-1, 1], "elementwise": False},
        "save_fps": True,
    },
    "cmd": {"seed": 12, "identifier": "water", "dtype": "torch.FloatTensor", "verbose": True},
}


def test_every_key_goes_somewhere(tmp_path: Path) -> None:
    translation = translate(CONFIG)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(translation.options))
    ours = load_config(path)
    assert ours.spaces == {}
    expected = {
        "network": "single",
        "num_layers": 3,
        "num_nodes": 20,
        "batchnorm": True,
        "activation": "tanh",
        "lr": 0.001,
        "batch_size": 16,
        "force_coefficient": 0.01,
        "scheduler": "step",
        "step_size": 100,
        "gamma": 0.5,
    }
    assert {name: ours.fixed[name] for name in expected} == expected
    assert (ours.training.epochs, ours.training.loss, ours.training.forces) == (300, "mae", True)
    assert (ours.training.precision, ours.study.seed, ours.study.name) == ("float32", 12, "water")
    assert (ours.data.train, ours.data.validation.fraction) == ("train.traj", 0.1)
    assert (ours.descriptor.name, ours.descriptor.orders, ours.descriptor.sigmas) == ("gmp", [0, 1, 2], [0.4, 0.8])
    assert (ours.descriptor.cutoff, ours.descriptor.smooth_cutoff) == (6.0, False)
    assert ours.descriptor.pseudodensities == "g"
    assert (ours.descriptor.scaling, ours.target.scaling) == ("normalise", "mean_deviation")
    assert [entry for entry in translation.unsupported if not entry.harmless] == []
    named = " ".join([theirs for theirs, _ in translation.mapped] + [entry.key for entry in translation.unsupported])
    for group, options in CONFIG.items():
        for key in options:
            assert f"{group}.{key}" in named, (group, key)


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [
        ("model", "activation", "torch.nn.Sigmoid"),
        ("optim", "optimizer", "torch.optim.SGD"),
        ("optim", "metric", "mse"),
        ("optim", "no_such_key", 1),
        ("dataset", "lmdb_path", ["x.lmdb"]),
    ],
)
def test_what_is_not_supported_is_named(group: str, key: str, value: Any) -> None:
    changed = {name: dict(options) for name, options in CONFIG.items()}
    changed[group][key] = value
    translation = translate(changed)
    assert f"{group}.{key}" in [entry.key for entry in translation.unsupported if not entry.harmless]
    assert Config(**translation.options).spaces == {}


def test_features_that_amptorch_got_wrong_are_warned_of() -> None:
    groups, plain = {"5": {"groups": [1, 4], "sigmas": [0.5]}}, {"5": {"groups": [1, 2, 3, 5], "sigmas": [0.5]}}
    cases = [
        ("gmp", groups, True, False, "order 5, group 4"),
        ("gmp", groups, True, True, ""),  # with derivatives amptorch is right
        ("gmp", plain, True, False, ""),
        ("gmpordernorm", {"orders": [1, 9], "sigmas": [0.5]}, True, False, "order 9 of solid harmonics"),
        ("gmpordernorm", {"orders": [1, 9], "sigmas": [0.5]}, True, True, ""),
        ("gmpordernorm", {"orders": [5, 8], "sigmas": [0.5]}, True, False, ""),
    ]
    for scheme, harmonics, solid, forces, wrong in cases:
        params = CONFIG["dataset"]["fp_params"] | {"MCSHs": harmonics, "solid_harmonics": solid}
        dataset = CONFIG["dataset"] | {"fp_scheme": scheme, "fp_params": params}
        model = CONFIG["model"] | {"get_forces": forces}
        warnings = translate({**CONFIG, "dataset": dataset, "model": model}).warnings
        assert [wrong in warning for warning in warnings] == ([True] if wrong else []), (scheme, harmonics, forces)


def test_json_yaml_and_python_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "config"
    python = repr(CONFIG).replace("'torch.nn.Tanh'", "torch.nn.Tanh")
    for text in (json.dumps(CONFIG), yaml.safe_dump(CONFIG), python):
        path.write_text(text)
        assert read_config(path) == CONFIG
    for text, message in (
        ("[1]", "must hold a dict"),
        ("{'a': open('x')}", r"open\('x'\) must be written out"),
        (": :\n-", "neither JSON, nor YAML"),
    ):
        path.write_text(text)
        with pytest.raises(BadInput, match=message):
            read_config(path)


def test_the_command_writes_a_configuration_and_a_model(workdir: Path, shared: Path) -> None:
    Path("amp.json").write_text(json.dumps(CONFIG))
    done = CliRunner().invoke(app, ["import-amptorch", "amp.json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "optim.lr: 0.001" in done.stdout
    assert load_config("amptorch_import.yaml").fixed["lr"] == 0.001
    with pytest.raises(BadInput, match=r"amptorch_import\.yaml exists"):
        CliRunner().invoke(app, ["import-amptorch", "amp.json"], catch_exceptions=False)
    folder = shared / "reference" / "amptorch_checkpoints" / "bpnn_gaussian"
    CliRunner().invoke(app, ["import-amptorch", str(folder)], catch_exceptions=False)
    assert {path.name for path in Path("amptorch_import").iterdir()} == {"potential.json", "potential.safetensors"}
