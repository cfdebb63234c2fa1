"""A report's files: the page, the Markdown file, and beside them tables and figures."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from bdqm_tune.analysis import drawings
from bdqm_tune.analysis.reporting import background, evaluation, render, sections
from bdqm_tune.analysis.reporting.document import Document
from bdqm_tune.analysis.reporting.facts import StudyFacts
from bdqm_tune.analysis.reporting.frames import frames
from bdqm_tune.evaluation.record import write_record
from bdqm_tune.files import write_whole
from bdqm_tune.study.run_contents import CONFIG

PAGE, TEXT = "report.html", "report.md"


def write_report(facts: StudyFacts, out: Path) -> list[Path]:
    """Write all files of a report, and give them: the page first, then the Markdown file.

    What an earlier report left in the folder is written over.
    """
    found, figures = frames(facts), study_figures(facts)
    out.mkdir(parents=True, exist_ok=True)
    files = drawings.write(figures, out / render.FIGURES)
    if facts.evaluation is not None:
        files += [file for file in write_record(facts.evaluation, out) if file.suffix != ".csv"]
    for name, frame in found.items():
        files.append(out / f"{name}.csv")
        write_whole(files[-1], frame.to_csv(index=False))
    if facts.config:
        files.append(out / CONFIG)
        write_whole(files[-1], facts.config)
    document = compose(facts, found, list(figures), datetime.now().astimezone())
    page, text = out / PAGE, out / TEXT
    write_whole(page, render.html(document, out / render.FIGURES))
    write_whole(text, render.markdown(document))
    return [page, text, *files]


def study_figures(facts: StudyFacts) -> drawings.Drawings:
    """The figures that there is something to draw of, by their names."""
    found: drawings.Drawings = {}
    if not facts.finished.empty:
        found = {**found, **drawings.study_drawings(facts.results)}
    if facts.evaluation is not None:
        found = {**found, **drawings.evaluation_drawings(facts.evaluation)}
    return found


def compose(facts: StudyFacts, found: Mapping[str, pd.DataFrame], drawn: Sequence[str], now: datetime) -> Document:
    """The report as plain data.

    Args:
        found: its tables, as `frames` gives them.
        drawn: names of the figures that there are.
    """
    parts = (
        sections.summary(facts),
        sections.search(facts, found, drawn),
        sections.hyperparameters(drawn),
        sections.finalists(facts, found),
        evaluation.test(facts, found, drawn),
        background.cost(facts, found, drawn),
        background.data(facts, found),
        background.environment(facts, found),
        background.repeat(facts, found),
    )
    made = f"Report of {now.isoformat(sep=' ', timespec='seconds')}, by bdqm-tune{_version()}"
    return Document(f"The study {facts.name}", made, [part for part in parts if part is not None])


def _version() -> str:
    try:
        return f" {version('bdqm-tune')}"
    except PackageNotFoundError:  # run from its sources, not installed
        return ""
