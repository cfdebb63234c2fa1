"""The validation MAE over two hyperparameters together."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from bdqm_tune.analysis.figures import style
from bdqm_tune.analysis.figures.slices import LOGARITHMIC, axis_label

POINTS = 60  # of the grid, along each axis
NEIGHBOURS, SHARE = 10, 0.01  # trials that a point of the grid is averaged over: so many, or that share of them
DOTS = 150  # trials that are shown
FAR = 0.18  # of the axes' length: where no trial is nearer, nothing is drawn
MIN_TRIALS = 8


def surface(x: NDArray[np.float64], y: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values smoothed over a grid of the unit square (POINTS, POINTS), its first index along y; NaN far from all.

    The mean over the nearest points, with weights that fall as a Gaussian whose width is the distance of the farthest
    of them: it goes through no single trial, whose noise is none of the reader's.

    Args:
        x, y: (n_trials,), 0 to 1.
        values: (n_trials,).
    """
    axis = np.linspace(0, 1, POINTS)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    distance, nearest = cKDTree(np.column_stack([x, y])).query(
        grid, k=min(max(NEIGHBOURS, round(SHARE * len(x))), len(x))
    )
    weight = np.exp(-2 * (distance / distance[:, -1:].clip(1e-9)) ** 2)
    smooth = (weight * values[nearest]).sum(axis=1) / weight.sum(axis=1)
    return np.where(distance[:, 0] > FAR, np.nan, smooth).reshape(POINTS, POINTS)


def most_important(trials: pd.DataFrame, hyperparameters: Sequence[str], importances: pd.DataFrame) -> list[str]:
    """The two hyperparameters to draw: numbers of several values, those that count most first.

    Args:
        trials: one row a trial: a column per hyperparameter.
        hyperparameters: those that were searched.
        importances: hyperparameter, importance; may be empty.
    """
    weight = importances.groupby("hyperparameter")["importance"].mean()
    columns = {name: trials[name].dropna().infer_objects() for name in hyperparameters if name in trials}
    usable = [
        name
        for name, values in columns.items()
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and values.nunique() > 1
    ]
    return sorted(usable, key=lambda name: -weight.get(name, 0.0))[:2]


def contour(trials: pd.DataFrame, pair: Sequence[str], objective: str = style.MAE, ax: Axes | None = None) -> Axes:
    """Draw the MAE over two hyperparameters as filled contours, smoothed, with the trials and the best one.

    Args:
        trials: one row a trial: number, state, the objective, and both hyperparameters, which must be numbers.
        pair: two hyperparameters, along x and along y.
        objective: what the trials are judged by, as its column is called.
        ax: where to draw; default: a figure of its own, as wide as a column.
    """
    with style.theme():
        ax = ax or style.new_axes(height=2.7)
        if len(pair) < 2:
            ax.set(xlabel="one hyperparameter", ylabel="another one")
            style.note(ax, "no two numbers were searched")
            return ax
        first, second = pair
        ax.set(xlabel=axis_label(first), ylabel=axis_label(second))
        rows = trials[trials["state"].isin(style.SCORED)].dropna(subset=[first, second, objective])
        columns = {name: pd.to_numeric(rows[name], errors="coerce").to_numpy(float) for name in (first, second)}
        values = rows[objective].to_numpy(float)
        usable = np.isfinite(values) & np.isfinite(np.stack(list(columns.values()))).all(axis=0)
        varied = all(np.ptp(column[usable]) > 0 for column in columns.values()) if usable.any() else False
        if usable.sum() < MIN_TRIALS or not varied or np.ptp(values[usable]) == 0:
            style.note(ax, f"no contours: they need {MIN_TRIALS} trials\nof different values and results")
            return ax
        rows, values = rows[usable], values[usable]
        columns = {name: column[usable] for name, column in columns.items()}
        logarithmic = style.wide(values, 5)
        heights = np.log10(values) if logarithmic else values
        scaled, ticks = [], []
        for name, column in columns.items():
            log = style.wide(column, 5 if name in LOGARITHMIC else 30)
            ends = (np.log10(column) if log else column).min(), (np.log10(column) if log else column).max()
            scaled.append(((np.log10(column) if log else column) - ends[0]) / (ends[1] - ends[0]))
            ticks.append(
                np.geomspace(column.min(), column.max(), POINTS)
                if log
                else np.linspace(column.min(), column.max(), POINTS)
            )
        smooth = surface(scaled[0], scaled[1], heights)
        low, high = np.nanquantile(smooth, [0, 0.95])
        levels = np.linspace(low, high if high > low else low + 1, 9)
        drawn = ax.contourf(ticks[0], ticks[1], smooth, levels=levels, cmap="cividis", extend="max")
        for axis, name in zip("xy", columns, strict=True):
            if style.wide(columns[name], 5 if name in LOGARITHMIC else 30):
                style.log_axis(ax, axis)  # type: ignore[arg-type]
        shown = style.thinned(rows, objective, DOTS)
        ax.scatter(shown[first].astype(float), shown[second].astype(float), s=5, color="white", edgecolor="0.2",
                   linewidth=0.4, zorder=3)  # fmt: skip
        best = rows[rows["number"] == style.best_trial(trials, objective)]
        ax.plot(best[first].astype(float), best[second].astype(float), style.BEST.marker, color=style.BEST.color,
                markersize=10, markeredgecolor="white", linestyle="none", zorder=style.BEST.z)  # fmt: skip
        bar = (ax.get_figure(root=True) or ax.figure).colorbar(drawn, ax=ax, pad=0.02)
        bar.set_label(style.label(objective), fontsize=8)
        shown_levels = levels[::2].tolist()
        bar.set_ticks(shown_levels, labels=[f"{10**level if logarithmic else level:.3g}" for level in shown_levels])
        bar.ax.tick_params(labelsize=7)
    return ax
