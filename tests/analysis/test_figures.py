"""What the figures of a study show, and that they show something for any study."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from optuna.distributions import BaseDistribution

from bdqm_tune.analysis.figures import style
from bdqm_tune.analysis.figures.coverage import calibration, spread
from bdqm_tune.analysis.figures.curves import validation_curves
from bdqm_tune.analysis.figures.errors import element_force_errors, force_error_distribution, per_element
from bdqm_tune.analysis.figures.history import best_so_far, optimisation_history
from bdqm_tune.analysis.figures.importance import METHODS, MIN_TRIALS, compute_importance, parameter_importance
from bdqm_tune.analysis.figures.parity import force_parity, parity
from bdqm_tune.analysis.figures.slices import slices
from tests.marks import few

HYPERPARAMETERS = ["num_layers", "activation", "dropout", "dropout_rate", "lr", "batch_size", "step_size"]
EPOCHS = 30


def synthetic(states: list[str], seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials and curves as a tuned study has them; the MAE depends on lr most."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    curves = []
    for number, state in enumerate(states):
        dropout = bool(rng.random() < 0.5)
        lr = float(10 ** rng.uniform(-5, -2))
        epochs = {"complete": EPOCHS, "pruned": 4, "running": 7}.get(state, 0)
        epoch = np.arange(1, epochs + 1)
        curve = (0.1 + abs(np.log10(lr) + 2.5)) * (1 + 50 * np.exp(-epoch / 4)) * rng.uniform(0.9, 1.1, epochs)
        curves += [(number, step, value) for step, value in zip(epoch.tolist(), curve.tolist(), strict=True)]
        rows.append(
            {
                "number": number,
                "state": state,
                "val_energy_mae": curve.min() if epochs else np.nan,
                "best_epoch": min(epochs, 2 + curve.argmin()) if epochs else np.nan,  # not that of the least error
                "epochs": float(epochs),
                "n_parameters": 5000.0,
                "trial_seconds": 0.5 * epochs,
                "run_id": f"{number:032x}",
                "num_layers": int(rng.integers(3, 30)),
                "activation": str(rng.choice(["tanh", "relu", "gelu"])),
                "dropout": dropout,
                "dropout_rate": rng.uniform(0.05, 0.5) if dropout else np.nan,
                "lr": lr,
                "batch_size": int(2 ** rng.uniform(4, 9)),
                "step_size": int(rng.integers(5, 100)),
            }
        )
    columns = ["number", "state", "val_energy_mae", "best_epoch", "epochs", "n_parameters", "trial_seconds", "run_id"]
    trials = pd.DataFrame(rows, columns=columns + (HYPERPARAMETERS if rows else []))
    return trials.astype({"val_energy_mae": float}), pd.DataFrame(curves, columns=["trial", "epoch", "val_energy_mae"])


def synthetic_study(n_trials: int) -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 1e-5, 1e-2, log=True)
        trial.suggest_int("num_layers", 3, 30)
        trial.suggest_categorical("activation", ["tanh", "relu"])
        rate = (
            trial.suggest_float("dropout_rate", 0.05, 0.5) if trial.suggest_categorical("dropout", [True, False]) else 0
        )
        return float(10 ** (abs(np.log10(lr) + 3.5) + rate))

    study.optimize(objective, n_trials=n_trials)
    return study


def importance_of(study: optuna.Study) -> pd.DataFrame:
    """What the figure is given of a study that Optuna made."""
    trials = [trial for trial in study.trials if trial.value is not None]
    frame = pd.DataFrame(
        [{"number": t.number, "state": "complete", "val_energy_mae": t.value, **t.params} for t in trials],
        columns=None if trials else ["number", "state", "val_energy_mae"],
    )
    spaces: dict[str, list[BaseDistribution]] = {}
    for trial in trials:
        for name, space in trial.distributions.items():
            spaces.setdefault(name, []).append(space)
    return compute_importance(frame, spaces)


def synthetic_errors(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    n_atoms = rng.integers(20, 200, n)
    energy = -4.0 * n_atoms
    error = np.where(np.arange(n) % 2, 0.5, -1.5)
    return pd.DataFrame(
        {"image": range(n), "formula": "CuO", "n_atoms": n_atoms, "energy": energy, "predicted": energy + error}
    ).assign(error=error)


MIXED = ["complete", "pruned", "complete", "failed", "pruned", "pruned", "complete", "running", "waiting"] * 2
STUDIES = {
    "mixed": MIXED,
    "many": MIXED * 6,
    "one": ["complete"],
    "two": ["complete", "pruned"],
    "all pruned": ["pruned"] * 5,
    "all failed": ["failed"] * 3,
    "waiting": ["waiting"] * 4,
    "empty": [],
}


def legend_labels(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    return [text.get_text() for text in legend.get_texts()] if legend else []


def notes(ax: Axes) -> str:
    return " ".join(text.get_text() for text in ax.texts)


# every figure, of every study


@pytest.mark.parametrize("name", few([*STUDIES][::3], [name for i, name in enumerate(STUDIES) if i % 3]))
@pytest.mark.parametrize("figure", ["history", "curves", "importance", "slices"])
def test_any_study_gives_a_readable_figure(name: str, figure: str) -> None:
    """No text is cut off, none is too small to read, and axes without data say why."""
    trials, curves = synthetic(STUDIES[name])
    drawn: Axes | Figure
    if figure == "history":
        drawn = optimisation_history(trials)
    elif figure == "curves":
        drawn = validation_curves(curves, trials)
    elif figure == "importance":
        drawn = parameter_importance(importance_of(synthetic_study(len(trials))))
    else:
        drawn = slices(trials, [column for column in HYPERPARAMETERS if column in trials])
    whole = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    assert whole is not None
    with style.theme():
        whole.canvas.draw()
    for text in whole.findobj(Text):
        assert isinstance(text, Text)
        assert text.get_fontsize() >= 7, text.get_text()
    drawn_box, (width, height) = whole.get_tightbbox(), whole.get_size_inches()
    assert drawn_box.x0 >= -0.01
    assert drawn_box.y0 >= -0.01
    assert drawn_box.x1 <= width + 0.01
    assert drawn_box.y1 <= height + 0.01
    for ax in whole.axes:
        assert ax.lines or ax.collections or ax.patches or notes(ax)


def test_a_study_of_forces_is_drawn_by_them() -> None:
    names = {"val_energy_mae": "val_forces_mae"}
    trials, curves = (frame.rename(columns=names) for frame in synthetic(MIXED))
    energies = optimisation_history(synthetic(MIXED)[0])
    history = optimisation_history(trials, "val_forces_mae")
    assert [line.get_ydata().tolist() for line in history.lines] == [one.get_ydata().tolist() for one in energies.lines]
    drawn = validation_curves(curves, trials, "val_forces_mae")
    labels = history.get_ylabel(), drawn.get_ylabel(), slices(trials, ["lr"], "val_forces_mae").get_supylabel()
    assert set(labels) == {"validation force MAE (eV/Å)"}


@pytest.mark.parametrize("name", ["mixed", "many", "two"])
def test_legends_cover_no_data(name: str) -> None:
    trials, curves = synthetic(STUDIES[name])
    for ax in (optimisation_history(trials), validation_curves(curves, trials)):
        ax.figure.canvas.draw()
        assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1 - 1


def test_figures_leave_the_callers_settings_and_axes() -> None:
    before = dict(mpl.rcParams)
    trials, curves = synthetic(MIXED)
    _, ax = plt.subplots()
    assert optimisation_history(trials, ax=ax) is ax
    assert validation_curves(curves, trials, ax=plt.subplots()[1]).figure is not ax.figure
    assert dict(mpl.rcParams) == before


def test_save_writes_png_and_pdf(tmp_path: Path) -> None:
    files = style.save(optimisation_history(synthetic(MIXED)[0]), tmp_path / "new" / "oc20.history")
    assert [file.name for file in files] == ["oc20.history.png", "oc20.history.pdf"]
    height, width, _ = plt.imread(files[0]).shape
    assert (width, height) == (style.COLUMN * style.DPI, 2.5 * style.DPI)
    assert files[1].read_bytes().startswith(b"%PDF")


def test_states_differ_without_colour() -> None:
    looks = style.STATES.values()
    assert len({look.marker for look in looks}) == len(looks)
    assert style.STATES["complete"].linestyle != style.STATES["pruned"].linestyle


# history


def test_best_so_far_falls_and_counts_complete_trials_only() -> None:
    trials, _ = synthetic(MIXED * 3)
    trials.loc[trials["state"] == "pruned", "val_energy_mae"] = 1e-3
    best = best_so_far(trials.sample(frac=1, random_state=0))
    complete = trials[trials["state"] == "complete"]
    assert best["number"].is_monotonic_increasing
    assert best["val_energy_mae"].is_monotonic_decreasing
    assert best["val_energy_mae"].iloc[0] == complete["val_energy_mae"].iloc[0]
    assert best["val_energy_mae"].iloc[-1] == complete["val_energy_mae"].min()
    assert best["number"].iloc[-1] == trials.loc[trials["state"] != "waiting", "number"].max()


def test_history_tells_states_apart() -> None:
    trials, _ = synthetic(MIXED)
    ax = optimisation_history(trials)
    assert ax.get_xlabel() == "trial"
    assert ax.get_ylabel() == "validation energy MAE (eV)"
    assert legend_labels(ax) == ["complete (6)", "pruned (6)", "running (2)", "best so far", "failed, no value (2)"]
    drawn = {points.get_label(): len(points.get_offsets()) for points in ax.collections}
    assert drawn == {"complete (6)": 6, "pruned (6)": 6, "running (2)": 2}
    best, failed = ax.lines
    assert best.get_drawstyle() == "steps-post"
    assert np.all(np.diff(np.asarray(best.get_ydata(), float)) <= 0)
    assert list(np.asarray(failed.get_xdata())) == [3, 12]


@pytest.mark.parametrize(("values", "scale"), [([1.0, 2.0, 3.0], "linear"), ([0.02, 5.0, 400.0], "log")])
def test_history_is_logarithmic_where_values_spread(values: list[float], scale: str) -> None:
    trials = synthetic(["complete"] * 3)[0].assign(val_energy_mae=values)
    assert optimisation_history(trials).get_yscale() == scale


# curves


def test_curves_draw_every_trial_and_stress_the_best() -> None:
    trials, curves = synthetic(MIXED)
    ax = validation_curves(curves, trials)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "validation energy MAE (eV)")
    best = trials.loc[trials.loc[trials["state"] == "complete", "val_energy_mae"].idxmin()]
    assert len(ax.lines) == curves["trial"].nunique()
    assert legend_labels(ax) == [f"best: trial {best['number']}", "other complete (5)", "pruned (6)", "running (2)"]
    styles = [line.get_linestyle() for line in ax.lines]
    assert (styles.count("-"), styles.count("--"), styles.count("-.")) == (6, 6, 2)
    thickest = max(ax.lines, key=lambda line: line.get_linewidth())
    assert thickest is ax.lines[0]
    assert np.asarray(thickest.get_ydata(), float).min() == pytest.approx(best["val_energy_mae"])
    assert thickest.get_markevery() == [best["best_epoch"] - 1]
    assert thickest.get_zorder() > max(line.get_zorder() for line in ax.lines[1:])


def test_curves_of_huge_first_epochs_and_diverged_trials_fit() -> None:
    trials, curves = synthetic(["complete"] * 8)
    usual = validation_curves(curves, trials).get_ylim()
    curves.loc[curves["epoch"] == 1, "val_energy_mae"] = np.where(np.arange(8) == 2, 1e9, 90.0)
    curves.loc[curves["trial"] == 5, "val_energy_mae"] *= 1e6
    curves.loc[curves["trial"] == 6, "val_energy_mae"] = np.nan
    ax = validation_curves(curves, trials)
    assert ax.get_ylim()[1] < 5 * usual[1]
    assert ax.get_ylim()[0] < curves["val_energy_mae"].min()
    assert any(label.startswith("1 trial above") for label in legend_labels(ax))


def test_a_curve_of_one_epoch_is_seen() -> None:
    trials, curves = synthetic(["complete", "pruned"])
    curves = curves[(curves["trial"] == 0) | (curves["epoch"] == 1)]
    point = validation_curves(curves, trials).lines[1]
    assert (point.get_marker(), point.get_markevery(), len(np.asarray(point.get_xdata()))) == ("x", [0], 1)


# importance


def test_importance_finds_what_matters() -> None:
    """The logarithm of the MAE depends on lr, and a little on the rate of dropout."""
    record = importance_of(synthetic_study(60))
    for method in METHODS:
        found = record[record["method"] == method]
        assert set(found["hyperparameter"]) == {"lr", "num_layers", "activation", "dropout", "dropout_rate"}
        assert found["importance"].sum() == pytest.approx(1)
        assert found["importance"].is_monotonic_decreasing
        assert found["hyperparameter"].iloc[0] == "lr"
        assert found["importance"].iloc[0] > 0.5


def test_importance_is_the_same_twice_and_leaves_the_log_level() -> None:
    study = synthetic_study(20)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    first = importance_of(study)
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    pd.testing.assert_frame_equal(first, importance_of(study))


@pytest.mark.parametrize("n_trials", [0, 1, MIN_TRIALS - 1])
def test_importance_needs_trials(n_trials: int) -> None:
    record = importance_of(synthetic_study(n_trials))
    assert record.empty
    assert list(record) == ["hyperparameter", "importance", "method"]
    ax = parameter_importance(record)
    assert not ax.patches
    assert f"{MIN_TRIALS} complete trials" in notes(ax)


def test_importance_of_equal_results_or_of_nothing_varied_is_empty() -> None:
    same = optuna.create_study()
    same.optimize(lambda trial: 1.0 + 0 * trial.suggest_float("lr", 1e-5, 1e-2), n_trials=8)
    fixed = optuna.create_study()
    fixed.optimize(lambda trial: float(trial.number + 1), n_trials=8)
    assert importance_of(same).empty
    assert importance_of(fixed).empty


def test_importance_of_a_study_taken_up_with_another_space() -> None:
    """Other ranges, a value that was enqueued from outside of them, a failed trial and an infinite one."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial({"lr": 0.5, "num_layers": 2})
    with pytest.warns(UserWarning, match="out of range"):
        study.optimize(lambda t: t.suggest_float("lr", 1e-5, 1e-2, log=True) + t.suggest_int("num_layers", 3, 9), 5)
    study.optimize(lambda t: t.suggest_float("lr", 1e-4, 1e-1, log=True) * t.suggest_int("num_layers", 10, 99), 5)
    study.optimize(lambda t: float("inf") * t.suggest_float("gamma", 0.1, 1), 1)
    study.optimize(lambda t: 1 / (0 * t.suggest_float("gamma", 0.1, 1)), 1, catch=ZeroDivisionError)
    record = importance_of(study)
    assert set(record["hyperparameter"]) == {"lr", "num_layers"}
    assert record["importance"].notna().all()


