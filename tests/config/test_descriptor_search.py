"""Options of the descriptor in the search space: as choices and ranges, fixed, and refused."""

import json
from typing import Any

import pytest
import yaml

from bdqm_tune.config.config import Config, load_config
from bdqm_tune.config.descriptor_options import DESCRIPTORS, DescriptorFields, DescriptorOptions
from bdqm_tune.config.descriptor_search import chosen_descriptor
from bdqm_tune.config.spaces import Space
from bdqm_tune.errors import BadInput


def searching(descriptor: dict[str, Any] | None = None, **search: Any) -> Config:
    """The configuration of a file with these options in `descriptor`, and these of the descriptor in `search`."""
    options = {f"descriptor.{option}": entry for option, entry in search.items()}
    try:
        return Config(**{"descriptor": descriptor or {}, "search": options})  # type: ignore[arg-type]
    except ValueError as error:
        raise BadInput(str(error)) from None


BOTH = {"choice": ["gmp", "gmp_groups"]}


@pytest.mark.parametrize(
    ("option", "entry", "expected"),
    [
        ("name", BOTH, Space(kind="choice", choices=("gmp", "gmp_groups"))),
        ("orders", {"choice": [[0, 1], [0, 1, 2, 3]]}, Space(kind="choice", choices=("[0, 1]", "[0, 1, 2, 3]"))),
        ("sigmas", {"int": [3, 8]}, Space(kind="int", low=3, high=8)),
        ("sigmas", {"choice": [5, [0.1, 2]]}, Space(kind="choice", choices=(5, "[0.1, 2.0]"))),
        ("cutoff", {"float": [4, 8], "step": 1}, Space(kind="float", low=4, high=8, step=1)),
        ("cutoff", {"choice": [4, None]}, Space(kind="choice", choices=(4.0, "null"))),
        ("square", {"choice": [True, False]}, Space(kind="choice", choices=(True, False))),
        ("scaling", {"choice": ["log", "normalise"]}, Space(kind="choice", choices=("log", "normalise"))),
    ],
)
def test_every_option_can_be_searched(option: str, entry: Any, expected: Space) -> None:
    config = searching(**{option: entry})
    assert config.descriptor_spaces == {option: expected}
    assert config.spaces[f"descriptor.{option}"] == expected
    assert Config(**yaml.safe_load(yaml.safe_dump(config.model_dump()))) == config == config.updated({})


@pytest.mark.parametrize(
    ("option", "value"),
    [("orders", [0, 2]), ("cutoff", 5.0), ("sigmas", [0.2, 1.0]), ("name", "symmetry_functions"), ("solid", False)],
)
def test_a_plain_value_is_the_same_as_one_of_the_descriptor(option: str, value: Any) -> None:
    expected = Config(descriptor={option: value})  # type: ignore[arg-type]
    assert (
        searching(**{option: value})
        == searching(**{option: value if isinstance(value, str) else json.dumps(value)})
        == expected
    )
    assert searching({option: value}, **{option: value}) == expected


def test_two_plain_values_are_refused_unless_one_is_an_override() -> None:
    with pytest.raises(BadInput, match=r"search\.descriptor\.cutoff is 5\.0, but descriptor\.cutoff 6\.0; give one"):
        searching({"cutoff": 6.0}, cutoff=5.0)
    there = Config(descriptor={"cutoff": 6.0}, search={"descriptor.cutoff": {"float": [4, 8]}})  # type: ignore[arg-type]
    for given in (there, Config()):
        changed = given.updated({"search": {"descriptor.cutoff": "5", "descriptor.orders": "[0, 1]"}})
        assert (changed.descriptor.cutoff, changed.descriptor.orders) == (5.0, [0, 1])
        assert changed.descriptor_spaces == {}


