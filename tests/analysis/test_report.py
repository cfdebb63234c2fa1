"""The report: its numbers are those of MLflow and of its files, it needs nothing else, and names do it no harm."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt

from bdqm_tune.admin.deletion import belongings
from bdqm_tune.analysis.report import Report, make_report
from bdqm_tune.analysis.reporting import sections, write
from bdqm_tune.config.config import load_config
from bdqm_tune.confirmation.confirm import Options, confirm
from bdqm_tune.evaluation.evaluation import evaluate_best, evaluate_ensemble
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.ensembling import assemble, record_ensemble
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.results import load_results
from bdqm_tune.study.selection import champion_of
from bdqm_tune.study.study import RUN_ID, add_trials, load_study, open_study
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tuning.tune import tune
from bdqm_tune.units import MEV
from scripts.report_page import WIDTHS, opened_report
from tests.commands import Call
from tests.small_study import SEARCH

PROJECT = Path(__file__).parents[2]
NAME = """<script>alert("1")</script> & 'Ω' 😀 | *b* `c` [d](e) $f$ # %"""
REASON = '<img src=x onerror="alert(2)"> | "the *ensemble* was planned"'
N_TRIALS, TOP = 12, 10  # of the study, and that its report shows
LARGEST = 5_000_000  # bytes of a page
PICTURES = 9 + 3 + 2  # of the trials, of the evaluation of structures of one size, and of an ensemble


@dataclass
class TableRead:
    """A table as it stands in a page."""

    source: str = ""
    columns: list[str] = field(default_factory=list)  # as in the file
    headings: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    values: list[list[float | None]] = field(default_factory=list)


class PageRead(HTMLParser):
    """What a browser finds in a page: tags, addresses, and tables with their cells as text and as number."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.attributes: set[str] = set()
        self.tables: list[TableRead] = []
        self.texts: dict[str, list[str]] = {}  # by the tag in which they stand
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.attributes |= given.keys()
        self.addresses += [str(given[key]) for key in ("src", "href", "srcset", "data", "action") if key in given]
        if tag in ("h1", "h2", "td", "th", "p", "dd", "dt", "code", "summary", "h3"):
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")
        if tag == "table":
            self.tables.append(TableRead(str(given.get("data-source", ""))))
        table = self.tables[-1] if self.tables else None
        if table and tag == "tr":
            table.rows.append([])
            table.values.append([])
        elif table and tag == "th":
            table.columns.append(str(given.get("data-column", "")))
            table.headings.append("")
        elif table and tag == "td":
            table.rows[-1].append("")
            table.values[-1].append(None)
        elif table and tag == "data" and "td" in self._open:
            table.values[-1][-1] = float(str(given["value"]))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()
        if tag == "table":
            table = self.tables[-1]
            table.rows = [row for row in table.rows if row]
            table.values = [row for row in table.values if row]

    def handle_data(self, data: str) -> None:
        if not self._open:
            return
        tag = self._open[-1]
        self.texts[tag][-1] += data
        if tag == "td":
            self.tables[-1].rows[-1][-1] += data
        elif tag == "th":
            self.tables[-1].headings[-1] += data

    def table(self, source: str) -> TableRead:
        return next(table for table in self.tables if table.source == source)


@dataclass(frozen=True)
class Made:
    """A report and what it is of."""

    stores: Stores
    name: str
    folder: Path
    report: Report

    @property
    def page(self) -> PageRead:
        return PageRead(Path(self.report.html).read_text(encoding="utf-8"))

    @property
    def markdown(self) -> PageRead:
        text = Path(self.report.markdown).read_text(encoding="utf-8")
        return PageRead(MarkdownIt("commonmark").enable("table").render(text))

    def csv(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / name, keep_default_na=False, na_values=[""])


def options(files: dict[str, str], **study: Any) -> Any:
    groups = {
        "data": {"train": files["train"], "test": files["test"], "validation": {"fraction": 0.3}},
        "descriptor": {"orders": [0, 1], "sigmas": 3, "cutoff": 4.0},
        "training": {"epochs": 9, "forces": False},
        "search": SEARCH,
        "study": {"name": NAME, "n_trials": 4, **study},
        "": {"cohort": 1},
    }
    return load_config(None, groups)


@pytest.fixture(scope="module")
def made(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """The report of a study that has all: two workers, pruned trials, finalists, two openings of the test split.

    The first is for the champion, the ensemble of its seeds.
    """
    folder = tmp_path_factory.mktemp("study")
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "TOP", TOP)
        stores = Stores(folder / ".bdqm", tracking=f"sqlite:///{folder}/mlflow.db")
        for seed, n_trials in ((0, 4), (1, N_TRIALS - 4)):
            config = options(files, seed=seed, n_trials=n_trials)
            tune(prepare(config, stores.home), config, stores)
        confirm(stores, NAME, Options(best=2, seeds=2))
        evaluate_best(stores, NAME)
        record_ensemble(stores, assemble(stores, NAME, 2, 0.7))
        evaluate_ensemble(stores, NAME, reopen=REASON)
        yield Made(stores, NAME, folder / "out", make_report(stores, NAME, folder / "out"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report without figures, which take the most time of it."""
    monkeypatch.setattr(write, "study_figures", lambda facts: {})


