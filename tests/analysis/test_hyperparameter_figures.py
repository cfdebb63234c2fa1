"""Figures of hyperparameters together: contours and parallel coordinates; and of a model's errors."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection

from bdqm_tune.analysis.figures.contour import contour, most_important, surface
from bdqm_tune.analysis.figures.errors import element_errors, error_distribution, per_element
from bdqm_tune.analysis.figures.learning import learning_curve, learning_points, power_law
from bdqm_tune.analysis.figures.parallel import parallel_coordinates
from bdqm_tune.analysis.statistics import bootstrap_mean

MAE = "val_energy_mae"


def trials(n: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"number": range(n), "state": "complete", "lr": 10 ** random.uniform(-5, -2, n)})
    frame = frame.assign(num_layers=random.integers(3, 30, n), activation=random.choice(["tanh", "relu"], n))
    frame["dropout_rate"] = np.where(random.random(n) < 0.5, random.uniform(0, 0.5, n), np.nan)
    return frame.assign(**{MAE: 0.1 + (np.log10(frame["lr"]) + 3) ** 2})


# contours


def test_surface_of_a_plane_is_the_plane() -> None:
    random = np.random.default_rng(1)
    x, y = random.uniform(size=(2, 4000))
    found = surface(x, y, 3 * x - y)
    axis = np.linspace(0, 1, len(found))
    inner = slice(6, -6)  # at the edges all neighbours are on one side
    expected = 3 * axis[None, inner] - axis[inner, None]
    assert np.abs(found[inner, inner] - expected).max() < 0.15


def test_surface_is_drawn_near_trials_only_and_within_their_values() -> None:
    values = np.array([1.0, 2.0, 5.0])
    found = surface(np.array([0.0, 0.1, 0.0]), np.array([0.0, 0.0, 0.1]), values)
    assert np.isnan(found[-1, -1])
    assert np.nanmin(found) >= 1.0
    assert np.nanmax(found) <= 5.0


def test_contour_shows_trials_and_the_best() -> None:
    frame = trials()
    ax = contour(frame, ["lr", "num_layers"])
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("lr", "num_layers", "log")
    dots = np.asarray(ax.collections[-1].get_offsets(), float)
    assert sorted(dots[:, 0].tolist()) == sorted(frame["lr"].tolist())
    best = frame.loc[frame[MAE].idxmin()]
    assert ax.lines[-1].get_xydata().tolist() == [[best["lr"], best["num_layers"]]]


@pytest.mark.parametrize(
    ("frame", "pair", "note"),
    [
        (trials(5), ["lr", "num_layers"], "no contours"),
        (trials().assign(**{MAE: 1.0}), ["lr", "num_layers"], "no contours"),
        (trials().assign(num_layers=3), ["lr", "num_layers"], "no contours"),
        (trials(), ["lr"], "no two numbers"),
    ],
)
def test_contour_says_why_it_is_empty(frame: pd.DataFrame, pair: list[str], note: str) -> None:
    assert note in contour(frame, pair).texts[0].get_text()


def test_the_two_that_count_most_are_drawn() -> None:
    names = ["activation", "num_layers", "dropout_rate", "lr"]
    weights = {"hyperparameter": ["activation", "lr", "dropout_rate"], "importance": [0.6, 0.3, 0.1]}
    assert most_important(trials(), names, pd.DataFrame(weights)) == ["lr", "dropout_rate"]
    assert most_important(trials(), ["activation", "lr"], pd.DataFrame(weights)) == ["lr"]


# parallel coordinates


def test_parallel_coordinates_draw_every_complete_trial_once() -> None:
    frame = trials()
    frame.loc[:9, "state"] = "pruned"
    ax = parallel_coordinates(frame, ["lr", "activation", "dropout_rate"])
    groups = [drawn for drawn in ax.collections if isinstance(drawn, LineCollection)]
    lines = [np.asarray(segment) for drawn in groups for segment in drawn.get_segments()]
    assert len(lines) == 50
    complete = frame[frame["state"] == "complete"]
    best = np.asarray(groups[-1].get_segments()[0])
    assert best[-1, 1] == 0  # the lowest MAE stands at the bottom
    row = complete.loc[complete[MAE].idxmin()]
    low, high = np.log10(complete["lr"].min()), np.log10(complete["lr"].max())
    assert best[0, 1] == pytest.approx((np.log10(row["lr"]) - low) / (high - low))
    gaps = sum(len(line) < 4 or np.isnan(line[:, 1]).any() for line in lines)
    assert gaps == complete["dropout_rate"].isna().sum()
    assert "no hyperparameter" in parallel_coordinates(frame, []).texts[0].get_text()
    assert "no trial is complete" in parallel_coordinates(frame.head(5), ["lr"]).texts[0].get_text()


# errors of a model


def model_errors() -> pd.DataFrame:
    frame = pd.DataFrame({"formula": ["CuO", "Cu2", "OH2", "Cu4O4", "H2"], "n_atoms": [2, 2, 3, 8, 2]})
    return frame.assign(error=[0.2, -0.4, 0.3, 1.6, -0.02])


def test_element_errors_are_those_of_the_structures_with_it() -> None:
    found = element_errors(model_errors()).set_index("element")
    assert found["structures"].to_dict() == {"Cu": 3, "O": 3, "H": 2}
    assert found["mae"].to_dict() == pytest.approx(
        {"Cu": (0.1 + 0.2 + 0.2) / 3, "O": (0.1 + 0.1 + 0.2) / 3, "H": (0.1 + 0.01) / 2}
    )
    low, high = bootstrap_mean(np.array([0.1, 0.01]))
    assert found.loc["H", ["low", "high"]].tolist() == pytest.approx([low, high])
    assert found["mae"].is_monotonic_decreasing
    ax = per_element(element_errors(model_errors()))
    assert np.asarray(ax.lines[0].get_ydata()) == pytest.approx(1000 * found["mae"].to_numpy())
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["Cu\n3", "O\n3", "H\n2"]
    assert "meV/atom" in ax.get_ylabel()


def test_a_single_structure_has_no_interval() -> None:
    found = element_errors(model_errors().head(1))
    assert found["low"].isna().all()
    assert len(per_element(found).lines) > 0
    assert "no structures" in per_element(element_errors(model_errors().head(0))).texts[0].get_text()


def test_error_distribution_counts_all_and_says_what_is_farther_out() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"n_atoms": 10, "error": random.normal(0.1, 0.05, 500)})
    frame.loc[0, "error"] = 100.0
    ax = error_distribution(frame)
    assert sum(bar.get_height() for bar in ax.patches) == 499  # type: ignore[attr-defined]
    text = ax.texts[0].get_text()
    assert "1 farther out" in text
    assert f"MAE {1000 * (frame['error'].abs() / 10).mean():.3g}" in text
    assert f"mean {1000 * (frame['error'] / 10).mean():+.3g}" in text
    share = ax.figure.axes[1].lines[0]
    assert np.asarray(share.get_ydata())[[0, -1]].tolist() == [0, 1]


# learning curves


def test_learning_curve_finds_the_power() -> None:
    sizes = np.repeat([50, 100, 200, 400], 3)
    frame = pd.DataFrame({"structures": sizes, "mae": 8.0 * sizes**-0.5 * np.tile([0.9, 1.0, 1.1], 4)})
    found = learning_points(frame)
    assert found["mae"].to_numpy() == pytest.approx(8.0 * np.array([50, 100, 200, 400]) ** -0.5)
    assert found["repeats"].tolist() == [3] * 4
    law = power_law(found)
    assert law is not None
    assert law == pytest.approx((8.0, -0.5))
    ax = learning_curve(frame, "MAE (eV)")
    assert ax.get_xscale() == "log"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["50", "100", "200", "400"]
    assert any("-0.50" in text.get_text() for text in ax.get_legend().get_texts())
    assert power_law(found.head(2)) is None
    assert "no models" in learning_curve(frame.head(0), "MAE (eV)").texts[0].get_text()
