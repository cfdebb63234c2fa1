"""The validation curve of every trial: which were stopped early, and how the best one learned."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bdqm_tune.analysis.figures import style
from bdqm_tune.units import OBJECTIVE_UNITS

QUANTILE = 0.98  # of the values: what is above, mostly first epochs, may leave the axes at the top
WIDE = 10  # highest over lowest value from which the axis is logarithmic
MANY_LINES, MOST_LINES = 60, 300  # of one state, from which they are thin; that are drawn
DIVERGED = 100  # a trial whose lowest MAE is so many times the median trial's does not stretch the axis


def limits(curves: pd.DataFrame, objective: str = style.MAE) -> tuple[float, float]:
    """Limits that show what the curves come to, whatever a few first epochs or one diverged trial did."""
    lowest = curves.groupby("trial")[objective].transform("min")
    usual = lowest <= DIVERGED * lowest.groupby(curves["trial"]).first().median()
    values = curves.loc[usual, objective].to_numpy(float)
    low, highest = float(values.min()), float(values.max())
    if style.wide(values, WIDE):
        return low / 1.25, 1.25 * float(np.quantile(values, QUANTILE))
    margin = 0.06 * (highest - low) or 0.05 * highest or 0.5
    return low - margin, highest + margin


def validation_curves(
    curves: pd.DataFrame, trials: pd.DataFrame, objective: str = style.MAE, ax: Axes | None = None
) -> Axes:
    """Draw the validation MAE per epoch of every trial: pruned ones dashed and grey, the best one thick.

    Args:
        curves: trial, epoch, and the objective.
        trials: one row a trial: number, state, and the objective.
        objective: what the trials are judged by, as its column is called.
        ax: where to draw; default: a figure of its own, as wide as a column.
    """
    with style.theme():
        ax = ax or style.new_axes(height=2.8)
        ax.set(xlabel="epoch", ylabel=style.label(objective))
        curves = curves[np.isfinite(curves[objective].astype(float))]
        if curves.empty:
            style.note(ax, "no validation curves yet")
            return ax
        best = style.best_trial(trials, objective)
        lowest = curves.groupby("trial", as_index=False)[objective].min()
        states = dict(zip(trials["number"], trials["state"], strict=True))
        if best is not None:
            kept = trials.loc[trials["number"] == best, "best_epoch"].iloc[0]
            _draw(ax, curves[curves["trial"] == best], objective, style.BEST, f"best: trial {best}", 1.7, kept)
        for state, look in style.STATES.items():
            numbers = [n for n in curves["trial"].unique() if states.get(n) == state and n != best]
            if numbers:
                other = "other " if state == "complete" and best is not None else ""
                shown = style.thinned(lowest[lowest["trial"].isin(numbers)], objective, MOST_LINES)["trial"]
                count = f"{len(numbers)}" if len(shown) == len(numbers) else f"{len(shown)} of {len(numbers)}"
                _draw(ax, curves[curves["trial"].isin(shown)], objective, look, f"{other}{state} ({count})", 0.8)
        low, high = limits(curves, objective)
        ax.set_ylim(low, high)
        if low > 0 and high > WIDE * low:
            style.log_axis(ax, "y")
        style.whole_numbers(ax, curves["epoch"])
        hidden = int((curves.groupby("trial")[objective].min() > high).sum())
        if hidden:
            ax.plot(
                [],
                [],
                "^",
                color="0.55",
                markersize=3.5,
                label=f"{hidden} trial{'s' * (hidden != 1)} above {high:.3g} {OBJECTIVE_UNITS[objective]}",
            )
        style.legend_above(ax)
    return ax


def _draw(
    ax: Axes,
    curves: pd.DataFrame,
    objective: str,
    look: style.Look,
    label: str,
    linewidth: float,
    kept: float | None = None,
) -> None:
    """One line a trial, and a mark where each ends, or at the epoch that is kept."""
    groups = [(part["epoch"].to_numpy(float), part[objective].to_numpy(float)) for _, part in curves.groupby("trial")]
    many = len(groups) > MANY_LINES
    alpha = 0.9 if len(groups) <= 15 else 0.15 if many else 0.5
    for position, (x, y) in enumerate(groups):
        (line,) = ax.plot(
            x, y, color=look.color, linestyle=look.linestyle, linewidth=linewidth, zorder=look.z, rasterized=many,
            label=label if position == 0 else None, marker=look.marker,
        )  # fmt: skip
        if kept is not None:
            line.set(markersize=9, markevery=[min(int(np.searchsorted(x, kept)), len(x) - 1)], markeredgewidth=0.5)
        else:
            line.set(markersize=2 if many else 3.5, markevery=[len(x) - 1], alpha=alpha)
            line.set(markeredgecolor=look.color, markeredgewidth=0.8)