def fields(made: Made) -> dict[str, str]:
    """The facts of the page by their names; of several of one name, the last."""
    return dict(zip(made.page.texts["dt"], made.page.texts["dd"], strict=True))


# The numbers


def test_every_cell_is_that_of_its_file(made: Made) -> None:
    page = made.page
    assert {table.source for table in page.tables} == {
        *("trials.csv", "finalists.csv", "openings.csv", "metrics.csv", "by_element.csv", "by_class.csv"),
        *("cost.csv", "data.csv", "options.csv"),
    }
    for table in page.tables:
        frame = made.csv(table.source)
        left = [row[table.columns] for _, row in frame.iterrows()]
        for texts, values in zip(table.rows, table.values, strict=True):
            match = next(i for i, row in enumerate(left) if all(map(same, texts, values, row)))
            left.pop(match)  # no row of the file stands there twice
        assert len(table.rows) + len(left) == len(frame)
        assert len(left) == len(frame) - TOP if table.source == "trials.csv" else not left


def same(text: str, value: float | None, cell: Any) -> bool:
    """Whether a cell of the page, as its text and its number, is that of the file."""
    if (text, cell) == ("meV/atom", "eV/atom"):
        return True
    if value is None:
        return text == ("–" if pd.isna(cell) else str(cell))
    is_number = isinstance(cell, int | float | np.number)
    return is_number and value in (cell, MEV * cell) and float(text) == pytest.approx(value, rel=5e-4)


def test_the_trials_stand_in_the_order_of_their_worth(made: Made) -> None:
    table, frame = made.page.table("trials.csv"), made.csv("trials.csv")
    assert len(table.rows) == TOP
    place, state = table.columns.index("val_energy_mae"), table.columns.index("state")
    errors = [row[place] for row, text in zip(table.values, table.rows, strict=True) if text[state] == "complete"]
    complete = frame.loc[frame["state"] == "complete", "val_energy_mae"]
    assert errors == sorted(complete)[: len(errors)]
    assert len(errors) == min(TOP, len(complete))


def test_the_markdown_says_the_same(made: Made) -> None:
    page, text = made.page, made.markdown
    assert text.texts["h1"] == page.texts["h1"]
    assert text.texts["h2"] == page.texts["h2"]
    assert text.texts["code"] == [*_commands(page)]
    tables = [table for table in text.tables if any(table.headings)]
    facts = [row for table in text.tables if not any(table.headings) for row in table.rows]
    assert [(table.headings, table.rows) for table in tables] == [(t.headings, t.rows) for t in page.tables]
    assert facts == [list(pair) for pair in zip(page.texts["dt"], page.texts["dd"], strict=True)]
    paragraphs = {" ".join(said.split()).removeprefix("Note: ") for said in text.texts["p"]}
    files = ("As a file: ", f"{N_TRIALS - TOP} more rows and all columns: ")  # whose names are code on the page
    assert [said for said in page.texts["p"] if said not in paragraphs and said not in files] == []


def _commands(page: PageRead) -> Iterator[str]:
    """Blocks of code, which Markdown ends with a new line, without the names of files."""
    yield from (f"{text}\n" for text in page.texts["code"] if not text.endswith(".csv"))


