"""A report as plain data, of which the page and the Markdown file are two forms: numbers are rounded here, once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd

from bdqm_tune.analysis.figures.style import short

NOTHING = "–"


@dataclass(frozen=True)
class Piece:
    """A part of a text, or a cell of a table."""

    text: str
    value: int | float | None = None  # the number that the text rounds; None: it is no number


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class Notice:
    """What has not been done, or must be known, and the command that helps; it may be empty."""

    kind: ClassVar[str] = "notice"
    text: str
    command: str = ""


@dataclass(frozen=True)
class Fact:
    """A name and what is known under it."""

    name: str
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class Facts:
    """Several of them, one below the other."""

    kind: ClassVar[str] = "facts"
    rows: Sequence[Fact]


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    key: str  # in the file that the table is from
    heading: str
    numeric: bool


@dataclass(frozen=True)
class Table:
    """Rows of a CSV file that lies beside the report."""

    kind: ClassVar[str] = "table"
    caption: str
    source: str  # the file
    columns: Sequence[Column]
    rows: Sequence[Sequence[Piece]]
    more: int = 0  # rows that are only in the file
    folded: bool = False  # on the page it is closed at first


@dataclass(frozen=True)
class Picture:
    """A figure by the name of its file."""

    kind: ClassVar[str] = "picture"
    name: str
    caption: str


@dataclass(frozen=True)
class Commands:
    """Lines to type."""

    kind: ClassVar[str] = "commands"
    lines: Sequence[str]


Block = Text | Notice | Facts | Table | Picture | Commands


@dataclass(frozen=True)
class Section:
    """A part of the report under a heading."""

    key: str  # its address within the page
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    made: str  # when, and with what
    sections: Sequence[Section]

    @property
    def pictures(self) -> list[Picture]:
        """All figures, in their order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]


def number_text(value: float) -> str:
    """A number as a reader wants it: whole ones whole, others with four digits; `–` where there is none."""
    if value != value:
        return NOTHING
    if float(value).is_integer() and abs(value) < 1e15:
        return str(int(value))
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:.1f}" if abs(value) >= 1000 else f"{value:.4g}"
    return short(value, digits=3)


def piece(value: Any) -> Piece:
    """A value of a data frame, as it is shown."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, pd.Timestamp):
        return Piece(NOTHING if value is pd.NaT else value.isoformat(sep=" ", timespec="seconds"))
    if value is None or value is pd.NA or value is pd.NaT or value == "":
        return Piece(NOTHING)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Piece(str(value))
    return Piece(number_text(value), None if value != value else value)


def pieces(*parts: str | float) -> list[Piece]:
    """A text out of texts and numbers, which are rounded."""
    return [Piece(part) if isinstance(part, str) else piece(part) for part in parts]


def table(
    frame: pd.DataFrame,
    source: str,
    caption: str,
    headings: Mapping[str, str],
    top: int | None = None,
    folded: bool = False,
    factors: Mapping[str, float] | None = None,
) -> Table:
    """The first rows of a data frame that is written to a file beside the report.

    Args:
        headings: of the columns to show, by their names in the frame.
        factors: from the file's numbers to those that are shown, of columns in another unit.
        top: rows to show; None: all.
    """
    shown = frame if top is None else frame.head(top)
    shown = shown.assign(**{key: factor * shown[key] for key, factor in (factors or {}).items()})
    rows = [[piece(value) for value in row] for row in shown[[*headings]].astype(object).itertuples(index=False)]
    columns = [
        Column(key, heading, any(row[i].value is not None for row in rows))
        for i, (key, heading) in enumerate(headings.items())
    ]
    return Table(caption, source, columns, rows, len(frame) - len(shown), folded)
