"""Several studies side by side: who is whose repeat, the best at equal cost, and what may be said of it."""

from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import optuna
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from rich.console import Console

from bdqm_tune.analysis.best_models import best_models
from bdqm_tune.analysis.comparison import compare_studies, group_labels, statements
from bdqm_tune.analysis.drawings import study_drawings, write_comparison
from bdqm_tune.analysis.figures.comparison import comparison, mean_best
from bdqm_tune.analysis.tables import models_table
from bdqm_tune.cli import compare
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.cost import Cost
from bdqm_tune.study import results
from bdqm_tune.study.results import StudyResults
from tests.commands import Call

MAE = "val_energy_mae"


@pytest.fixture(autouse=True, scope="module")
def _no_display() -> None:
    mpl.use("agg")


def study(name: str, seed: int, level: float, n: int = 12, data: str = "d" * 64, **options: str) -> StudyResults:
    """A study whose errors lie around `level`, every third trial pruned."""
    random = np.random.default_rng([seed, *name.encode()])
    state = ["pruned" if i % 3 == 2 else "complete" for i in range(n)]
    trials = pd.DataFrame({"number": range(n), "state": state, MAE: level * random.uniform(1, 2, n)})
    trials = trials.assign(epochs=np.where(trials["state"] == "pruned", 3.0, 27.0), trial_seconds=36.0)
    runs = pd.DataFrame(
        [{"study.name": name, "study.seed": str(seed), "study.sampler": "tpe", "training.epochs": "27"} | options]
    )
    known = optuna.create_study()
    known.set_user_attr("question", {"data": data, "backend": "native"})
    splits = {"training": {"structures": 100}}
    return StudyResults(name, trials, pd.DataFrame(), MAE, [], known, {}, runs, splits)


def several(repeats: int) -> list[StudyResults]:
    tpe = [study(f"tpe-{seed}", seed, 1.0) for seed in range(repeats)]
    return tpe + [study(f"random-{s}", s, 5.0, n=15, **{"study.sampler": "random"}) for s in range(repeats)]


def test_studies_that_differ_in_their_seed_are_repeats() -> None:
    found = compare_studies(several(3))
    assert found.studies["group"].tolist() == ["sampler tpe"] * 3 + ["sampler random"] * 3
    assert found.studies["seed"].tolist() == [0, 1, 2] * 2
    assert found.groups["repeats"].tolist() == [3, 3]
    assert found.notes == []


def test_labels_name_what_differs() -> None:
    common = {"study.sampler": "tpe", "study.pruner": "none", "study.seed": "1", "study.name": "x"}
    settings = [common, common | {"study.pruner": "hyperband"}, common | {"search.lr": "0.1", "study.seed": "7"}, {}]
    assert group_labels(list("abcd"), settings) == [
        "pruner none, search.lr not set", "pruner hyperband, search.lr not set", "pruner none, search.lr 0.1", "d",
    ]  # fmt: skip
    long = [common | {"search.activation": f"{'x' * 30}{option}{'y' * 30}"} for option in "ppq"]
    one, same, other = group_labels(["a", "b", "c"], long)
    assert one == same != other  # though what tells them apart is left out
    assert other == f"{one} (c)"
    assert group_labels(["a", "b"], [common, common | {"study.seed": "2"}]) == ["all", "all"]


def test_of_different_backends_labels_leave_out_what_only_one_of_them_has() -> None:
    common = {"study.sampler": "tpe", "training.epochs": "9"}
    native = common | {"backend": "native", "search.num_nodes": "8", "descriptor.sigmas": "3"}
    mace = common | {"backend": "mace", "search.r_max": "5.0"}
    assert group_labels(["a", "b"], [native, mace]) == ["backend native", "backend mace"]
    found = group_labels(list("abc"), [native, mace | {"training.epochs": "5"}, mace | {"search.r_max": "4.0"}])
    assert found == [
        "backend native, epochs 9",
        "backend mace, search.r_max 5.0, epochs 5",
        "backend mace, search.r_max 4.0, epochs 9",
    ]