def test_the_numbers_are_those_of_mlflow(made: Made) -> None:
    client, study = tracking_client(made.stores), load_study(made.stores, NAME)
    runs = {trial.number: client.get_run(trial.user_attrs[RUN_ID]) for trial in study.get_trials()}
    table = made.page.table("trials.csv")
    shown = {key: table.columns.index(key) for key in ("number", "val_energy_mae", "trial_seconds", "n_parameters")}
    assert table.values
    for row in table.values:
        metrics = runs[int(row[shown["number"]] or 0)].data.metrics
        assert row[shown["val_energy_mae"]] == metrics["best_val_energy_mae"]
        assert row[shown["n_parameters"]] == metrics["n_parameters"]
        assert row[shown["trial_seconds"]] == pytest.approx(metrics["trial_seconds"])
    opened = made.page.table("openings.csv")
    place = opened.columns.index("test_energy_mae")
    evaluations = made.csv("openings.csv")["run_id"]
    logged = [client.get_run(run_id).data.metrics for run_id in evaluations]
    assert [row[place] for row in opened.values] == [metrics["test_energy_mae"] for metrics in logged]
    assert opened.headings[3:9] == ["energy MAE (meV/atom)", "95 % from", "to", "energy MAE (eV)", "95 % from", "to"]
    assert [row[3] for row in opened.values] == [MEV * metrics["test_energy_mae_per_atom"] for metrics in logged]
    for name, value, low, high, *_ in zip(*made.csv("metrics.csv").T.to_numpy(), strict=True):
        assert value == logged[0][name], "the chosen model's is shown whole"
        assert pd.isna(low) or (low, high) == (logged[0][f"{name}_low"], logged[0][f"{name}_high"])
    found = made.csv("finalists.csv")
    trained = client.search_runs([study.user_attrs["mlflow_experiment_id"]], "tags.kind = 'confirm'")
    by_trial: dict[str, list[float]] = {}
    for run_ in trained:
        by_trial.setdefault(run_.data.tags.get("trial", ""), []).append(run_.data.metrics["best_val_energy_mae"])
    for row in found[found["kind"] == "finalist"].to_dict("records"):
        assert row["mean"] == pytest.approx(np.mean(by_trial[f"{row['trial']:.0f}"]))
        assert row["best"] == min(by_trial[f"{row['trial']:.0f}"])


def test_the_summary_says_what_was_found(made: Made) -> None:
    found, trials = fields(made), made.csv("trials.csv")
    best = trials[trials["state"] == "complete"].nsmallest(1, "val_energy_mae").iloc[0]
    assert found["study"] == NAME
    per_atom = f"{MEV * best['val_energy_mae_per_atom']:.4g} meV/atom"
    said = f"trial {best['number']}: {per_atom}, {best['val_energy_mae']:.4g} eV at epoch "
    assert found["best trial"].startswith(said)
    assert "descriptor.cutoff 4.0" in found["fixed"]
    counts = trials["state"].value_counts()
    assert found["trials"] == f"{N_TRIALS}: {counts['complete']} complete, {counts['pruned']} pruned"
    champion, metrics = champion_of(load_study(made.stores, NAME)), made.csv("metrics.csv").set_index("metric")
    assert champion is not None
    assert found["confirmed"].startswith(f"trial {champion.trial}: ")
    assert f" meV/atom, {champion.mean:.4g} eV (95 %: " in found["confirmed"]
    assert found["confirmed"].endswith(
        "on average over 2 seeds, on the validation split; of so few no winner is declared"
    )
    mae = MEV * metrics.loc["test_energy_mae_per_atom", ["value", "low", "high", "references"]]
    said = f"energy MAE {mae['value']:.4g} meV/atom (95 %: {mae['low']:.4g} to {mae['high']:.4g}); in total "
    assert f"{said}{metrics.loc['test_energy_mae', 'value']:.4g} eV" in found["on the test split"]
    assert found["on the test split"].endswith(f"reference energies alone {mae['references']:.4g} meV/atom")
    assert found["test split opened"] == "2 times"
    share = 100 * counts["pruned"] / N_TRIALS
    assert found["trials that ended"].startswith(f"{N_TRIALS}, of which {counts['pruned']} pruned ({share:.4g}")
    hours = trials["trial_seconds"].sum() / 3600
    assert float(found["CPU hours"].partition(",")[0]) >= float(f"{hours:.3g}") * 0.99
    assert made.csv("cost.csv")["trials"].tolist()[0] == N_TRIALS
    assert made.csv("cost.csv")["training_hours"].to_numpy()[0] == pytest.approx(hours)


# The page by itself


