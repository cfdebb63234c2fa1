"""The errors of epochs, from a file that a program writes while it trains."""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bdqm_tune.config.backends.command import METRICS, Metrics
from bdqm_tune.config.templates import as_text
from bdqm_tune.errors import BdqmError, shown

ERRORS = tuple(name for name in METRICS if name.startswith("val_"))


class NewLines:
    """The lines that were added to a file since it was last read; of a file that was written again, all of them."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._file, self._rest = path, 0, (0, 0), b""

    def read(self, final: bool = False) -> tuple[bool, list[str]]:
        """
        Args:
            final: nothing will be added, so that the last line counts without its end.

        Returns:
            Whether the lines are the first of the file; and the lines, without their ends.
        """
        try:
            file = self._path.open("rb")
        except OSError:  # which it has not begun yet
            return False, []
        with file:
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) != self._file or status.st_size < self._offset:
                self._file, self._offset, self._rest = (status.st_dev, status.st_ino), 0, b""
            is_first = self._offset == 0
            file.seek(self._offset)
            content = file.read()
        self._offset += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        if final and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        return is_first, [line.decode(errors="replace").rstrip("\r") for line in lines]


class EpochMetrics:
    """The metrics of epochs as they come: by name, in eV, eV/atom, eV/Å and eV/Å³."""

    def __init__(self, options: Metrics, file: Path) -> None:
        """
        Args:
            file: what `options.file` names, or the program's output.
        """
        self._options, self._lines = options, NewLines(file)
        self._pattern = None if options.pattern is None else re.compile(options.pattern)
        self._header: list[str] = []
        self._count = 0  # lines that counted, which number the epochs of a program that does not

    def new(self, final: bool = False) -> Iterator[dict[str, float]]:
        """Metrics of the lines that were added; each has `epoch`, which counts from 1, and at least one error.

        Raises:
            BdqmError: a value is no number.
        """
        is_first, lines = self._lines.read(final)
        if is_first:
            self._count, self._header = 0, []
        for line in lines:
            row = self._row(line)
            if row is not None and self._counts(row) and (found := self._metrics(row)) is not None:
                yield found

    def _row(self, line: str) -> Mapping[str, Any] | None:
        """The values of a line by the program's names; None: it has none."""
        if self._pattern is not None:
            match = self._pattern.search(line)
            return None if match is None else match.groupdict()
        if self._options.is_csv:
            values = [value.strip() for value in next(csv.reader([line]), [])]
            if not self._header:
                self._header = values
                return None
            return dict(zip(self._header, values, strict=False))
        try:
            row = json.loads(line)
        except ValueError:
            return None
        return row if isinstance(row, dict) else None

    def _counts(self, row: Mapping[str, Any]) -> bool:
        return all(name in row and as_text(row[name]) == as_text(value) for name, value in self._options.where.items())

    def _metrics(self, row: Mapping[str, Any]) -> dict[str, float] | None:
        found: dict[str, float] = {}
        for metric, name in self._options.known.items():
            if name not in row:
                continue
            if row[name] in (None, ""):
                if metric == "epoch":  # MACE has an evaluation before the first
                    return None
                continue
            found[metric] = _number(row[name], name) * self._options.scale.get(metric, 1.0)  # type: ignore[call-overload]
        if not any(name in found for name in ERRORS):
            return None
        self._count += 1
        found["epoch"] = found["epoch"] - self._options.first_epoch + 1 if "epoch" in found else self._count
        return found


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise BdqmError(f"metrics: {name} is no number in a line of the program, but {shown(value)}") from None
