"""The scripts: what they print and write, and how they fail."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from rich.console import Console

from bdqm_tune.analysis import tables
from bdqm_tune.analysis.folders import output_folder
from bdqm_tune.cli import compare, models
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.evaluation import evaluation
from bdqm_tune.evaluation.lockbox import Opening
from bdqm_tune.evaluation.record import Evaluation
from bdqm_tune.study import results
from tests.commands import Call

FIGURES = (*("history", "curves", "importance", "slices", "contour", "parallel", "pareto", "durations", "timeline"),)


@pytest.fixture(autouse=True, scope="module")
def _no_display() -> None:
    mpl.use("agg")


def trials_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "number": [0, 1, 2, 3, 4],
            "state": ["pruned", "complete", "failed", "complete", "waiting"],
            "val_energy_mae": [0.01, 0.5, np.nan, 0.03125, np.nan],
            "best_epoch": [3, 40, np.nan, 17, np.nan],
            "epochs": [4, 60, 0, 60, np.nan],
            "n_parameters": [901.0, 12345, 901, 2000, np.nan],
            "trial_seconds": [2.0, 1800, 1, 1800, np.nan],
            "started": pd.to_datetime(["2026-01-01 10:00"] * 4 + [None]),
            "ended": pd.to_datetime(["2026-01-01 10:01"] * 4 + [None]),
            "run_id": list("abcde"),
            "lr": [1e-5, 0.00219, 0.5, 0.0123456, np.nan],
            "dropout_rate": [np.nan, 0.25, 0.5, np.nan, np.nan],
            "batchnorm": [False, False, False, False, np.nan],
        }
    )


def study_results(trials: pd.DataFrame) -> results.StudyResults:
    curves = pd.DataFrame({"trial": [1, 1, 3], "epoch": [1, 2, 1], "val_energy_mae": [2.0, 0.5, 0.03125]})
    spaces: dict[str, list[BaseDistribution]] = {
        "lr": [FloatDistribution(1e-5, 1.0, log=True)],
        "dropout_rate": [FloatDistribution(0.05, 0.5)],
        "batchnorm": [CategoricalDistribution([True, False])],
    }
    names = [name for name in spaces if name in trials]
    return results.StudyResults("oc20", trials, curves, "val_energy_mae", names, optuna.create_study(), spaces)


def printed(trials: pd.DataFrame, hyperparameters: list[str], width: int = 120, top: int = 20) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(tables.table(trials, hyperparameters, top, width))
    return capture.get()


# the table


def test_best_first() -> None:
    assert list(tables.best_first(trials_frame())["number"]) == [3, 1, 0, 2, 4]


def test_table_shows_values_shortly() -> None:
    lines = printed(trials_frame().head(4), ["lr", "dropout_rate", "batchnorm"]).splitlines()
    rows = [line.split() for line in lines[lines.index(next(line for line in lines if line.startswith("─"))) + 1 :]]
    assert rows[0] == ["3", "complete", "0.03125", "17/60", "2000", "1800.0", "0.0123", "–"]
    assert rows[1] == ["1", "complete", "0.5", "40/60", "12345", "1800.0", "2.2e-3", "0.25"]
    assert rows[2] == ["0", "pruned", "0.01", "3/4", "901", "2.0", "1.0e-5", "–"]
    assert rows[3] == ["2", "failed", "–", "–/0", "901", "1.0", "0.5", "0.5"]
    assert " ".join(rows[4]) == "the same in all: batchnorm False"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_table_keeps_within_the_width(width: int) -> None:
    """What finds no room is named, not folded."""
    names = [
        "num_layers",
        "num_nodes",
        "activation",
        "batchnorm",
        "dropout",
        "dropout_rate",
        "lr",
        "batch_size",
        "gamma",
    ]
    trials = trials_frame().drop(columns=["lr", "dropout_rate", "batchnorm"])
    trials = trials.assign(**{name: np.linspace(1e-5, 2e-5, 5) for name in names})
    text = printed(trials, names, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert len([line for line in text.splitlines() if "/" in line and "epochs" not in line and "best" not in line]) == 5
    assert ("in trials.csv:" in text) == (width < 120)


def test_table_shows_the_top() -> None:
    text = printed(trials_frame(), ["lr"], top=2)
    assert "0.03125" in text
    assert "pruned" not in text


def test_a_study_of_forces_is_compared_by_them() -> None:
    trials = trials_frame().assign(val_forces_mae=[0.3, 0.1, np.nan, 0.2, np.nan])
    assert list(tables.best_first(trials, "val_forces_mae")["number"]) == [1, 3, 0, 2, 4]
    assert "best trial 1 with 0.1 eV/Å" in tables.summary("water", trials, "val_forces_mae")
    console = Console(width=120)
    with console.capture() as capture:
        console.print(tables.table(trials, ["lr"], 1, objective="val_forces_mae"))
    assert "(eV/Å)" in capture.get()
    assert "0.1 " in capture.get()


def test_energies_per_atom_come_first_and_fixed_hyperparameters_are_named() -> None:
    trials = trials_frame().assign(val_energy_mae_per_atom=[0.001, 0.02, np.nan, 0.0015, np.nan], activation="tanh")
    trials["gamma"] = [0.5, 0.5, 0.5, 0.75, np.nan]  # two workers fixed different values
    console = Console(width=120)
    with console.capture() as capture:
        console.print(tables.table(trials, ["lr"], 2, fixed=["activation", "gamma"]))
    lines = [line.split() for line in capture.get().splitlines()]
    assert ["3", "complete", "1.5", "0.03125", "17/60", "2000", "1800.0", "0.0123", "0.75"] in lines
    assert ["fixed:", "activation", "tanh"] in lines
    assert ["(meV/atom)", "(eV)"] in [line[:2] for line in lines] or "(meV/atom)" in capture.get()
    assert "best trial 3 with 1.500 meV/atom (0.03125 eV)" in tables.summary("oc20", trials)
    with console.capture() as capture:
        console.print(tables.table(trials.assign(val_forces_mae=0.25), ["lr"], 2, objective="val_forces_mae"))
    first = next(line.split() for line in capture.get().splitlines() if "complete" in line)
    assert first[2:4] == ["0.25", "20"], "the objective first"


def test_summary() -> None:
    assert tables.summary("oc20", trials_frame()) == (
        "oc20: 5 trials; 2 complete, 1 pruned, 1 failed, 1 waiting; best trial 3 with 0.03125 eV; 1.0 h in trials"
    )
    assert tables.summary("oc20", trials_frame().iloc[[2]]) == (
        "oc20: 1 trial; 1 failed; none complete yet; 0.000 h in trials"
    )
    assert tables.summary("oc20", trials_frame().head(0)) == "oc20: 0 trials; none complete yet; 0.000 h in trials"


# the folder


def test_folder(workdir: Path) -> None:
    assert output_folder("oc20", "figures/") == Path("figures/oc20")
    assert output_folder("../a b", "figures/") == Path("figures/_a_b")
    assert output_folder("..", "figures/") == Path("figures/study")
    assert output_folder("oc20", "elsewhere") == Path("elsewhere")
    assert list(workdir.iterdir()) == []
    Path("file").touch()
    with pytest.raises(BadInput, match=r"--out file/x: .*file is a file"):
        output_folder("oc20", "file/x")


# the scripts


def _no_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (compare, models):
        monkeypatch.setattr(command, "stores_here", lambda: None)


def given(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> None:
    """What the package answers, or raises, whatever the study."""

    def answer(_stores: Any, _name: str, **_options: str) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    _no_stores(monkeypatch)
    monkeypatch.setattr(results, "load_results", answer)
    monkeypatch.setattr(evaluation, "evaluate_best", answer)


def test_compare_prints_and_writes(workdir: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    found = study_results(trials_frame())
    given(monkeypatch, found)
    status, out, err = call("compare", "oc20")
    assert (status, err) == (0, "")
    assert "\x1b" not in out
    assert "oc20: 5 trials; 2 complete" in out
    assert out.rstrip().endswith("figures/oc20/")
    written = {path.name for path in Path("figures/oc20").iterdir()}
    assert written == {"trials.csv", "curves.csv", *(f"{name}.{end}" for name in FIGURES for end in ("png", "pdf"))}
    again = pd.read_csv("figures/oc20/trials.csv")
    assert list(again) == list(found.trials)
    assert again["val_energy_mae"].to_numpy() == pytest.approx(found.trials["val_energy_mae"].to_numpy(), nan_ok=True)
    assert len(pd.read_csv("figures/oc20/curves.csv")) == 3


def test_compare_of_several_objectives(workdir: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    found = study_results(trials_frame().assign(time_per_atom=[np.nan, 2e-6, np.nan, 1e-6, np.nan]))
    given(monkeypatch, replace(found, objectives=["val_energy_mae", "n_parameters", "time_per_atom"]))
    status, out, err = call("compare", "oc20")
    assert (status, err) == (0, "")
    assert "judged by val_energy_mae, n_parameters, time_per_atom: `bdqm-tune front oc20` shows" in out
    assert {path.stem for path in Path("figures/oc20").glob("*.png")} == {*FIGURES, "hypervolume"}


@pytest.mark.parametrize(
    "rows",
    [[], *(pytest.param([row], marks=pytest.mark.endurance) for row in (2, 0, 4)), [1]],
    ids=["empty", "failed", "pruned", "waiting", "one"],
)
def test_compare_of_hardly_anything(
    rows: list[int], workdir: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    found = study_results(trials_frame().iloc[rows])
    given(monkeypatch, replace(found, curves=found.curves.head(0)))
    status, out, _ = call("compare", "oc20", "--out", "here")
    assert status == 0
    assert f"oc20: {len(rows)} trial" in out
    assert Path("here/slices.png").stat().st_size > 0


def opened(model: str, **changes: Any) -> Opening:
    return Opening(**({"number": 1, "time": "2026-11-25", "model": model, "model_run_id": "m", "test_digest": "d",
                       "reason": ""} | changes))  # fmt: skip


def test_evaluate_prints_writes_and_logs(workdir: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    errors = pd.DataFrame(
        {
            "image": [0, 1],
            "formula": ["Cu", "Cu2"],
            "n_atoms": [1, 2],
            "energy": [-1.0, -2.0],
            "predicted": [-1.5, -2.0],
        }
    ).assign(error=[-0.5, 0.0])
    by_element = pd.DataFrame({"element": ["Cu"], "structures": [2], "energy_mae": [0.25]})
    metrics = {
        "test_energy_mae": 0.25,
        "test_energy_mae_low": 0.125,
        "test_energy_mae_high": 0.5,
        "test_energy_mae_per_atom": 0.125,
        "test_forces_mae": 0.0625,
        "test_energy_r2": 0.75,
        "baseline_mean_energy_mae": 4.0,
        "baseline_reference_energy_mae": 1.0,
        "inference_seconds_per_atom": 1e-5,
    }
    logged: list[Path] = []
    tables = {"errors": errors, "by_element": by_element}
    found = Evaluation("oc20", 3, metrics, tables, "f" * 32, logged.append, opened("trial 3"), settings={"seed": 0})
    given(monkeypatch, found)
    status, out, err = call("evaluate", "--out", "figures/", "--study", "oc20")
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert " ".join(lines[0]) == "oc20: trial 3 on 2 test structures"
    assert " ".join(lines[1]) == "test split opened on 2026-11-25"
    assert " ".join(lines[2]) == "value 95 % interval unit mean energy references"
    assert lines[3:8] == [
        ["test_energy_mae_per_atom", "125", "meV/atom"],
        ["test_energy_mae", "0.25", "0.125", "to", "0.5", "eV", "4", "1"],
        ["test_energy_r2", "0.75"],
        ["test_forces_mae", "0.0625", "eV/Å"],
        ["inference_seconds_per_atom", "1e-05", "s/atom"],
    ]
    names = [
        "errors.csv",
        "by_element.csv",
        "test_metrics.json",
        "parity_per_atom.png",
        "parity_per_atom.pdf",
        "parity.png",
        "parity.pdf",
        "error_distribution.png",
        "error_distribution.pdf",
        "element_errors.png",
        "element_errors.pdf",
    ]
    assert [path.name for path in logged] == names
    assert all(path.is_file() for path in logged)
    record = json.loads(Path("figures/oc20/test_metrics.json").read_text(encoding="utf-8"))
    assert record["metrics"]["test_forces_mae"] == {"value": 0.0625, "unit": "eV/Å"}
    assert record["metrics"]["test_energy_mae_low"] == {"value": 0.125, "unit": "eV"}
    assert record["metrics"]["test_energy_r2"] == {"value": 0.75, "unit": ""}
    assert (record["study"], record["trial"], record["run_id"]) == ("oc20", 3, "f" * 32)
    assert record["opening"] == {"number": 1, "time": "2026-11-25", "reason": ""}
    pd.testing.assert_frame_equal(pd.read_csv("figures/oc20/errors.csv"), errors)


def test_evaluate_says_that_it_repeats_or_reopens(workdir: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    errors = pd.DataFrame({"formula": ["Cu"], "n_atoms": [1], "energy": [0.0], "predicted": [1.0], "error": [1.0]})
    opening = opened("trial 3", number=2, reason="a referee asked")
    asked: list[dict[str, Any]] = []

    def answer(_stores: Any, _name: str, **options: Any) -> Evaluation:
        asked.append(options)
        return Evaluation("oc20", 3, {}, {"errors": errors}, "f", lambda path: None, opening, repeated=True)

    _no_stores(monkeypatch)
    monkeypatch.setattr(evaluation, "evaluate_best", answer)
    status, out, _ = call(
        "evaluate", "--out", "figures/", "--study", "oc20", "--reopen", "a referee asked", "--train", "moved.traj"
    )
    assert status == 0
    options = {"reopen": "a referee asked", "train": "moved.traj", "allow_unknown_elements": False}
    assert asked == [options | {"trial": None}]
    assert out.splitlines()[1] == (
        "test split opened on 2026-11-25; opening 2 of this study: a referee asked; this is the record of then, "
        "nothing was evaluated again"
    )


def test_evaluate_of_an_ensemble_adds_its_intervals(workdir: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    energy, predicted = np.array([-1.0, -2.0, -9.0]), np.array([-1.5, -2.0, -8.0])
    errors = pd.DataFrame({"image": range(3), "formula": "Cu", "n_atoms": [1, 2, 3], "energy": energy})
    errors = errors.assign(predicted=predicted, error=predicted - energy, std=0.3, low=predicted - 0.6)
    errors = errors.assign(high=predicted + 0.6)
    curve = pd.DataFrame({"stated": [0.3, 0.9], "observed": [0.2, 2 / 3], "low": [0.0, 0.1], "high": [1.0, 1.0]})
    metrics = {"coverage": 0.9, "test_coverage": 2 / 3, "test_coverage_low": 0.09, "test_coverage_high": 0.99}
    metrics |= {"expected_coverage_low": 0.5, "expected_coverage_high": 1.0}
    metrics |= {"test_interval_width": 1.2, "test_interval_width_per_atom": 0.75}
    logged: list[Path] = []
    asked = []
    tables, opening = {"errors": errors, "coverage": curve}, opened("the ensemble of trials 4, 1")
    found = Evaluation("oc20", None, metrics, tables, "f" * 32, logged.append, opening, (4, 1))
    _no_stores(monkeypatch)
    monkeypatch.setattr(
        evaluation,
        "evaluate_ensemble",
        lambda _stores, name, which, **_: asked.append((name, which)) or found,
    )
    status, out, err = call("evaluate", "--out", "figures/", "--study", "oc20", "--ensemble", "latest")
    assert (status, err) == (0, "")
    assert asked == [("oc20", "latest")]
    assert out.splitlines()[0] == "oc20: the ensemble of trials 4, 1 on 3 test structures"
    lines = [line.split() for line in out.splitlines()]
    assert ["coverage", "0.9"] in lines
    assert ["test_coverage", "0.6667", "0.09", "to", "0.99"] in lines
    assert ["expected_coverage_low", "0.5"] in lines
    assert ["test_interval_width", "1.2", "eV"] in lines
    assert ["test_interval_width_per_atom", "750", "meV/atom"] in lines
    new = {"coverage.csv", "calibration.png", "calibration.pdf", "spread.png", "spread.pdf"}
    assert {path.name for path in logged} > new
    assert {path.parent for path in logged} == {Path("figures/oc20/ensemble")}
    assert all(path.stat().st_size for path in logged)
    assert json.loads(Path("figures/oc20/ensemble/test_metrics.json").read_text())["trials"] == [4, 1]
    pd.testing.assert_frame_equal(pd.read_csv("figures/oc20/ensemble/coverage.csv"), curve)


@pytest.mark.parametrize("arguments", [["compare", "nope"], ["evaluate", "--study", "nope", "--out", "figures/"]])
@pytest.mark.parametrize("error", [BadInput("no study 'nope'; there are: oc20"), BdqmError("MLflow is away")])
def test_an_error_is_one_line(
    arguments: list[str], error: BdqmError, workdir: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    given(monkeypatch, error)
    assert call(*arguments) == (error.exit_code, "", f"bdqm-tune: {error}\n")
    assert list(workdir.iterdir()) == []


def test_evaluate_looks_at_the_folder_first(workdir: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    """A test set is for one look: not for one whose results cannot be written."""
    given(monkeypatch, AssertionError("evaluated"))
    Path("file").touch()
    status, _, err = call("evaluate", "--out", "file", "--study", "oc20")
    assert status == 2
    assert err.startswith("bdqm-tune: --out file: ")


@pytest.mark.parametrize("script", ["compare", "confirm", "evaluate", "report"])
def test_help_has_an_example_and_imports_nothing_heavy(script: str, workdir: Path) -> None:
    path = Path(__file__).resolve().parents[2] / "analysis" / f"{script}.py"
    done = subprocess.run([sys.executable, "-X", "importtime", path, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"Example: bdqm-tune {script} " in done.stdout
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert imported.isdisjoint({"matplotlib", "mlflow", "optuna", "pandas", "torch"})