def test_the_best_models_are_shown_with_what_they_cost() -> None:
    one, other = several(1)
    other.study.set_user_attr("question", {"data": "d" * 64, "backend": "mace"})
    for each in (one, other):
        each.trials["run_id"] = [f"{each.name}-{number}" for number in each.trials["number"]]
        each.trials["val_forces_mae"] = 0.5
    best = [each.trials[each.trials["state"] == "complete"][:8].nsmallest(1, MAE).iloc[0] for each in (one, other)]
    found = best_models([one, other], 12, {best[1]["run_id"]: Cost(0.0, 2e-6, 5e-6)})
    assert found["run_id"].tolist() == [trial["run_id"] for trial in best]
    assert found["backend"].tolist() == ["native", "mace"]
    assert found["forces_seconds_per_atom"].tolist() == pytest.approx([np.nan, 5e-6], nan_ok=True)
    console = Console(width=120, record=True)
    console.print(models_table(found))
    text = console.export_text()
    assert "energy (meV/atom)" not in text.replace("\n", " "), "not known of these"
    for part in ("tpe-0", "mace", "µs/atom", "0.5", "36", "–"):
        assert part in text, part


def test_the_best_is_that_of_equally_many_trials() -> None:
    studies = several(2)
    studies[0].trials.loc[11, "state"] = "waiting"
    found = compare_studies(studies)
    assert found.budget == 11
    for one in studies:
        lowest = []
        for n in range(1, 12):
            some = one.trials[(one.trials["number"] < n) & (one.trials["state"] == "complete")]
            lowest.append(some[MAE].min())
        curve = found.by_trials[found.by_trials["study"] == one.name]
        assert curve["best"].tolist() == lowest
        assert found.studies.set_index("study")["best"][one.name] == lowest[-1]
    assert found.notes == ["still running: tpe-0"]


def test_the_best_at_equal_cost_counts_trials_that_had_ended() -> None:
    studies = several(2)
    found = compare_studies(studies)
    for one in studies:
        curve = found.by_epochs[found.by_epochs["study"] == one.name]
        for row in curve.iloc[::17].itertuples():
            spent, best = 0.0, np.nan
            for trial in one.trials.itertuples():
                spent += trial.epochs
                if spent > row.epochs:
                    break
                if trial.state == "complete":
                    best = np.nanmin([best, getattr(trial, MAE)])
            assert row.best == pytest.approx(best, nan_ok=True)
    assert found.by_epochs["epochs"].max() == min(one.trials["epochs"].sum() for one in studies)


def test_what_can_be_said() -> None:
    (line,) = statements(compare_studies(several(6)))
    assert line.startswith("sampler tpe against sampler random: ")
    assert "more than chance: p = 0.031 (Wilcoxon signed-rank, paired by seed, 6 and 6 repeats)" in line
    (line,) = statements(compare_studies(several(3)))
    assert "too few repeats to say whether that is chance (3 and 3 repeats; p could not come below 0.1)" in line


def test_too_few_repeats_for_so_many_comparisons() -> None:
    """Four repeats tell two groups apart, but not three from one another."""
    two = several(4)
    two = [replace(one, runs=one.runs.assign(**{"study.seed": str(i)})) for i, one in enumerate(two)]
    third = [study(f"qmc-{i}", 10 + i, 25.0, **{"study.sampler": "qmc"}) for i in range(4)]
    assert "Mann-Whitney U" in statements(compare_studies(two))[0]
    lines = statements(compare_studies(two + third))
    assert len(lines) == 3
    assert all("p could not come below 0.086" in line for line in lines)


def test_other_data_is_said_and_other_objectives_are_refused() -> None:
    found = compare_studies([study("a", 0, 1.0), study("b", 0, 1.0, data="e" * 64)])
    assert any("not the same data" in note for note in found.notes)
    with pytest.raises(BadInput, match="different objectives"):
        compare_studies([study("a", 0, 1.0), replace(study("b", 0, 1.0), objective="val_forces_mae")])
    nothing = study("none", 0, 1.0)
    nothing.trials["state"] = "pruned"
    with pytest.raises(BadInput, match="'none' has no complete trial"):
        compare_studies([study("a", 0, 1.0), nothing])