def test_importance_bars() -> None:
    record = pd.DataFrame(
        {"hyperparameter": ["lr", "gamma", "gamma"], "importance": [0.8, 0.2, 0.3], "method": ["fANOVA", *METHODS]}
    )
    ax = parameter_importance(record)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["lr", "gamma"]
    assert [bar.get_width() for bar in ax.patches] == [0.8, 0.2, 0.0, 0.3]  # type: ignore[attr-defined]
    assert [label.split(":")[0] for label in legend_labels(ax)] == list(METHODS)
    assert "0.80" in notes(ax)


# slices


def test_slices_have_a_panel_each() -> None:
    trials, _ = synthetic(MIXED * 2)
    figure = slices(trials, HYPERPARAMETERS)
    panels = {ax.get_xlabel(): ax for ax in figure.axes}
    assert list(panels) == [
        "num_layers", "activation", "dropout", "dropout_rate", "lr", "batch_size (structures)", "step_size (epochs)",
    ]  # fmt: skip
    assert figure.get_supylabel() == "validation energy MAE (eV)"
    assert {name for name, ax in panels.items() if ax.get_xscale() == "log"} == {"lr", "batch_size (structures)"}
    categories = [tick.get_text() for tick in panels["activation"].get_xticklabels()]
    assert categories == ["gelu", "relu", "tanh"]
    assert [tick.get_text() for tick in panels["dropout"].get_xticklabels()] == ["False", "True"]
    scored = trials[trials["state"].isin(["complete", "pruned"])]
    for name, ax in panels.items():
        drawn = sum(len(points.get_offsets()) for points in ax.collections)
        assert drawn == scored[name.split(" ")[0]].notna().sum(), name
    assert figure.get_size_inches()[0] == style.PAGE


