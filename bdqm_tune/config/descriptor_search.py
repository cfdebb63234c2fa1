"""A searched descriptor: the configured one, with some of its options chosen by every trial."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from bdqm_tune.config.descriptor_options import (
    DEPENDENT,
    DESCRIPTORS,
    OWN,
    DescriptorFields,
    DescriptorOptions,
    conditions,
    counts,
)
from bdqm_tune.config.descriptor_plugins import find_descriptor
from bdqm_tune.config.spaces import DESCRIPTOR, Space, check_value, is_space, kind_of

OPTIONS = tuple(option for option in DescriptorFields.model_fields if option != "options")


def descriptor_spaces(spaces: Mapping[str, Space]) -> dict[str, Space]:
    """Those of the spaces that are of the descriptor's options, by the options' names, in the order of these."""
    found, _ = apart(spaces)
    return {option: found[option] for option in in_order(found)}


def in_order(options: Iterable[str]) -> list[str]:
    """These options of descriptors, in the order of their suggestion; those of other packages come last."""
    return sorted(options, key=lambda option: (OPTIONS.index(option) if option in OPTIONS else len(OPTIONS), option))


def flat(descriptor: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a descriptor, those that another package declares each by its name, as `options.width`."""
    own = {OWN + option: value for option, value in descriptor.get("options", {}).items()}
    return {option: value for option, value in descriptor.items() if option != "options"} | own


def apart(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The descriptor's options, by their names in it, and the hyperparameters among values named as in `search`."""
    options = {name for name in values if name.startswith(DESCRIPTOR)}
    return (
        {name.removeprefix(DESCRIPTOR): values[name] for name in values if name in options},
        {name: values[name] for name in values if name not in options},
    )


def chosen_descriptor(base: DescriptorOptions, chosen: Mapping[str, Any]) -> DescriptorOptions:
    """The descriptor `base` with other values of some options, as Optuna holds them.

    What the chosen descriptor does not have is left out; what it has and `base` does not has its default.

    Raises:
        ValidationError: the options do not fit each other.
    """
    given = {option: check_value(DESCRIPTOR + option, value) for option, value in chosen.items()}
    own = {option.removeprefix(OWN): value for option, value in given.items() if option.startswith(OWN)}
    values = base.model_dump() | {option: value for option, value in given.items() if not option.startswith(OWN)}
    if own:
        values["options"] = {**values.get("options", {}), **own}
    return DescriptorOptions(**{option: value for option, value in values.items() if counts(option, values)})


def examples(
    base: DescriptorOptions, spaces: Mapping[str, Space], over: tuple[str, ...]
) -> Iterator[tuple[dict[str, Any], DescriptorOptions]]:
    """Choices and the descriptors that they make: all combinations of the options in `over`, and with each of these
    every choice, and both ends of every range, of every other option at least once.

    Raises:
        ValueError: options that do not fit each other; the message names the choices.
    """
    values = {option: _values(space) for option, space in spaces.items()}
    crossed = [option for option in values if option in over]
    others = {option: values[option] for option in values if option not in over}
    for combination in itertools.product(*(values[option] for option in crossed)):
        for i in range(max(map(len, others.values()), default=1)):
            chosen = dict(zip(crossed, combination, strict=True))
            chosen |= {option: found[i % len(found)] for option, found in others.items()}
            try:
                descriptor = chosen_descriptor(base, chosen)
            except ValidationError as error:
                message = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"search: a trial could have {options_text(base, chosen)}: {message}") from None
            yield chosen, descriptor


def check_search(base: DescriptorOptions, spaces: Mapping[str, Space]) -> None:
    """Raise ValueError if a trial could be given options that do not fit, or one that never counts is searched."""
    given = base.model_dump()
    for option in spaces:
        if option.startswith(OWN):
            _check_own(base, option, spaces)
        for parent, needed in conditions(option):
            possible = _values(spaces[parent]) if parent in spaces else [given.get(parent)]
            if not set(possible) & set(needed):
                names = " or ".join(needed)
                raise ValueError(
                    f"search.{DESCRIPTOR}{option}: counts only where {DESCRIPTOR}{parent} is {names}, which it never is"
                )
    for _ in examples(base, spaces, DEPENDENT):
        pass


