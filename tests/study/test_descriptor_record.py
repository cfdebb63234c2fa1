"""A smooth cutoff in what studies and runs record, and records of the time before there was one."""

from typing import Any

import pytest

from bdqm_tune.config.config import Config, load_config
from bdqm_tune.study.descriptor_record import descriptor_record, same_descriptor, with_earlier

FAMILIES = {"choice": ["gmp", "symmetry_functions"]}
SMOOTH = "smooth_cutoff"


def config(descriptor: dict[str, Any] | None = None, **search: Any) -> Config:
    options = {f"descriptor.{name}": entry for name, entry in search.items()}
    return load_config(None, {"descriptor": descriptor or {}, "search": options})


# What a version before the option recorded, the defaults of all others being those of now.
EARLIER = {option: value for option, value in config().descriptor.model_dump().items() if option != SMOOTH}


def test_without_a_smooth_cutoff_the_record_is_that_of_earlier_versions() -> None:
    assert descriptor_record(config({SMOOTH: False})) == EARLIER
    assert descriptor_record(config()) == {**EARLIER, SMOOTH: True}


def test_a_study_of_an_earlier_version_goes_on_without() -> None:
    assert with_earlier(config(), EARLIER).descriptor == config({SMOOTH: False}).descriptor
    assert with_earlier(config(cutoff=5.0), EARLIER).descriptor.cutoff == 5.0
    searched = config({"name": "symmetry_functions"}, name=FAMILIES)
    earlier = {option: value for option, value in descriptor_record(searched).items() if option != SMOOTH}
    assert with_earlier(searched, earlier).descriptor_spaces[SMOOTH].choices == (False,)


@pytest.mark.parametrize(
    "given",
    [
        config({SMOOTH: True}),
        config({SMOOTH: False}),
        config(smooth_cutoff={"choice": [True, False]}),
        config({"name": "symmetry_functions"}),
    ],
)
def test_what_is_given_or_searched_stays(given: Config) -> None:
    assert with_earlier(given, EARLIER) is given


@pytest.mark.parametrize(
    "made",
    [
        config(),
        config(smooth_cutoff={"choice": [True, False]}),
        config(name=FAMILIES),
        config({"name": "symmetry_functions"}, name=FAMILIES),
        config({"name": "symmetry_functions"}),
    ],
)
def test_a_study_of_now_goes_on_as_it_began(made: Config) -> None:
    record = descriptor_record(made)
    assert with_earlier(made, record) is made
    assert same_descriptor(record, record)


def test_a_study_whose_default_was_the_logarithm_goes_on_with_it() -> None:
    earlier = {**EARLIER, "scaling": "log"}
    assert with_earlier(config(), earlier).descriptor.scaling == "log"
    for given in ({"scaling": "whiten"}, {"scaling": "standardise"}):
        kept = with_earlier(config(given | {SMOOTH: False}), earlier)
        assert kept.descriptor.scaling == given["scaling"]
    assert (
        with_earlier(config({SMOOTH: True}), {**earlier, SMOOTH: True, "scaling": "normalise"}).descriptor.scaling
        == "whiten"
    )


def test_a_whitened_study_of_before_the_axis_floor_goes_on_with_the_floor_of_then() -> None:
    earlier = {option: value for option, value in descriptor_record(config()).items() if option != "axis_floor"}
    assert with_earlier(config(), earlier).descriptor.axis_floor == 1e-3
    assert descriptor_record(with_earlier(config(), earlier)) == earlier
    assert with_earlier(config({"axis_floor": 0.1}), earlier).descriptor.axis_floor == 0.1
    assert not same_descriptor(earlier, descriptor_record(config()))


def test_a_study_of_before_symmetry_functions_were_chosen_goes_on_with_those_of_then() -> None:
    then = {"g2": {"etas": [0.05, 0.25, 1.0, 5.0], "rs": [0.0]}}
    then |= {"g4": {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [-1.0, 1.0]}}
    now = config({"name": "symmetry_functions"})
    earlier = {name: value for name, value in descriptor_record(now).items() if "functions" not in name} | then
    earlier["name"] = "symmetry_functions"
    continued = with_earlier(now, earlier).descriptor
    assert {"g2": continued.g2, "g4": continued.g4, "g5": continued.g5} == {**then, "g5": None}
    assert continued.combines
    given = {"g2": {"etas": [1.0], "rs": [0.0]}}
    continued = with_earlier(config({"name": "symmetry_functions", **given}), {**earlier, **given}).descriptor
    assert {"g2": continued.g2, "g4": continued.g4} == {**then, **given}
    assert not now.descriptor.combines
    assert with_earlier(now, descriptor_record(now)) is now


def test_records_agree_where_the_features_do() -> None:
    smooth, abrupt, searched = (
        descriptor_record(each)
        for each in (config(), config({SMOOTH: False}), config(smooth_cutoff={"choice": [True, False]}))
    )
    assert same_descriptor(EARLIER, abrupt)
    assert not same_descriptor(EARLIER, smooth)
    assert not same_descriptor(smooth, abrupt)
    assert same_descriptor(searched, smooth)
    assert same_descriptor(searched, abrupt)