def test_slices_mark_the_best_trial_where_it_is() -> None:
    trials, _ = synthetic(["complete", "pruned", "complete", "complete"])
    best = trials.loc[trials.loc[trials["state"] == "complete", "val_energy_mae"].idxmin()]
    lr, activation = slices(trials, ["lr", "activation"]).axes
    for ax in (lr, activation):
        (star,) = ax.lines
        (x,), (y,) = np.asarray(star.get_xdata(), float), np.asarray(star.get_ydata(), float)
        points = np.vstack([np.asarray(drawn.get_offsets(), float) for drawn in ax.collections])
        assert y == best["val_energy_mae"]
        assert np.abs(points - [x, y]).sum(axis=1).min() == pytest.approx(0, abs=1e-12)


def test_slices_of_lists_are_in_their_order_and_long_names_have_room() -> None:
    trials, _ = synthetic(MIXED * 2)
    lists = ["[0, 1, 2]", "[0, 1]", "[0, 1, 2, 3]"]
    trials["descriptor.orders"] = [lists[i % 3] for i in range(len(trials))]
    trials["descriptor.g2"] = [
        '{"etas": [0.25, 1.0, 5.0], "rs": [0.0]}' if i % 2 else "null" for i in range(len(trials))
    ]
    orders, functions = slices(trials, ["descriptor.orders", "descriptor.g2"]).axes
    assert [label.get_text() for label in orders.get_xticklabels()] == ["[0, 1]", "[0, 1, 2]", "[0, 1, 2, 3]"]
    named = [label.get_text() for label in functions.get_xticklabels()]
    assert named[0] == "null"
    assert named[1].startswith('{"etas": [')
    assert "…" in named[1]
    assert len(named[1]) < 24
    assert {label.get_rotation() for label in orders.get_xticklabels()} == {20.0}


