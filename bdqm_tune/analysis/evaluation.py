"""An evaluation on the test split as text, tables and figures."""

from collections.abc import Mapping
from pathlib import Path

from bdqm_tune.analysis.metrics_table import as_quoted, metrics_table
from bdqm_tune.evaluation.further_set import FurtherSet
from bdqm_tune.evaluation.record import Evaluation, write_record


def evaluation_lines(evaluation: Evaluation) -> list[str]:
    """What was evaluated on what, and all metrics."""
    return [
        f"{evaluation.study}: {evaluation.opening.model} on {len(evaluation.errors)} test structures",
        _opening_line(evaluation),
        *_metric_lines(evaluation.metrics, evaluation.objective),
        f"run {evaluation.run_id}",
    ]


def set_lines(found: FurtherSet) -> list[str]:
    """What was evaluated on which file, and all metrics."""
    n = len(found.tables["errors"])
    return [
        f"{found.study}: {found.model} on {n} structures of {found.file}",
        *_metric_lines(found.metrics, found.objective),
        f"run {found.run_id}",
    ]


def _metric_lines(metrics: Mapping[str, float], objective: str) -> list[str]:
    """Name, value, interval and unit of every metric, in columns, and beside it that of the baselines."""
    rows: list[tuple[str, ...]] = [("", "value", "95 % interval", "unit", "mean energy", "references")]
    for row in as_quoted(metrics_table(metrics, objective)).to_dict("records"):
        interval = f"{_number(row['low'])} to {_number(row['high'])}" if row["low"] == row["low"] else ""
        value, *baselines = (_number(row[key]) for key in ("value", "mean energy", "references"))
        rows.append((row["metric"], value, interval, row["unit"], *baselines))
    shown = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in shown]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*shown, strict=True)
    ]


def _number(value: float) -> str:
    return "" if value != value else f"{value:.4g}"


def write_evaluation(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write the tables, test_metrics.json and the figures (PNG, PDF) into a folder."""
    # Imported here: the numbers alone need no Matplotlib, which takes a second.
    from bdqm_tune.analysis.drawings import evaluation_drawings
    from bdqm_tune.analysis.drawings import write as draw

    out.mkdir(parents=True, exist_ok=True)
    return [*write_record(evaluation, out), *draw(evaluation_drawings(evaluation), out)]


def _opening_line(evaluation: Evaluation) -> str:
    """When the test split was opened, and why again."""
    opening = evaluation.opening
    line = f"test split opened on {opening.time}"
    if opening.reason:
        line += f"; opening {opening.number} of this study: {opening.reason}"
    return line + ("; this is the record of then, nothing was evaluated again" if evaluation.repeated else "")
