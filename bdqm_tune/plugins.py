"""What other packages add, by entry points: found by name and loaded when used; one that fails harms no other."""

from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, NamedTuple

from bdqm_tune.errors import BadInput, one_line

Kind = Literal["backend", "descriptor", "sampler", "scheduler"]
GROUPS: dict[Kind, str] = {
    "backend": "bdqm_tune.backends",
    "descriptor": "bdqm_tune.descriptors",
    "sampler": "bdqm_tune.samplers",
    "scheduler": "bdqm_tune.schedulers",
}


class Plugin(NamedTuple):
    """What a package declares."""

    kind: Kind
    name: str
    where: str  # module:object, and the distribution with its version
    problem: str  # why it does not load, or is not used; "": it is fine


def plugin_names(kind: Kind) -> list[str]:
    """The names that other packages declare, in alphabetical order."""
    return sorted(entry_points(group=GROUPS[kind]).names)


def load_plugin(kind: Kind, name: str) -> Any:
    """What a package declares under this name.

    Raises:
        BadInput: none does, or it does not load; the message has the reason.
    """
    found = entry_points(group=GROUPS[kind])
    if name not in found.names:
        raise BadInput(f"no package declares a {kind} {name!r} under {GROUPS[kind]}")
    return _load(kind, found[name])


def plugins(built_in: Mapping[Kind, Collection[str]]) -> Iterator[Plugin]:
    """All that packages declare, each loaded once.

    Args:
        built_in: the names that have a meaning already, which a package cannot replace.
    """
    for kind, group in GROUPS.items():
        known = dict.fromkeys(built_in.get(kind, ()), "bdqm-tune")
        for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
            distribution = "" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
            problem = ""
            if entry.name in known:
                problem = f"is not used: {known[entry.name]} has a {kind} of this name"
            else:
                try:
                    _load(kind, entry)
                except BadInput as error:
                    problem = str(error)
            known.setdefault(entry.name, distribution or entry.value)
            yield Plugin(kind, entry.name, f"{entry.value}{f' ({distribution})' if distribution else ''}", problem)


def _load(kind: Kind, entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except (Exception, SystemExit) as error:  # whatever a package of others does when it is imported
        message = f"{type(error).__name__}: {one_line(error)}"
        raise BadInput(f"{kind} {entry.name!r}: {entry.value} does not load: {message}") from None
