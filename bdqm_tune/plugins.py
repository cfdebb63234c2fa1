"""What other packages add, by entry points: found by name and loaded when used; one that fails harms no other."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from bdqm_tune.errors import BadInput, one_line

Kind = Literal["backend", "descriptor", "sampler", "scheduler"]
GROUPS: dict[Kind, str] = {
    "backend": "bdqm_tune.backends",
    "descriptor": "bdqm_tune.descriptors",
    "sampler": "bdqm_tune.samplers",
    "scheduler": "bdqm_tune.schedulers",
}


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


def plugins() -> Iterator[tuple[Kind, str, str, str]]:
    """Of all that packages declare: its kind, name, where it comes from, and why it does not load ("": it does)."""
    for kind, group in GROUPS.items():
        for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
            distribution = "" if entry.dist is None else f" ({entry.dist.name} {entry.dist.version})"
            try:
                _load(kind, entry)
                reason = ""
            except BadInput as error:
                reason = str(error)
            yield kind, entry.name, f"{entry.value}{distribution}", reason


def _load(kind: Kind, entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # whatever a package of others does when it is imported
        message = f"{type(error).__name__}: {one_line(error)}"
        raise BadInput(f"{kind} {entry.name!r}: {entry.value} does not load: {message}") from None