def test_a_plain_value_for_one_of_the_searched_descriptors_is_a_choice_of_one() -> None:
    config = searching(name=BOTH, groups={0: [1], 2: [1, 2]})
    assert config.descriptor.name == "gmp"
    assert config.descriptor_spaces["groups"].choices == ('{"0": [1], "2": [1, 2]}',)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"groups": {0: [1]}}, r"groups does not belong to gmp; its options are"),
        (
            {"groups": {"choice": [{0: [1]}]}},
            r"groups: counts only where descriptor.name is gmp_groups, which it never",
        ),
        (
            {"name": BOTH, "cutoff": {"choice": [6, None]}},
            "name=gmp_groups, descriptor.cutoff=null: cutoff: gmp_groups",
        ),
        (
            {"name": BOTH, "square": {"choice": [True, False]}, "scaling": {"choice": ["log", "whiten"]}},
            "square=False, descriptor.scaling=log: scaling: without square the features may",
        ),
        (
            {"name": "symmetry_functions", "cutoff_function": {"choice": ["cosine", "polynomial"]}},
            "cutoff_function=polynomial: gamma belongs to cutoff_function: polynomial, which needs it",
        ),
        ({"gamma": {"float": [1.0, 3.0]}}, "gamma: counts only where descriptor.cutoff_function is polynomial"),
        ({"scaling_range": {"choice": [[0, 2]]}}, "scaling_range: counts only where descriptor.scaling is normalise"),
        ({"orders": {"int": [0, 3]}}, "descriptor.orders: int does not fit a list"),
        ({"groups": {"int": [0, 3]}}, "descriptor.groups: int does not fit a mapping"),
        ({"square": {"int": [0, 1]}}, "descriptor.square: int does not fit a bool"),
        ({"orders": {"choice": [[0, 12]]}}, r"descriptor.orders: .*less than or equal to 9, got \[0, 12\]"),
        ({"orders": "[0, 1"}, r"descriptor.orders: not a list or a mapping: '\[0, 1'"),
        ({"sigmas": {"int": [0, 3]}}, "descriptor.sigmas: must be a whole number from 1 to 40 .*, got 0"),
        ({"cutoff": {"float": [None, 3]}}, "descriptor.cutoff: float needs two numbers"),
        ({"name": {"choice": ["gmp", "soap"]}}, "descriptor.name: .*'gmp_groups'.*, got 'soap'"),
        ({"cutof": 5}, "unknown option of the descriptor 'descriptor.cutof'; there are: name, orders"),
        ({"cutof": {"float": [4, 5]}}, "unknown option of the descriptor 'descriptor.cutof'"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_any_trial(search: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        searching(**search)
    with pytest.raises(BadInput, match=message) as caught:
        load_config(None, {"search": {f"descriptor.{option}": entry for option, entry in search.items()}})
    assert "\n" not in str(caught.value)


def test_a_condition_that_can_be_met_is_no_obstacle() -> None:
    functions = {"choice": ["gmp", "symmetry_functions"]}
    config = searching(name=functions, cutoff_function={"choice": ["cosine", "polynomial"]}, gamma=2.0)
    assert config.descriptor_spaces["gamma"].choices == (2.0,)
    assert searching(name=BOTH, square={"choice": [True, False]}, scaling="standardise").descriptor_spaces


def test_a_chosen_descriptor_has_its_own_options_only() -> None:
    base = DescriptorOptions(orders=[0, 1], sigmas=3, cutoff=5.0)
    assert chosen_descriptor(base, {}) == base
    found = chosen_descriptor(base, {"name": "gmp_groups", "groups": '{"1": [1]}', "orders": "[0]"})
    assert found == DescriptorOptions(name="gmp_groups", groups={1: [1]}, sigmas=3, cutoff=5.0)
    polynomial = DescriptorOptions(name="symmetry_functions", cutoff_function="polynomial", gamma=2.0)
    assert chosen_descriptor(polynomial, {"cutoff_function": "cosine"}).gamma is None


def test_every_option_has_its_descriptors() -> None:
    """A new option that is not in the table would be taken for one of all descriptors."""
    common = {"name", "options", "scaling", "scaling_range", "scaling_per_element", "axis_floor", "logarithm"}
    assert set().union(*DESCRIPTORS.values()) | common == DescriptorFields.model_fields.keys()


def test_enqueued_configurations_may_choose_the_descriptor() -> None:
    config = Config(study={"enqueue": [{"descriptor.orders": [0, 1], "lr": 1e-3}]})  # type: ignore[arg-type]
    assert config.study.enqueue[0]["descriptor.orders"] == [0, 1]
    with pytest.raises(ValueError, match=r"study\.enqueue: descriptor\.cutoff: .*greater than 0, got -1"):
        Config(study={"enqueue": [{"descriptor.cutoff": -1}]})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({}, False),
        ({"descriptor.smooth_cutoff": False}, False),
        ({"descriptor.name": BOTH}, False),
        ({"descriptor.name": {"choice": ["symmetry_functions", "gmp"]}}, False),
    ],
)
def test_for_amptorch_the_cutoff_is_not_smooth_unless_it_is_asked_for(search: dict[str, Any], expected: bool) -> None:
    config = load_config(None, {"search": search, "": {"backend": "amptorch"}})
    assert config.descriptor.smooth_cutoff is expected
    assert load_config(None, {"search": search}).updated({"": {"backend": "amptorch"}}).descriptor == config.descriptor
    assert config.updated({"": {"backend": "native"}}).descriptor.smooth_cutoff is expected
    assert load_config(None, {"search": search}).descriptor.smooth_cutoff is search.get(
        "descriptor.smooth_cutoff", True
    )


def test_where_only_some_searched_descriptors_have_a_smooth_cutoff_amptorch_chooses_none_for_them() -> None:
    base = {"name": "symmetry_functions"}
    search = {"descriptor.name": {"choice": ["symmetry_functions", "gmp"]}}
    config = load_config(None, {"descriptor": base, "search": search, "": {"backend": "amptorch"}})
    assert config.descriptor_spaces["smooth_cutoff"].choices == (False,)
    symmetry = load_config(None, {"descriptor": base, "": {"backend": "amptorch"}})
    assert symmetry.descriptor == load_config(None, {"descriptor": base}).descriptor
    assert symmetry.descriptor_spaces == {}


@pytest.mark.parametrize(
    "groups",
    [
        {"descriptor": {"smooth_cutoff": True}},
        {"search": {"descriptor.smooth_cutoff": True}},
        {"search": {"descriptor.smooth_cutoff": {"choice": [True, False]}}},
    ],
)
def test_amptorch_has_no_smooth_cutoff(groups: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="smooth_cutoff: amptorch has no smooth cutoff; leave it out or set it to false"):
        load_config(None, groups | {"": {"backend": "amptorch"}})
