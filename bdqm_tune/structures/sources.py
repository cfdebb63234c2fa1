"""Which files, and which of their images, a text or a list of texts names: `a.traj,runs/*.xyz,md.traj@::10`."""

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bdqm_tune.errors import BadInput
from bdqm_tune.user import expanded

INDEX = re.compile(r"(?P<path>.+)@(?P<index>-?\d+|-?\d*:-?\d*(?::-?\d*)?)", re.DOTALL)
PATTERN = re.compile(r"[*?[]")
ALL = slice(None)
Given = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Source:
    """A file, and which of its images."""

    path: str
    images: slice


def find_sources(given: Given) -> list[Source]:
    """The files that are named, in that order; those of a folder or a pattern by their names.

    Each text is a file; a folder, for the files in it; a pattern (`runs/*.xyz`, with `**` for all folders below);
    one of these with an index as in ASE (`@5`, `@:100`, `@::10`); or several of them, with commas between. A file
    that has just this name comes first. What names nothing is taken for a file, which is then found missing.

    Raises:
        BadInput: a folder has no files, no file fits a pattern, or an index is not valid.
    """
    texts = [given] if isinstance(given, str | Path) else list(given)
    found = [source for text in texts for source in _find(str(text))]
    if not found:
        raise BadInput("no file is named")
    return found


def absolute(given: Given) -> str:
    """The same text with absolute paths; nothing is looked up but whether a file has just this name."""
    texts = [given] if isinstance(given, str | Path) else list(given)
    return ",".join(str(_expanded(part).absolute()) for text in texts for part in _parts(str(text)))


def shown_source(given: Given) -> str:
    """What messages call it."""
    return str(given) if isinstance(given, str | Path) else ", ".join(map(str, given))


def _find(text: str) -> list[Source]:
    return [source for part in _parts(text) for source in _of_part(part)]


def _parts(text: str) -> list[str]:
    if "," not in text or exists(text):
        return [text]
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise BadInput(f"{text}: nothing is named between two commas, or at an end")
    return parts


def _of_part(text: str) -> list[Source]:
    path, images = (str(_expanded(text)) if text.startswith("~/") else text), ALL
    if not exists(path) and (match := INDEX.fullmatch(path)):
        path, images = match["path"], _slice(match["index"], text)
    if not exists(path) and PATTERN.search(path):
        # Path.glob takes no absolute pattern.
        paths = sorted(name for name in glob.glob(path, recursive=True) if Path(name).is_file())  # noqa: PTH207
        if not paths:
            raise BadInput(f"{path}: no file fits this pattern (working directory {Path.cwd()})")
        return [Source(name, images) for name in paths]
    if not exists(path) or not Path(path).is_dir():
        return [Source(path, images)]
    files = sorted(file for file in Path(path).iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise BadInput(f"{path}: is a folder without files")
    return [Source(str(file), images) for file in files]


def exists(path: str) -> bool:
    """Whether there is a file or a folder of this name."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name that is too long for one, or has a null byte
        return False


def _expanded(text: str) -> Path:
    """The text, with the home folder where it begins with one."""
    return expanded(text) if text.startswith("~/") else Path(text)


def _slice(index: str, text: str) -> slice:
    """An index as ASE takes it; a number is one image."""
    if ":" not in index:
        first = int(index)
        return slice(first, first + 1 or None)
    bounds = slice(*(int(bound) if bound else None for bound in index.split(":")))
    if bounds.step == 0:
        raise BadInput(f"{text}: the step of an index is at least 1, or negative to go backwards")
    return bounds
