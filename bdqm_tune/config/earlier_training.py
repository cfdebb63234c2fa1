"""The training options of a study, and a record of the time before one of them existed."""

from collections.abc import Mapping
from typing import Any

from bdqm_tune.config import descriptor_options
from bdqm_tune.config.config import Config, with_training_option

# What an option was before it existed: records of that time, of studies and runs, do not have it.
BEFORE: dict[str, Any] = {"energy_loss": "total"}
FORCE_COEFFICIENT = 0.01  # the default beside them
# Defaults that changed: a study of the time before goes on with its own.
EARLIER_DEFAULTS: dict[str, Any] = {"early_stopping": 30}


def same_training(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two records of training options agree."""
    return {**BEFORE, **then} == {**BEFORE, **now}


def as_before(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without those that say what was so before they existed: equal to a record of that time."""
    return descriptor_options.as_before(options, BEFORE)


def with_earlier_training(config: Config, record: Mapping[str, Any]) -> Config:
    """The configuration with the values that options had, by default or by themselves, at the time of the record.

    Options that the configuration gives keep their values. The same object where nothing changes.

    Args:
        record: the training options of a study or a run.
    """
    earlier = {option: value for option, value in BEFORE.items() if option not in record}
    before: Mapping[str, Any] = config.given()
    content = before
    for option, value in (earlier | {o: v for o, v in EARLIER_DEFAULTS.items() if record.get(o) == v}).items():
        content = with_training_option(content, option, value)
    search = content.get("search", {})
    if earlier and config.training.forces and "force_coefficient" not in search:
        content = {**content, "search": {**search, "force_coefficient": FORCE_COEFFICIENT}}
    return config if content is before else Config(**content)