def _check_own(base: DescriptorOptions, option: str, spaces: Mapping[str, Space]) -> None:
    """Raise ValueError unless a range or choice is of an option that the descriptor, of another package, declares."""
    name, space = f"search.{DESCRIPTOR}{option}", spaces[option]
    if "name" in spaces:
        raise ValueError(f"{name}: belongs to one descriptor; fix {DESCRIPTOR}name")
    if base.name in DESCRIPTORS:
        raise ValueError(f"{name}: {base.name} is no descriptor of another package; its options have no {OWN!r}")
    fields = find_descriptor(base.name).options.model_fields
    if (field := option.removeprefix(OWN)) not in fields:
        raise ValueError(f"{name}: {base.name} has no such option; there are: {', '.join(fields)}")
    if space.kind != "choice" and space.kind != (kind := kind_of(fields[field].annotation)):
        raise ValueError(f"{name}: {space.kind} does not fit a {kind}")


def options_text(base: DescriptorOptions, chosen: Mapping[str, Any]) -> str:
    """Those of the chosen options that the descriptor uses, as `NAME=VALUE, …`."""
    values = base.model_dump() | dict(chosen)
    return ", ".join(f"{DESCRIPTOR}{option}={value}" for option, value in chosen.items() if counts(option, values))


def with_fixed_options(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The content of a configuration with the plain values of `search` moved to `descriptor`.

    One that the configured descriptor does not have, but others that are searched do, becomes a choice of one.

    Raises:
        ValueError: a value that cannot be, or another than `descriptor` has.
    """
    search, base = content.get("search"), content.get("descriptor", {})
    base = base.model_dump(exclude_unset=True) if isinstance(base, BaseModel) else base
    if not isinstance(search, Mapping) or not isinstance(base, Mapping):
        return content  # which is refused later
    fixed = {name: entry for name, entry in search.items() if is_fixed_option(name, entry)}
    if not fixed:
        return content
    searched, options = {name: entry for name, entry in search.items() if name not in fixed}, dict(base)
    values = {name.removeprefix(DESCRIPTOR): check_value(name, entry) for name, entry in fixed.items()}
    for option in in_order(values):  # those first that others depend on
        name, value = DESCRIPTOR + option, values[option]
        if option.startswith(OWN):
            own, field = options.get("options", {}), option.removeprefix(OWN)
            if not isinstance(own, Mapping):
                return content  # which is refused later
            if field in own and own[field] != value:
                raise ValueError(f"search.{name} is {value}, but {name} {own[field]}; give one or the other")
            options["options"] = {**own, field: value}
        elif not counts(option, options) and any(DESCRIPTOR + parent in searched for parent, _ in conditions(option)):
            searched[name] = {"choice": [value]}
        elif option in options and check_value(name, options[option]) != value:
            raise ValueError(f"search.{name} is {value}, but {name} {options[option]}; give one or the other")
        else:
            options[option] = value
    return {**content, "search": searched, "descriptor": options}


def with_option(content: Mapping[str, Any], option: str, value: Any) -> Mapping[str, Any]:
    """The content of a configuration with a value for an option of the descriptor that it neither gives nor searches.

    It is unchanged if no descriptor that a trial could have takes the option.
    """
    search, base = content.get("search", {}), content.get("descriptor", {})
    base = base.model_dump(exclude_unset=True) if isinstance(base, BaseModel) else base
    if not isinstance(search, Mapping) or not isinstance(base, Mapping):
        return content  # which is refused later
    if option in base or DESCRIPTOR + option in search:
        return content
    names = search.get(DESCRIPTOR + "name", base.get("name", DescriptorFields.model_fields["name"].default))
    names = names.get("choice") if isinstance(names, Mapping) else [names]
    if not isinstance(names, list | tuple) or not any(counts(option, {**base, "name": name}) for name in names):
        return content
    return {**content, "search": {**search, DESCRIPTOR + option: value}}


def is_fixed_option(name: Any, entry: Any) -> bool:
    """Whether an entry of `search` fixes an option of the descriptor."""
    return isinstance(name, str) and name.startswith(DESCRIPTOR) and not is_space(name, entry)


def _values(space: Space) -> list[Any]:
    return list(space.choices) if space.kind == "choice" else [space.low, space.high]
