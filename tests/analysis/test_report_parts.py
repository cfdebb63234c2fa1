"""Parts of the report by themselves: hours, numbers, and what Markdown is made of."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast, get_args

import optuna
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from bdqm_tune.analysis.drawings import evaluation_drawings, study_drawings
from bdqm_tune.analysis.metrics_table import as_quoted, metrics_table
from bdqm_tune.analysis.reporting.captions import FIGURES, Place, pictures
from bdqm_tune.analysis.reporting.cost import costs
from bdqm_tune.analysis.reporting.document import Picture, Table, number_text, piece, table
from bdqm_tune.analysis.reporting.facts import StudyFacts
from bdqm_tune.analysis.reporting.render import code_block, escaped
from bdqm_tune.analysis.reporting.sections import finalists
from bdqm_tune.evaluation.lockbox import Opening
from bdqm_tune.evaluation.record import Evaluation
from bdqm_tune.study.results import StudyResults

T = pd.Timestamp("2026-01-01 10:00")


def trainings(*rows: tuple[str | None, str, int, int]) -> pd.DataFrame:
    """Of a device and a worker, from and to, in minutes."""
    frame = pd.DataFrame(rows, columns=["device", "worker", "from", "to"])
    times = {key: T + pd.to_timedelta(frame[key], unit="min") for key in ("from", "to")}
    return frame.assign(started=times["from"], ended=times["to"], trial_seconds=60.0 * (frame["to"] - frame["from"]))


def test_trainings_share_a_gpu_but_not_a_core() -> None:
    gpu = [("H100", "a", 0, 60), ("H100", "a", 30, 90), ("H100", "a", 120, 150), ("H100", "b", 0, 60)]
    cpu = [("cpu", "c", 0, 60), ("cpu", "c", 0, 30)]
    found = costs("tune", trainings(*gpu, *cpu)).set_index("device")
    assert found.loc["H100", "trials"] == 4
    assert found.loc["H100", "training_hours"] == pytest.approx(3.5)
    assert found.loc["H100", "gpu_hours"] == pytest.approx(1.5 + 0.5 + 1)
    assert pd.isna(found.loc["H100", "cpu_hours"])
    assert found.loc["cpu", "cpu_hours"] == pytest.approx(1.5)
    assert pd.isna(found.loc["cpu", "gpu_hours"])


def test_a_device_that_is_not_known_has_hours_of_neither() -> None:
    (row,) = costs("tune", trainings((None, "a", 0, 60))).to_dict("records")
    assert (row["device"], row["training_hours"]) == ("not known", 1.0)
    assert pd.isna(row["cpu_hours"])
    assert pd.isna(row["gpu_hours"])
    assert costs("tune", trainings()).empty


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (12345, "12345"),
        (16.4512, "16.45"),
        (1238.94, "1238.9"),
        (0.0123456, "0.01235"),
        (1.57e-5, "1.570e-5"),
        (-0.00027412, "-2.741e-4"),
        (2.5e7 + 0.5, "2.500e7"),
        (float("nan"), "–"),
    ],
)
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("objective", "unit", "heading", "numbers"),
    [
        ("val_energy_mae", "eV", "mean MAE (eV)", [0.0125, 0.01, 0.015, 0.012]),
        ("val_energy_mae_per_atom", "eV/atom", "mean MAE (meV/atom)", [12.5, 10.0, 15.0, 12.0]),
        ("val_forces_mae", "eV/Å", "mean MAE of forces (eV/Å)", [0.0125, 0.01, 0.015, 0.012]),
        ("val_energy_forces", "eV/atom", "mean error of energy + 0.1 Å · forces (meV/atom)", [12.5, 10.0, 15.0, 12.0]),
    ],
)
def test_finalists_have_the_name_and_unit_of_the_objective(
    objective: str, unit: str, heading: str, numbers: list[float]
) -> None:
    names = ["rank", "name", "mean", "low", "high", "best", "seeds", "n_parameters"]
    names += ["difference", "difference_low", "difference_high", "p"]
    row = [1, "trial-001", 0.0125, 0.01, 0.015, 0.012, 2, 100, 0.002, 0.001, 0.003, 0.5]
    frame = pd.DataFrame([row], columns=names)
    record = {"objective": objective, "unit": unit, "seeds": [0, 1], "yardsticks": [], "random": "none"}
    champion = SimpleNamespace(why="it is the only one", trials=1)
    facts = SimpleNamespace(
        name="s", chosen=1, champion=champion, finished=[1], confirmation=SimpleNamespace(record=record)
    )
    section = finalists(cast(StudyFacts, facts), {"finalists": frame})
    (found,) = (block for block in section.blocks if isinstance(block, Table))
    place = [column.heading for column in found.columns].index(heading)
    assert [piece.value for piece in found.rows[0][place : place + 4]] == pytest.approx(numbers)
    factor = numbers[0] / 0.0125
    (less,) = (i for i, column in enumerate(found.columns) if column.heading == "less the champion's")
    differences = [piece.value for piece in found.rows[0][less : less + 3]]
    assert differences == pytest.approx([0.002 * factor, 0.001 * factor, 0.003 * factor])


def test_cells_keep_their_numbers() -> None:
    frame = pd.DataFrame({"a": [1.23456, float("nan")], "b": ["x", None], "c": [True, False]})
    made = table(frame, "f.csv", "", {"b": "B", "a": "A", "c": "C"}, top=1)
    assert [column.numeric for column in made.columns] == [False, True, False]
    assert [(one.text, one.value) for one in made.rows[0]] == [("x", None), ("1.235", 1.23456), ("True", None)]
    assert made.more == 1
    assert [piece(value).text for value in (None, "", pd.NaT, pd.NA, T)] == ["–"] * 4 + ["2026-01-01 10:00:00"]


@pytest.mark.parametrize(
    "text",
    [
        "<b>bold</b> & *this* and _that_",
        "a|b",
        "# no heading",
        "- no list",
        "1. no list",
        "---",
        "===",
        "![no](picture) [no](link)",
        "`no code` ~~no~~ $x$",
        "\\* &amp; &#42;",
        "-0.5",
        "12.5",
    ],
)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    import html
    import re

    rendered = MarkdownIt("commonmark").enable("table").render(str(escaped(text)))
    assert html.unescape(re.fullmatch(r"<p>(.*)</p>\n", rendered)[1]) == text  # type: ignore[index]
    cell = MarkdownIt("commonmark").enable("table").render(f"| a | b |\n|---|---|\n| {escaped(text)} | c |\n")
    assert [html.unescape(one) for one in re.findall("<td>(.*?)</td>", cell)] == [text, "c"]


def test_numbers_are_not_disfigured() -> None:
    assert [str(escaped(text)) for text in ("-0.5", "12.5", "2026-01-01")] == ["-0.5", "12.5", "2026-01-01"]


def test_code_stays_within_its_block() -> None:
    lines = "echo '```'\n# <script>"
    tokens = MarkdownIt("commonmark").parse(str(code_block(lines)))
    assert [(token.type, token.content) for token in tokens] == [("fence", f"{lines}\n")]


def test_metrics_have_intervals_units_and_baselines() -> None:
    metrics = {
        "test_energy_mae": 0.25,
        "test_energy_mae_low": 0.125,
        "test_energy_mae_high": 0.5,
        "baseline_mean_energy_mae": 4.0,
        "baseline_reference_energy_mae": 1.0,
        "overlap_same": 0.0,
    }
    first, second = metrics_table(metrics).to_dict("records")
    assert first == {"metric": "test_energy_mae", "value": 0.25, "low": 0.125, "high": 0.5, "unit": "eV",
                     "mean energy": 4.0, "references": 1.0}  # fmt: skip
    assert (second["metric"], second["value"], second["unit"]) == ("overlap_same", 0.0, "")
    assert pd.isna(second["low"])
    assert metrics_table({}).empty


def test_metrics_of_the_objective_come_first_and_energies_per_atom_before_total_ones() -> None:
    energies = {"test_energy_mae": 2.0, "test_energy_mae_per_atom": 0.02, "test_energy_mae_gain": 1.0}
    metrics = {**energies, "test_forces_mae": 0.1, "test_forces_mae_low": 0.05, "test_forces_mae_high": 0.2}
    names = ["test_energy_mae_per_atom", "test_energy_mae"]
    found = metrics_table(metrics)
    assert found["metric"].tolist() == [*names, "test_energy_mae_gain", "test_forces_mae"]
    of_forces = metrics_table(metrics, "val_forces_mae")
    assert of_forces["metric"].tolist() == ["test_forces_mae", *names, "test_energy_mae_gain"]
    quoted = as_quoted(of_forces).set_index("metric")
    assert quoted["unit"].tolist() == ["eV/Å", "meV/atom", "eV", "eV"]
    assert quoted["value"].tolist() == [0.1, 20.0, 2.0, 1.0]
    assert (quoted["low"].iloc[0], quoted["high"].iloc[0]) == (0.05, 0.2)


def test_every_figure_has_a_place_in_the_report() -> None:
    trials = pd.DataFrame({"number": [0], "state": ["complete"], "val_energy_mae": [1.0]})
    results = StudyResults("s", trials, pd.DataFrame(), "val_energy_mae", [], optuna.create_study(),
                           objectives=("val_energy_mae", "n_parameters"))  # fmt: skip
    table = pd.DataFrame({"n_atoms": [2, 3]})
    tables = dict.fromkeys(("errors", "forces", "by_element", "coverage"), table)
    metrics = dict.fromkeys(("coverage", "test_coverage", "test_coverage_low", "test_coverage_high"), 0.9)
    opening = Opening(1, "", "", "", "", "")
    evaluation = Evaluation("s", None, metrics, tables, "", lambda _file: None, opening)
    drawn = [*study_drawings(results), *evaluation_drawings(evaluation)]
    assert set(drawn) == FIGURES.keys()
    placed = [block for section in get_args(Place) for block in pictures(section, drawn)]
    assert {block.name for block in placed if isinstance(block, Picture)} == set(drawn)
    page = (Path(__file__).parents[2] / "docs" / "figures.md").read_text(encoding="utf-8")
    assert [name for name in drawn if f"**{name}**" not in page] == []
