"""What a study records of its descriptor, and a record of the time before an option existed."""

from collections.abc import Mapping
from typing import Any

from bdqm_tune.config.config import Config
from bdqm_tune.config.descriptor_options import BEFORE, EARLIER_DEFAULTS, DescriptorFields, as_before, completed
from bdqm_tune.config.descriptor_search import flat, with_option


def descriptor_record(config: Config) -> dict[str, Any]:
    """The options of the descriptor that all trials of a study share; None for a searched one of `BEFORE`.

    Where the family is searched, those of `BEFORE` that others may have are stated as well.
    """
    searched = config.descriptor_spaces
    others = {option: DescriptorFields.model_fields[option].default for option in BEFORE} if "name" in searched else {}
    options = others | flat(config.descriptor.model_dump())
    shared = {option: value for option, value in options.items() if option not in searched}
    return as_before(shared | {option: None for option in BEFORE if option in searched})


def same_descriptor(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two records agree. What one does not have is searched there, or belongs to another descriptor that is."""
    then, now = completed(then), completed(now)
    return all(
        then[option] == now[option] or (option in BEFORE and None in (then[option], now[option]))
        for option in then.keys() & now.keys()
    )


def with_earlier(config: Config, record: Mapping[str, Any]) -> Config:
    """The configuration with the values that options had, by default or by themselves, at the time of the record.

    Options that the configuration gives or searches keep their values. The same object where nothing changes.

    Args:
        record: options of the descriptor, by `descriptor_record` or all of one.
    """
    earlier = {option: value for option, value in completed(record).items() if option not in record}
    earlier |= {option: value for option, value in EARLIER_DEFAULTS.items() if record.get(option) == value}
    earlier = {option: v for option, v in earlier.items() if v != DescriptorFields.model_fields[option].default}
    content: Mapping[str, Any] = config.given()
    before = content
    for option, value in earlier.items():
        content = with_option(content, option, value)
    return config if content is before else Config(**content)
