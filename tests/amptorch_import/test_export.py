"""Our configuration as amptorch's: it says the same there, and what it cannot say is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bdqm_tune.amptorch_import import export, export_config, read_config, translate
from bdqm_tune.amptorch_import.record import Unsupported
from bdqm_tune.backends import amptorch
from bdqm_tune.cli.main import app
from bdqm_tune.config.config import Config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput

AMPTORCHS = {"objective": "val_energy_mae", "reference_energies": "none", "scaling": "mean_deviation"}
FIXED: dict[str, Any] = {
    "num_layers": 3,
    "num_nodes": 20,
    "activation": "gelu",
    "batchnorm": True,
    "dropout": True,
    "dropout_rate": 0.2,
    "initialization": "xavier",
    "network": "per_element",
    "optimizer": "adam",
    "lr": 0.02,
    "batch_size": 8,
    "scheduler": "none",
    "force_coefficient": 0.3,
}
# g2 for all elements; for some of them
SYMMETRY = {
    "name": "symmetry_functions",
    "elements": ["Cu", "O"],
    "cutoff": 5.0,
    "g2": {"etas": [0.5, 1.0], "rs": [0.0, 1.5]},
    "g4": {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [-1.0, 1.0]},
    "cutoff_function": "polynomial",
    "gamma": 2.0,
    "scaling": "standardise",
}
GROUPS = {
    "name": "gmp_groups",
    "groups": {0: [1], 2: [1, 2]},
    "sigmas": [0.5, 1.0],
    "cutoff": 5.0,
    "smooth_cutoff": False,
    "square": False,
    "scaling": "normalise",
    "scaling_range": [-1.0, 1.0],
    "scaling_per_element": True,
    "pseudodensities": "densities",
}
GMP = {
    "name": "gmp",
    "orders": [0, 1, 2],
    "sigmas": [0.5, 1.0],
    "cutoff": None,
    "smooth_cutoff": False,
    "solid": False,
    "scaling": "standardise",
    "pseudodensities": "densities",
}


def config(descriptor: dict[str, Any], search: dict[str, Any] | None = None, **training: Any) -> Config:
    return Config(
        data={"train": "train.traj", "validation": {"fraction": 0.2}},  # type: ignore[arg-type]
        descriptor=descriptor,  # type: ignore[arg-type]
        target=AMPTORCHS,  # type: ignore[arg-type]
        training={
            **{
                "epochs": 40,
                "loss": "mse",
                "energy_loss": "total",
                "smoothing": 1,
                "forces": True,
                "precision": "float64",
            },
            "early_stopping": 30,
            **training,
        },  # type: ignore[arg-type]
        search={**FIXED, **(search or {})},
        study={"name": "water", "seed": 3, "n_trials": 1, "pruner": "none"},  # type: ignore[arg-type]
        device="cpu",
    )


@pytest.fixture(autouse=True)
def densities(workdir: Path) -> Path:
    """A folder with pseudo-densities, by a relative path."""
    folder = workdir / "densities"
    folder.mkdir()
    for symbol in ("Cu", "O"):
        (folder / f"{symbol}_pseudodensity.g").write_text("1.0 2.0\n")
    return folder


@pytest.mark.parametrize("descriptor", [GMP, GROUPS, SYMMETRY], ids=lambda options: options["name"])
@pytest.mark.parametrize(
    "search",
    [
        {},
        {"optimizer": "adamw", "weight_decay": 0.1, "network": "single"},
        {"scheduler": "step", "gamma": 0.3, "step_size": 7},
        {"scheduler": "cosine", "initialization": "default"},
        {"scheduler": "one_cycle", "optimizer": "lbfgs"},
        {"scheduler": "plateau", "gamma": 0.3, "step_size": 7},
    ],
    ids=lambda search: "-".join(map(str, search.values())) or "plain",
)
def test_there_and_back_it_is_the_same(descriptor: dict[str, Any], search: dict[str, Any]) -> None:
    ours = config(descriptor, search)
    exported, lost = export_config(ours)
    assert lost == []
    back = translate(json.loads(json.dumps(exported)))
    assert [entry for entry in back.unsupported if not entry.harmless] == []
    found = Config(**back.options)
    assert found.descriptor == ours.descriptor
    assert (found.data, found.target, found.training) == (ours.data, ours.target, ours.training)
    assert (found.study, found.device) == (ours.study, ours.device)
    assert {name: found.fixed[name] for name in ours.fixed} == ours.fixed


def test_layers_of_different_widths_and_a_stopped_training_go_too() -> None:
    ours = config(GMP, early_stopping=7).updated({"search": {"hidden_layers": [9, 5]}})
    exported, lost = export_config(ours)
    assert exported["model"]["hidden_layers"] == [9, 5]
    assert lost == []
    found = Config(**translate(exported).options)
    assert found.fixed["hidden_layers"] == [9, 5]
    assert found.training.early_stopping == 7


def test_functions_of_an_element_of_its_own() -> None:
    g2 = {"O": {"etas": [2.0], "rs": [0.0]}, "default": {"etas": [1.0], "rs": [0.0]}}
    exported, _ = export_config(config({**SYMMETRY, "g2": g2}))
    params = exported["dataset"]["fp_params"]
    assert params["O"]["G2"] == {"etas": [2.0], "rs_s": [0.0]}
    assert params["O"]["G4"] == params["default"]["G4"]
    assert Config(**translate(exported).options).descriptor.g2 == g2


def test_what_amptorch_cannot_hold_is_named() -> None:
    exported, lost = export_config(Config())
    named = {entry.key for entry in lost}
    assert named >= {
        "data.train",
        "descriptor.scaling",
        "descriptor.smooth_cutoff",
        "descriptor.pseudodensities",
        "search.initialization",
        "search.lr",
        "target.reference_energies",
        "target.scaling",
    }
    assert exported["optim"]["lr"] == 3e-3  # the default, which a study tries first
    enqueued = Config(study={"enqueue": [{"lr": 0.5}]})  # type: ignore[arg-type]
    assert export_config(enqueued)[0]["optim"]["lr"] == 0.5


def test_functions_that_are_chosen_and_other_cutoff_functions_are_reported() -> None:
    options = {"name": "symmetry_functions"}
    for given, expected in (
        ({}, {"descriptor.functions"}),
        ({"cutoff_function": "tanh"}, {"descriptor.functions", "descriptor.cutoff_function"}),
        ({"g2": {"etas": [1.0], "rs": [0.0]}}, set()),
    ):
        exported, unsupported = export_config(config({**options, **given}))
        named = {entry.key for entry in unsupported if entry.key.startswith("descriptor.")}
        assert named - {"descriptor.scaling"} == expected
        assert exported["dataset"]["cutoff_params"] == {"cutoff_func": "Cosine"}


def test_a_hyperparameter_that_one_of_both_does_not_know_is_reported_and_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (export, amptorch):
        assert Hyperparameters.model_fields.keys() >= module.KNOWN
        monkeypatch.setattr(module, "KNOWN", module.KNOWN - {"batchnorm"})
    for value, expected in ((True, ["search.batchnorm"]), (False, [])):
        ours = config(GMP, {"batchnorm": value})
        assert [entry.key for entry in export_config(ours)[1]] == expected
    with pytest.raises(BadInput, match="backend amptorch: it does not know batchnorm=True"):
        amptorch.trainer_config(ours, Hyperparameters(batchnorm=True), 0)
    assert amptorch.trainer_config(ours, Hyperparameters(), 0)["optim"]["lr"] == Hyperparameters().lr


def test_a_descriptor_that_amptorch_does_not_have_is_reported() -> None:
    ours = config(GMP)
    other = ours.model_copy(update={"descriptor": ours.descriptor.model_copy(update={"name": "soap"})})
    unsupported: list[Unsupported] = []
    assert "fp_scheme" not in export._dataset(other, unsupported)
    assert [(entry.key, entry.why) for entry in unsupported] == [
        ("descriptor.name", "amptorch has no soap; no fp_scheme is written")
    ]


def test_features_that_amptorch_gets_wrong_are_named() -> None:
    cases: list[tuple[dict[str, Any], bool, str]] = [
        (GROUPS | {"groups": {5: [4]}}, False, "amptorch gets wrong: order 5, group 4"),
        (GROUPS | {"groups": {5: [4]}}, True, ""),
        (GROUPS | {"groups": {5: [3]}}, False, ""),
        (GROUPS | {"groups": {1: [1], 6: [2]}}, True, "groups beyond order 5, which are 0 there"),
        (GMP | {"orders": [9]}, True, "order 9 of surface harmonics"),
        (GMP | {"orders": [9], "solid": True}, False, "order 9 of solid harmonics"),
        (GMP | {"orders": [9], "solid": True}, True, ""),
    ]
    for descriptor, forces, wrong in cases:
        _, unsupported = export_config(config(descriptor, forces=forces))
        found = [entry.why for entry in unsupported if entry.key in ("descriptor.groups", "descriptor.orders")]
        assert [wrong in why for why in found] == ([True] if wrong else []), (descriptor, forces)


@pytest.mark.parametrize("name", ["amptorch.json", "amptorch.yaml"])
def test_the_command_writes_what_the_import_reads(name: str) -> None:
    Path("ours.yaml").write_text("search: {lr: 0.5}\n")
    done = CliRunner().invoke(app, ["export-amptorch", "ours.yaml", "--out", name], catch_exceptions=False)
    assert done.exit_code == 0
    assert "target.reference_energies" in done.stdout
    assert read_config(name)["optim"]["lr"] == 0.5
    with pytest.raises(BadInput, match="exists"):
        CliRunner().invoke(app, ["export-amptorch", "ours.yaml", "--out", name], catch_exceptions=False)
    with pytest.raises(BadInput, match=r"must end in \.json or \.yaml, got x\.txt"):
        CliRunner().invoke(app, ["export-amptorch", "ours.yaml", "--out", "x.txt"], catch_exceptions=False)