def test_the_page_needs_nothing_else(made: Made) -> None:
    page = made.page
    assert made.report.html_bytes == Path(made.report.html).stat().st_size < LARGEST
    assert page.tags.isdisjoint({"script", "iframe", "object", "embed", "form"})
    assert not any(name.startswith("on") for name in page.attributes)
    outside = [address for address in page.addresses if not address.startswith(("data:", "#"))]
    assert outside == []
    style = re.search("<style>(.*?)</style>", Path(made.report.html).read_text(encoding="utf-8"), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    pictures = {path.stem for path in (made.folder / "figures").glob("*.png")}
    assert sum(address.startswith("data:image/png") for address in page.addresses) == len(pictures) == PICTURES


def test_names_are_shown_as_they_are(made: Made) -> None:
    for page in (made.page, made.markdown):
        assert page.texts["h1"] == [f"The study {NAME}"]
        assert page.tags.isdisjoint({"script", "em", "s"})
        (opened,) = [table for table in page.tables if "why again" in table.headings]
        assert [row[-1] for row in opened.rows] == ["–", REASON]
    text = Path(made.report.markdown).read_text(encoding="utf-8")
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    assert [token.content for token in tokens if token.type.startswith("html")] == []
    assert "<script" not in Path(made.report.html).read_text(encoding="utf-8").casefold()


def test_the_markdowns_figures_are_there(made: Made) -> None:
    addresses = made.markdown.addresses
    assert len(addresses) == PICTURES
    assert all((made.folder / address).is_file() for address in addresses)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_it_opens_in_a_browser(made: Made, width: int, scripts: bool, require: Callable[[str], None]) -> None:
    require("chromium")
    with opened_report(Path(made.report.html), width, scripts) as (page, complaints):
        assert page.locator("h1").inner_text() == " ".join(f"The study {NAME}".split())
        assert page.locator("img").count() == PICTURES
        if scripts:  # of the page there are none; by these it is measured
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert complaints == []


# In MLflow, on the command line


@pytest.mark.usefixtures("undrawn")
def test_the_report_is_in_one_run_of_the_study(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tracking_client(made.stores)
    kept = client.get_run(made.report.run_id)
    assert (kept.data.tags["kind"], kept.data.tags["study"], kept.info.status) == ("report", NAME, "FINISHED")
    names = {file.path for file in client.list_artifacts(made.report.run_id)}
    assert names == {path.name for path in made.folder.iterdir()}
    (tmp_path / "other.txt").write_text("of the user")
    assert make_report(made.stores, NAME, tmp_path).run_id == made.report.run_id
    assert {file.path for file in client.list_artifacts(made.report.run_id)} == names, (
        "no file that is not of the report"
    )
    figures = {Path(file.path).name for file in client.list_artifacts(made.report.run_id, "figures")}
    assert figures == {path.name for path in (made.folder / "figures").iterdir()}
    assert made.report.run_id in belongings(made.stores, NAME).runs
    of_mlflow_run = client.create_run(kept.info.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", of_mlflow_run)
    assert make_report(made.stores, NAME, tmp_path).run_id == of_mlflow_run
    assert client.get_run(of_mlflow_run).data.tags["kind"] == "report"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("work", "name", "table"),
    [("confirmation", "finalists.csv", "finalists.csv"), ("evaluation", "test_metrics.json", "metrics.csv")],
)
def test_a_file_that_is_gone_is_said_to_be(made: Made, work: str, name: str, table: str, tmp_path: Path) -> None:
    champion = champion_of(load_study(made.stores, NAME))
    assert champion is not None
    run_id = champion.confirmation_run_id if work == "confirmation" else made.csv("openings.csv")["run_id"][0]
    kept = tracking_client(made.stores).get_run(run_id)
    file = Path(kept.info.artifact_uri.removeprefix("file://")) / name
    content = file.read_bytes()
    file.unlink()
    try:
        page = Made(made.stores, NAME, tmp_path, make_report(made.stores, NAME, tmp_path)).page
    finally:
        file.write_bytes(content)
    assert re.search(f"not in (the {work}'s|its) run {run_id} any more", notices(page))
    assert f"The files of the {work} are gone" in notices(page)
    assert {made_table.source for made_table in page.tables}.isdisjoint({table})
    assert page.table("openings.csv").rows == made.page.table("openings.csv").rows


@pytest.mark.usefixtures("undrawn")
def test_from_the_command_line(call: Call, run: Callable[..., Any], stores: Stores) -> None:
    run(study={"name": "small", "n_trials": 2, "pruner": "none"}, training={"epochs": 2})
    status, out, err = call("report", "small", "--json")
    assert (status, err) == (0, "")
    said = json.loads(out)
    assert (said["html"], said["markdown"]) == ("reports/small/report.html", "reports/small/report.md")
    assert Path(said["html"]).stat().st_size == said["html_bytes"] > 0
    entry = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"]["report"]
    assert entry["command"].format(study="small") == "python -m bdqm_tune report small"
    assert "bdqm-tune report $(STUDY)" in (PROJECT / "Makefile").read_text()
    for names in (("nope",), ("nope", "--json")):
        status, out, err = call("report", *names)
        assert (status, out) == (2, "")
        assert err.startswith("bdqm-tune: no study 'nope' in ")
        assert err.endswith("; there are: small\n")
    assert not Path("reports/nope").exists()
    Path("file").touch()
    status, _, err = call("report", "small", "--out", "file")
    assert status == 2
    assert err == "bdqm-tune: --out file: file is a file, not a folder\n"


# Studies that are not finished


def notices(page: PageRead) -> str:
    return "\n".join(page.texts["p"])


@pytest.mark.parametrize("waiting", [0, 3])
def test_a_study_without_an_ended_trial(
    waiting: int, stores: Stores, configure: Callable[..., Any], tmp_path: Path
) -> None:
    config = configure(data={"test": None})
    study = open_study(stores, config, prepare(config, stores.home))
    add_trials(study, waiting)
    written = Made(stores, "small", tmp_path / "out", make_report(stores, "small", tmp_path / "out"))
    assert written.report.run_id == "", "there is no experiment yet"
    assert not list((tmp_path / "out").glob("figures/*"))
    said, found = notices(written.page), fields(written)
    assert found["trials"] == (f"{waiting}: {waiting} waiting" if waiting else "0")
    assert found["best trial"] == "no trial is complete yet"
    assert "No trial is complete yet, so there is nothing to confirm." in said
    assert "The study has no test split" in said
    assert ("Trials that wait or run: 3." in said) == bool(waiting)
    assert "bdqm-tune status small" in written.page.texts.get("code", []) or not waiting
    assert written.markdown.texts["h2"] == written.page.texts["h2"]


@pytest.mark.usefixtures("undrawn")
def test_a_study_that_was_not_evaluated(
    run: Callable[..., Any], stores: Stores, files: dict[str, str], tmp_path: Path
) -> None:
    run(study={"name": "a b", "n_trials": 2, "pruner": "none"}, training={"epochs": 2})
    written = Made(stores, "a b", tmp_path / "out", make_report(stores, "a b", tmp_path / "out"))
    said, codes = notices(written.page), written.page.texts["code"]
    assert "Not confirmed yet" in said
    assert "Not evaluated yet" in said
    assert "bdqm-tune confirm --study 'a b'" in codes
    assert "bdqm-tune evaluate --study 'a b'" in codes
    assert fields(written)["test split opened"] == "never"
    assert not (tmp_path / "out" / "metrics.csv").exists()
    commands = next(text for text in codes if text.startswith(("git checkout", "bdqm-tune tune")))
    assert f"--train {files['train']} --test {files['test']} --study 'a b' --n-trials 2" in commands
    results = load_results(stores, "a b")
    again = load_config(str(tmp_path / "out" / "config.yaml"), {})
    assert again.study.n_trials == 2
    assert results.trials["number"].tolist() == written.csv("trials.csv")["number"].tolist()


@pytest.mark.usefixtures("undrawn")
def test_a_study_of_several_objectives_of_which_none_was_picked(
    run: Callable[..., Any], stores: Stores, tmp_path: Path
) -> None:
    objectives = ["val_energy_mae", "n_parameters"]
    run(study={"name": "small", "n_trials": 2, "pruner": "none", "objectives": objectives}, training={"epochs": 2})
    written = Made(stores, "small", tmp_path / "out", make_report(stores, "small", tmp_path / "out"))
    assert fields(written)["judged by"].endswith("; beside it n_parameters")
    assert "no trial of its Pareto front was picked" in notices(written.page)
    assert "bdqm-tune front small" in written.page.texts["code"]


@pytest.mark.usefixtures("undrawn")
def test_a_model_that_stands_for_the_study_unevaluated_is_named(
    run: Callable[..., Any], stores: Stores, tmp_path: Path
) -> None:
    run(study={"name": "small", "n_trials": 2, "pruner": "none"}, training={"epochs": 2})
    evaluate_best(stores, "small")
    confirm(stores, "small", Options(best=1, seeds=2))
    written = Made(stores, "small", tmp_path / "out", make_report(stores, "small", tmp_path / "out"))
    assert "The study's model now" in notices(written.page)
    assert 'bdqm-tune evaluate --study small --reopen "REASON"' in written.page.texts["code"]
    assert fields(written)["on the test split"].startswith("trial "), "the evaluation that there is"


def test_workers_with_other_options_are_told_apart(made: Made) -> None:
    frame = made.csv("options.csv").set_index("option")
    assert frame.loc["study.seed", "value"].tolist() == ["0", "1"]
    assert frame.loc["study.seed", "workers"].tolist() == [1, 1]
    assert frame.loc["study.sampler", "workers"] == 2
    environment = made.csv("environment.csv")
    assert environment["processes"].sum() == 2 + 1 + 2 + 2  # workers, confirmation, ensembles, evaluations
    assert len(environment) == 1