def test_slices_of_mixed_choices_are_strips() -> None:
    trials = synthetic(["complete"] * 3)[0].assign(choice=["auto", 1, True], switch=[True, np.nan, False])
    choice, switch = slices(trials, ["choice", "switch"]).axes
    assert [tick.get_text() for tick in choice.get_xticklabels()] == ["1", "True", "auto"]
    assert [tick.get_text() for tick in switch.get_xticklabels()] == ["False", "True"]


# parity


@pytest.mark.parametrize(("per_atom", "unit"), [(False, "eV"), (True, "eV/atom")])
def test_parity_shows_errors_and_units(per_atom: bool, unit: str) -> None:
    errors = synthetic_errors(40)
    ax = parity(errors, per_atom=per_atom)
    assert (ax.get_xlabel(), ax.get_ylabel()) == (f"true energy ({unit})", f"predicted energy ({unit})")
    divisor = errors["n_atoms"] if per_atom else 1
    mae, per_atom_mae = errors["error"].abs().mean(), (errors["error"] / errors["n_atoms"]).abs().mean()
    total = "" if per_atom else f" ({mae:#.3g} eV)"
    assert f"MAE {1000 * per_atom_mae:#.3g}".rstrip(".") + f" meV/atom{total}\n" in notes(ax)
    assert "40 structures" in notes(ax)
    (points,) = ax.collections
    assert np.allclose(np.asarray(points.get_offsets())[:, 0], errors["energy"] / divisor)
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.lines[0].get_slope() == 1  # type: ignore[attr-defined]


