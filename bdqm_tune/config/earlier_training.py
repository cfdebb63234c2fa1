"""The training options of a study, and a record of the time before one of them existed."""

import json
from collections.abc import Mapping
from typing import Any

from bdqm_tune.config import descriptor_options
from bdqm_tune.config.config import Config, Training
from bdqm_tune.config.hyperparameters import AMPOPT_SEARCH, DEFAULT_SEARCH, Hyperparameters, excluded_by
from bdqm_tune.config.options import with_training_option
from bdqm_tune.config.spaces import is_space, parse_space

# What an option was before it existed: records of that time, of studies and runs, do not have it.
BEFORE: dict[str, Any] = {
    "energy_loss": "total",
    "smoothing": 1,
    "huber_delta": 0.01,
    "stress": False,
    "energy_stage": 1.0,
}
FORCE_COEFFICIENT = 0.01  # the default beside them
# Defaults that changed: a study of the time before goes on with its own.
EARLIER_DEFAULTS: dict[str, Any] = {"early_stopping": 30}
# Default search spaces of earlier versions, of energies alone and of forces, the earliest first.
EARLIER_SEARCHES: tuple[dict[str, Any], ...] = (
    AMPOPT_SEARCH,
    DEFAULT_SEARCH | {"activation": AMPOPT_SEARCH["activation"], "batch_size": {"int": [1, 16], "log": True}},
)


def same_training(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two records of training options agree."""
    return {**BEFORE, **then} == {**BEFORE, **now}


def training_differences(then: Mapping[str, Any], now: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """The options that differ between two records, as `stress: false then, auto now, which comes to true`.

    Args:
        given: the options of now as the user has them, where the data have not decided their `auto`.
    """
    lines = []
    for option, value in {**BEFORE, **now}.items():
        before, text = {**BEFORE, **then}.get(option), json.dumps(value)
        if before != value:
            text = f"auto now, which comes to {text}" if given.get(option) == "auto" != value else f"{text} now"
            lines.append(f"{option}: {json.dumps(before)} then, {text}")
    return lines


def as_before(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without those that say what was so before they existed: equal to a record of that time."""
    return descriptor_options.as_before(options, BEFORE)


def with_earlier_training(config: Config, record: Mapping[str, Any]) -> Config:
    """The configuration with the values that options had, by default or by themselves, at the time of the record.

    Options that the configuration gives keep their values. The same object where nothing changes.

    Args:
        record: the training options of a study or a run.
    """
    default_of = {option: Training.model_fields[option].default for option in BEFORE}
    earlier = {o: value for o, value in BEFORE.items() if o not in record and value != default_of[o]}
    before: Mapping[str, Any] = config.given()
    content = before
    for option, value in (earlier | {o: v for o, v in EARLIER_DEFAULTS.items() if record.get(o) == v}).items():
        content = with_training_option(content, option, value)
    search = content.get("search", {})
    default = DEFAULT_SEARCH["force_coefficient"]
    if "energy_loss" in earlier and config.training.forces and search.get("force_coefficient", default) == default:
        content = {**content, "search": {**search, "force_coefficient": FORCE_COEFFICIENT}}
    return config if content is before else Config(**content)


def with_earlier_search(config: Config, searched: Mapping[str, Any]) -> Config:
    """The configuration with the default search space of the version that made a study, where it has another.

    What the configuration gives stays. The same object where nothing changes.

    Args:
        searched: what the trials of the study were drawn from: hyperparameter → its choices, None for a range.
    """
    if config.declared.hyperparameters is not Hyperparameters:
        return config
    given = {name: entry for name, entry in config.search.items() if DEFAULT_SEARCH.get(name) != entry}
    searched = {name: choices for name, choices in searched.items() if name not in given}
    for earlier in EARLIER_SEARCHES:
        merged = {name: entry for name, entry in earlier.items() if name not in excluded_by(given)} | given
        if merged != config.search and _could_be_of(searched, merged) and not _could_be_of(searched, config.search):
            return config.updated({"": {"search": merged}})
    return config


def _could_be_of(searched: Mapping[str, Any], search: Mapping[str, Any]) -> bool:
    """Whether all that trials were drawn from is in a search space, with the same choices."""
    return all(
        is_space(name, search.get(name)) and choices in (None, parse_space(name, search[name], Hyperparameters).choices)
        for name, choices in searched.items()
    )
