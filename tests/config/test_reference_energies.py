"""The option `target.reference_energies`, from a file and from the command line."""

import pytest

from bdqm_tune.cli.shared import tune_overrides
from bdqm_tune.config.config import Config, load_config
from bdqm_tune.errors import BadInput


def option(value: object) -> object:
    return load_config(None, {"target": {"reference_energies": value}}).target.reference_energies


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("isolated_atoms", "isolated_atoms"),
        ("IsolatedAtom", "isolated_atoms"),
        ({"Cu": -3.7, "O": "fit"}, {"O": "fit", "Cu": -3.7}),
        ({29: -3, "8": "-4.3e2"}, {"O": -430.0, "Cu": -3.0}),
        ("{Cu: -3.7, O: -1.6e3}", {"O": -1600.0, "Cu": -3.7}),
    ],
)
def test_words_and_energies_by_symbol_or_number(given: object, kept: object) -> None:
    assert option(given) == kept
    config = Config(target={"reference_energies": given})
    assert Config.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("best", "must be fit, isolated_atoms, none"),
        ({}, "must be fit"),
        (["Cu"], "must be fit"),
        ({"Xx": 1.0}, "an element is a symbol"),
        ({False: 1.0}, "an element is a symbol"),
        ({"Cu": "much"}, "Cu: must be an energy in eV"),
        ({"Cu": True}, "Cu: must be an energy in eV"),
        ({"Cu": float("nan")}, "Cu: must be finite"),
        ({"Cu": -3.7, 29: -3.7}, "Cu is given twice"),
        ("{Cu: -3.7", "not valid YAML"),
    ],
)
def test_what_is_no_such_option_is_refused_in_a_line(given: object, named: str) -> None:
    with pytest.raises(BadInput) as error:
        option(given)
    assert named in str(error.value)
    assert "target.reference_energies" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_command_line_sets_it_beside_hyperparameters() -> None:
    text = "lr=1e-3,target.reference_energies={Cu: -3.7, O: fit},descriptor.cutoff=5,training.precision=float64"
    config = load_config(None, tune_overrides({"set": text}))
    assert config.target.reference_energies == {"O": "fit", "Cu": -3.7}
    assert (config.fixed["lr"], config.descriptor.cutoff, config.training.precision) == (1e-3, 5.0, "float64")
    with pytest.raises(BadInput, match="unknown option target.x"):
        load_config(None, tune_overrides({"set": "target.x=1"}))