def test_parity_says_what_it_leaves_out() -> None:
    errors = synthetic_errors(10)
    errors.loc[3, "predicted"] = np.inf
    assert "9 structures" in notes(parity(errors))
    assert "1 not finite, left out" in notes(parity(errors))
    assert "no structures" in notes(parity(errors.head(0)))
    assert "1 structure" in notes(parity(errors.head(1)))


def test_forces_have_parity_and_errors_of_their_own() -> None:
    random = np.random.default_rng(0)
    axes = [f"{kind}_{axis}" for kind in ("true", "predicted") for axis in "xyz"]
    forces = pd.DataFrame(random.normal(size=(20, 6)), columns=axes)
    true, predicted = forces[axes[:3]].to_numpy(), forces[axes[3:]].to_numpy()
    ax = force_parity(forces, {"test_forces_mae": 0.125, "test_forces_rmse": 0.25})
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("true force (eV/Å)", "predicted force (eV/Å)")
    assert "MAE 0.125 eV/Å\nRMSE 0.250 eV/Å\n60 components" in notes(ax)
    drawn = np.asarray(ax.collections[0].get_offsets(), float)
    assert sorted(map(tuple, drawn)) == sorted(zip(true.ravel(), predicted.ravel(), strict=True))
    ax = force_error_distribution(forces)
    assert ax.get_xlabel() == "error, predicted less true (meV/Å)"
    assert f"MAE {1000 * np.abs(predicted - true).mean():.3g}\n" in notes(ax)
    table = pd.DataFrame({"element": ["Cu", "O"], "structures": [9, 20], "forces_mae": [0.1, 0.3]})
    found = element_force_errors(table.assign(forces_mae_low=[0.05, 0.2], forces_mae_high=[0.2, 0.4]))
    assert found.to_dict("list") == {
        "element": ["O", "Cu"], "structures": [20, 9], "mae": [0.3, 0.1], "low": [0.2, 0.05], "high": [0.4, 0.2],
    }  # fmt: skip
    ax = per_element(found, forces=True)
    assert ax.get_ylabel().endswith("(meV/Å)")
    assert np.asarray(ax.lines[0].get_ydata(), float) == pytest.approx([300, 100])


