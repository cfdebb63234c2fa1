"""Descriptors of other packages, as they declare themselves: name, options, and what makes one and reads it again."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import ValidationError

from bdqm_tune.config.options import Options
from bdqm_tune.config.problems import problems
from bdqm_tune.errors import BadInput
from bdqm_tune.plugins import load_plugin


@dataclass(frozen=True)
class DescriptorDeclaration:
    """What a descriptor of another package is, under the entry point `bdqm_tune.descriptors`.

    Attributes:
        name: of the entry point, of `descriptor.name` in configurations, and of `name` in the descriptor's `settings`.
        meaning: one line.
        options: each with a default, a range and a description; `descriptor.options` in a configuration.
        make: `module:callable` of these options and the symbols of the elements in the structures, by atomic number;
            returns a `bdqm_tune.descriptors.Descriptor`, or raises BadInput.
        load: `module:callable` of the `settings` of such a descriptor; returns the same descriptor. What it raises, as
            KeyError or ValueError, means that they are damaged.
    """

    name: str
    meaning: str
    options: type[Options]
    make: str
    load: str


@cache
def find_descriptor(name: str) -> DescriptorDeclaration:
    """The declaration of a descriptor of another package.

    Raises:
        BadInput: none declares it, or its package does not load.
    """
    declared = load_plugin("descriptor", name)
    if not isinstance(declared, DescriptorDeclaration):
        raise BadInput(f"descriptor {name!r}: declares a {type(declared).__name__}, not a DescriptorDeclaration")
    if declared.name != name:
        raise BadInput(f"descriptor {name!r}: its declaration has another name, {declared.name!r}")
    return declared


def checked_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of such a descriptor, as plain JSON values, complete with their defaults.

    Raises:
        ValueError: one is not known, or outside its range.
    """
    declared = find_descriptor(name).options
    if unknown := sorted(options.keys() - declared.model_fields.keys()):
        raise ValueError(f"unknown option {unknown[0]!r} of {name}; there are: {', '.join(declared.model_fields)}")
    try:
        return declared(**options).model_dump(mode="json")
    except ValidationError as error:
        found = problems(error, declared)
        raise ValueError("; ".join(f"{'.'.join(map(str, each.place))}: {each.message}" for each in found)) from None
