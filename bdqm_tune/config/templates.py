"""Command lines with placeholders: split into words before values are put in, so that a value is never more than one.

No shell sees them. `{name}` is a placeholder, `{{` and `}}` are braces.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from bdqm_tune.errors import BadInput, shown

Part = tuple[str, str | None]  # text, and the placeholder after it


@dataclass(frozen=True)
class Template:
    """The words of a command, or of a single file name."""

    words: tuple[tuple[Part, ...], ...]

    @classmethod
    def of_command(cls, given: str | Sequence[str]) -> "Template":
        """A command: a text, which is split as a POSIX shell would split it, or its words.

        Raises:
            ValueError: quotes or braces do not match, or there is no word.
        """
        try:
            words = shlex.split(given) if isinstance(given, str) else list(given)
        except ValueError as error:
            raise ValueError(f"{error} in {shown(given)}") from None
        if not words or not words[0]:
            raise ValueError(f"must have a program to run, got {shown(given)}")
        return cls(tuple(map(_parts, words)))

    @classmethod
    def of_text(cls, given: str) -> "Template":
        """A single word, as the name of a file. Raises ValueError as `of_command`."""
        return cls((_parts(given),))

    @property
    def names(self) -> list[str]:
        """The placeholders, each once, in their order."""
        return list(dict.fromkeys(name for word in self.words for _, name in word if name is not None))

    def filled(self, values: Mapping[str, Any]) -> list[str]:
        """The words with values in the place of placeholders.

        Raises:
            BadInput: a text would be taken for an option, as it begins with `-` where a word begins, or cannot be an
                argument.
        """
        return [_filled(word, values) for word in self.words]


def as_text(value: Any) -> str:
    """A value as an argument: numbers with all digits, `true` and `false`, lists and mappings as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _parts(word: str) -> tuple[Part, ...]:
    try:
        parsed = list(Formatter().parse(word))
    except ValueError as error:
        raise ValueError(f"{error} in {shown(word)}; braces that are no placeholder are doubled") from None
    for _, name, spec, conversion in parsed:
        if name is not None and (spec or conversion or not name.isidentifier()):
            raise ValueError(
                f"{shown(word)}: a placeholder is a name in braces, as {{lr}}, got {{{name}{conversion or ''}{spec}}}; "
                "braces that are no placeholder are doubled"
            )
    return tuple((text, name) for text, name, _, _ in parsed)


def _filled(word: Sequence[Part], values: Mapping[str, Any]) -> str:
    filled = ""
    for text, name in word:
        filled += text
        if name is None:
            continue
        value = values[name]
        if not filled and isinstance(value, str) and value.startswith("-") and not _is_number(value):
            raise BadInput(f"{name}={shown(value)}: would be taken for an option, for it begins with -")
        filled += as_text(value)
    if "\0" in filled:
        raise BadInput(f"{shown(filled)}: has a zero byte, which no argument can have")
    return filled


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
