"""The translation of an amptorch configuration: our options, and for each key its option or why it has none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from bdqm_tune.errors import BadInput


class Unsupported(NamedTuple):
    """A key that has no option here."""

    key: str  # with its group, as optim.metric
    why: str
    harmless: bool = False  # the model would be the same without it


@dataclass
class Translation:
    """The options of a configuration, and the account of each key."""

    options: dict[str, Any] = field(default_factory=dict)  # group → option → value, as in a configuration file
    mapped: list[tuple[str, str]] = field(default_factory=list)  # "optim.lr: 0.1", "search.lr: 0.1"
    unsupported: list[Unsupported] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # where amptorch's numbers will not come out, in a sentence each

    def set(self, option: str, value: Any) -> None:
        """Put a value under a dotted option, as search.lr."""
        *groups, last = option.split(".")
        place = self.options
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value


class Group:
    """One group of an amptorch configuration; each key is read once, and recorded."""

    def __init__(self, translation: Translation, name: str, given: Any) -> None:
        if not isinstance(given, Mapping):
            raise BadInput(f"{name} must be a group of keys, got {shown(given)}")
        self.translation, self.name = translation, name
        self.given = {str(key): value for key, value in given.items()}
        self.seen: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self.given

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or amptorch's default."""
        self.seen.add(key)
        return self.given.get(key, default)

    def map(self, key: str, default: Any, option: str, convert: Callable[[Any], Any] = lambda value: value) -> None:
        """Set an option from a key; where `convert` raises ValueError, record its message instead."""
        value = self.get(key, default)
        try:
            converted = convert(value)
        except ValueError as error:
            self.refuse(key, str(error))
        else:
            self.translation.set(option, converted)
            self.note(key, value, f"{option}: {shown(converted)}")

    def note(self, key: str, value: Any, ours: str) -> None:
        """Record the option of a key."""
        self.seen.add(key)
        default = "" if key in self.given else " (amptorch's default)"
        self.translation.mapped.append((f"{self.name}.{key}: {shown(value)}{default}", ours))

    def refuse(self, key: str, why: str, harmless: bool = False) -> None:
        """Record that a key is not supported."""
        self.seen.add(key)
        self.translation.unsupported.append(Unsupported(f"{self.name}.{key}", why, harmless))

    def drop(self, why: str, *keys: str) -> None:
        """Record keys, where they are given, that do not change the model."""
        for key in keys:
            if key in self.given:
                self.refuse(key, why, harmless=True)

    def finish(self) -> None:
        """Record the keys that were not read."""
        for key in self.given:
            if key not in self.seen:
                self.refuse(key, "amptorch does not read it")


def plain(value: Any) -> Any:
    """The value with lists in the place of arrays and tuples, and numbers in the place of numpy's."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def shown(value: Any) -> str:
    """A value on one line, shortened."""
    text = " ".join(str(plain(value)).split())
    return text if len(text) <= 60 else f"{text[:57]}…"


def class_name(value: Any) -> str:
    """The last part of the name of a class, as Tanh of torch.nn.modules.activation.Tanh."""
    return str(value).rpartition(".")[2].removesuffix("()")