def test_the_figure_draws_the_frames_numbers() -> None:
    found = compare_studies(several(3))
    figure = comparison(found.by_trials, found.by_epochs, found.studies)
    trials, epochs, finals = figure.axes
    for ax, curves, x in ((trials, found.by_trials, "n_trials"), (epochs, found.by_epochs, "epochs")):
        means = mean_best(curves, x)
        assert len(ax.lines) == 2
        for line in ax.lines:
            own = means[means["group"] == line.get_label()]
            assert np.asarray(line.get_xdata()).tolist() == own[x].tolist()
            assert np.asarray(line.get_ydata()).tolist() == own["best"].tolist()
    drawn = sorted(value for line in finals.lines[::4] for value in np.asarray(line.get_ydata()).tolist())
    points = [value for line in finals.lines for value in np.asarray(line.get_ydata()).tolist()]
    assert set(found.studies["best"]) <= set(points)
    assert drawn
    assert figure.axes[0].get_xlabel() == "trials"
    plt.close("all")


def test_mean_best_is_the_mean_of_those_that_all_have() -> None:
    curves = pd.DataFrame(
        {"group": "g", "study": ["a", "a", "b", "b"], "n_trials": [1, 2, 1, 2], "best": [np.nan, 2.0, 5.0, 4.0]}
    )
    found = mean_best(curves, "n_trials")
    assert found[["n_trials", "best", "low", "high"]].to_numpy().tolist() == [[2, 3.0, 2.0, 4.0]]


def test_learning_curve_is_drawn_where_sizes_differ(tmp_path: Path) -> None:
    sizes = [replace(one, splits={"training": {"structures": 50 * (i + 1)}}) for i, one in enumerate(several(2))]
    models = best_models(sizes, 12)
    assert {path.name for path in write_comparison(compare_studies(sizes), models, tmp_path)} == {
        "studies.csv", "best.csv", "models.csv", "comparison.png", "comparison.pdf", "learning.png", "learning.pdf",
    }  # fmt: skip
    written = write_comparison(compare_studies(several(2)), models, tmp_path / "x")
    assert "learning.png" not in {path.name for path in written}


def test_compare_sets_studies_side_by_side(workdir: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    studies = {one.name: one for one in several(3)}
    monkeypatch.setattr(compare, "stores_here", lambda: None)
    monkeypatch.setattr(results, "load_results", lambda _stores, name: studies[name])
    status, out, err = call("compare", *studies, "--out", "here")
    assert (status, err) == (0, "")
    assert "sampler tpe" in out
    assert "best of the first 12 trials" in out
    assert "too few repeats" in out
    table = pd.read_csv("here/studies.csv")
    assert table["best"].tolist() == pytest.approx(compare_studies(list(studies.values())).studies["best"].tolist())
    assert call("compare", "tpe-0", "tpe-0")[::2] == (2, "bdqm-tune: the study 'tpe-0' is given twice\n")
    assert call("compare", "tpe-0", "tpe-1", "--random", "random-0")[0] == 2


def test_a_given_random_study_is_the_baseline() -> None:
    one, other = several(1)
    drawn = study_drawings(one, replace(other, trials=other.trials.assign(sampler="random")))["history"]()
    assert isinstance(drawn, Axes)
    (line,) = [line for line in drawn.lines if "random" in str(line.get_label())]
    values = other.trials[MAE].to_numpy()
    assert np.asarray(line.get_ydata())[[0, -1]].tolist() == pytest.approx([values.mean(), values.min()])
    with pytest.raises(BadInput, match="hardly any trials by the random sampler"):
        study_drawings(one, other)
    with pytest.raises(BadInput, match="other data"):
        study_drawings(one, study("else", 1, 1.0, data="e" * 64))
    plt.close("all")
