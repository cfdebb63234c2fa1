"""The files of n2p2 as lines, words and numbers; a message names the file."""

import math
import re
from collections import defaultdict
from pathlib import Path

from bdqm_tune.errors import BadInput, shown

SETTINGS, SCALING = "input.nn", "scaling.data"
ALIASES = {
    **dict.fromkeys(("nnp_generation", "nnp_type_gen", "nnp_gen"), "nnp_type"),
    "symfunction": "symfunction_short",
}
REPEATED = (
    *("symfunction_short", "atom_energy"),
    *("element_hidden_layers_short", "element_nodes_short", "element_activation_short"),
)
UNITS = re.compile(r"#\s*Lengths are in (?P<length>\w+), energies in (?P<energy>\w+)\.")


class Settings:
    """The keywords of `input.nn`, each with the words after it."""

    def __init__(self, path: Path) -> None:
        """Raises BadInput if the file cannot be read, or has a keyword twice that n2p2 takes once."""
        self.path = path
        self.units = UNITS.search(_text(path))  # those that an export of this package states
        self._found: dict[str, list[list[str]]] = defaultdict(list)
        for line in lines(path, "#!"):
            first, *others = line.split()
            self._found[ALIASES.get(first, first)].append(others)
        twice = [name for name, entries in self._found.items() if len(entries) > 1 and name not in REPEATED]
        if twice:
            raise self.error(f"{shown(twice[0])} is given {len(self._found[twice[0]])} times")

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def error(self, what: str) -> BadInput:
        """A complaint about the file."""
        return BadInput(f"{self.path}: {what}")

    def all(self, name: str, n: int = 0) -> list[list[str]]:
        """The words after each occurrence of a keyword, of which there must be n at least."""
        for words in self._found.get(name, []):
            if len(words) < n:
                raise self.error(f"{name} needs {n} words after it, has {len(words)}")
        return list(self._found.get(name, []))

    def words(self, name: str) -> list[str]:
        """The words after a keyword that must be there, one at least."""
        if name not in self:
            raise self.error(f"{name} is missing")
        return self.all(name, 1)[0]

    def of_element(self, name: str, symbol: str) -> list[str]:
        """The words after `element_NAME_short SYMBOL`, or after `global_NAME_short`."""
        own = [words[1:] for words in self.all(f"element_{name}_short", 2) if words[0] == symbol]
        return own[-1] if own else self.words(f"global_{name}_short")

    def value(self, name: str, default: float) -> float:
        """The number after a keyword."""
        return self.number(self.words(name)[0]) if name in self else default

    def number(self, word: str) -> float:
        """A word as a number."""
        return number(word, self.path)

    def count(self, word: str, least: int = 0) -> int:
        """A word as a whole number of layers or nodes."""
        if not word.isascii() or not word.isdigit() or len(word) > 6 or int(word) < least:
            raise self.error(f"{shown(word)} is no number of layers or nodes")
        return int(word)


def lines(path: Path, comment: str = "#") -> list[str]:
    """The lines of a file that say something: without what follows one of the characters, and without blank ones.

    Raises:
        BadInput: the file cannot be read.
    """
    text = _text(path)
    for character in comment[1:]:
        text = text.replace(character, comment[0])
    return [line for line in (line.split(comment[0])[0].strip() for line in text.splitlines()) if line]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror}); a potential of n2p2 is a folder with {SETTINGS}, "
            f"{SCALING} and weights.NNN.data, NNN being the atomic number of each element"
        ) from None


def number(word: str, path: Path) -> float:
    """A word of a file as a finite number. Raises BadInput if it is none."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInput(f"{path}: {shown(word)} is no number")
    return value
