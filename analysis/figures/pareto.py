"""What a lower error costs: the validation MAE against the size and the time of a network."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.statistics import pareto_front

COSTS = {"n_parameters": "parameters of the network", "microseconds": "training time per atom and epoch (µs)"}


def with_costs(trials: pd.DataFrame, atoms: int | None) -> pd.DataFrame:
    """The trials with a column microseconds: their time, all of it, by their epochs and the atoms that they trained on.

    Args:
        trials: one row a trial: trial_seconds, epochs.
        atoms: in the training split; None: not known, and the column is NaN.
    """
    steps = trials["epochs"].astype(float).where(trials["epochs"] > 0) * (atoms or np.nan)
    return trials.assign(microseconds=1e6 * trials["trial_seconds"].astype(float) / steps)


def pareto(trials: pd.DataFrame, objective: str = style.MAE) -> Figure:
    """Draw the MAE of complete trials against each cost, and the front of those that no other beats in both.

    Args:
        trials: one row a trial: state, the objective, n_parameters, and microseconds as `with_costs` adds it.
        objective: what the trials are judged by, as its column is called.
    """
    with style.theme():
        figure, axes = plt.subplots(1, 2, figsize=(style.PAGE, 2.6), layout="constrained")
        complete = trials[(trials["state"] == "complete") & np.isfinite(trials[objective].astype(float))]
        for ax, (cost, text) in zip(axes, COSTS.items(), strict=True):
            _panel(ax, complete, cost, objective)
            ax.set(xlabel=text, ylabel=style.label(objective) if ax is axes[0] else "")
    return figure


def _panel(ax: Axes, complete: pd.DataFrame, cost: str, objective: str) -> None:
    ax.tick_params(labelsize=7)
    rows = complete[complete[cost].notna()]
    if rows.empty:
        style.note(ax, "no trial is complete yet" if complete.empty else "not known for these trials")
        return
    front = pareto_front(rows, cost, objective)
    style.points(ax, rows[cost], rows[objective], style.STATES["complete"], f"complete ({len(rows)})")
    ax.step(front[cost], front[objective], where="post", color=style.BEST.color, linewidth=1.3, zorder=4)
    ax.plot(
        front[cost], front[objective], "D", color=style.BEST.color, markersize=4, markeredgecolor="white",
        markeredgewidth=0.4, zorder=5, label=f"front ({len(front)})",
    )  # fmt: skip
    if style.wide(rows[cost], 10):
        style.log_axis(ax, "x")
    if style.wide(rows[objective], 10):
        style.log_axis(ax, "y")
    style.legend_above(ax)