# intervals


def synthetic_intervals(n: int) -> pd.DataFrame:
    errors = synthetic_errors(n)
    std = np.linspace(0.2, 2.0, n)
    return errors.assign(std=std, low=errors["predicted"] - std, high=errors["predicted"] + std)


def test_calibration_shows_stated_and_observed_coverage() -> None:
    stated = np.linspace(0.1, 0.9, 9)
    curve = pd.DataFrame({"stated": stated, "observed": stated**2, "low": stated - 0.1, "high": stated + 0.1})
    ax = calibration(curve, 0.9, (0.81, 0.7, 0.88))
    assert legend_labels(ax) == ["95 % range by chance", "observed", "0.810 at 0.9"]
    drawn = [line for line in ax.lines if len(np.asarray(line.get_xdata())) == 9]
    assert np.asarray(drawn[0].get_ydata(), float) == pytest.approx(stated**2)
    (ends,) = ax.containers[0][2]  # type: ignore[misc]
    assert np.asarray(ends.get_segments()[0])[:, 1] == pytest.approx([0.7, 0.88])
    assert "no intervals" in notes(calibration(curve.head(0)))


@pytest.mark.parametrize(("per_atom", "unit"), [(False, "eV"), (True, "meV/atom")])
def test_spread_shows_which_errors_lie_within_their_intervals(per_atom: bool, unit: str) -> None:
    errors = synthetic_intervals(40)
    ax = spread(errors, per_atom=per_atom)
    assert (ax.get_xlabel(), ax.get_ylabel()) == (f"spread of the members ({unit})", f"absolute error ({unit})")
    within = int((errors["error"].abs() <= errors["std"]).sum())
    assert set(legend_labels(ax)) == {f"{within} within", f"{40 - within} outside", "half interval"}
    drawn = np.vstack([np.asarray(points.get_offsets(), float) for points in ax.collections])
    divisor = errors["n_atoms"].to_numpy() / 1000 if per_atom else 1
    assert sorted(drawn[:, 0]) == pytest.approx(sorted(errors["std"].to_numpy() / divisor))
    assert ax.get_ylim()[0] == 0
    errors.loc[:, "std"] = np.nan
    assert "no structures" in notes(spread(errors))


def test_figures_of_intervals_are_readable() -> None:
    curve = pd.DataFrame({"stated": [0.3, 0.9], "observed": [0.2, 0.8], "low": [0.1, 0.7], "high": [0.5, 1.0]})
    for ax in (calibration(curve, 0.9, (0.8, 0.7, 0.88)), spread(synthetic_intervals(300))):
        figure = ax.get_figure(root=True)
        assert figure is not None
        with style.theme():
            figure.canvas.draw()
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert box.x0 >= -0.01
        assert box.y0 >= -0.01
        assert box.x1 <= width + 0.01
        assert box.y1 <= height + 0.01
        assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1 - 1  # type: ignore[union-attr]
