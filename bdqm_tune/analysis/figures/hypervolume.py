"""How the Pareto front of a study advanced from trial to trial."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bdqm_tune.analysis.figures import style
from bdqm_tune.services.optuna_private import compute_hypervolume
from bdqm_tune.study.objectives import is_on_pareto_front


def hypervolume_history(trials: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """The share of the space of objectives that the complete trials up to each one dominate.

    The objectives count by their logarithms, as errors and costs span decades; the space is the box from the lowest to
    the highest value of each that any complete trial has. What all have alike does not count.

    Args:
        trials: one row a trial: number, state, and the objectives, all positive.

    Returns:
        number and hypervolume, from 0 to 1: one row a complete trial.
    """
    complete = trials[trials["state"] == "complete"].dropna(subset=list(objectives)).sort_values("number")
    points = np.log(complete[list(objectives)].to_numpy(float))
    if len(points):
        points = (points - points.min(axis=0)) / np.where(np.ptp(points, axis=0) > 0, np.ptp(points, axis=0), 1)
        points = points[:, np.ptp(points, axis=0) > 0]
    share, shares, front = 0.0, [], points[:0]
    for point in points:
        if point.size and not (front <= point).all(axis=1).any():
            front = np.vstack([front, point])
            front = front[is_on_pareto_front(front)]
            share = float(compute_hypervolume(front, np.ones(len(point))))
        shares.append(share)
    return pd.DataFrame({"number": complete["number"].to_numpy(), "hypervolume": shares})


def hypervolume(trials: pd.DataFrame, objectives: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw the share of the space of objectives that the trials so far dominate.

    Args:
        trials: one row a trial: number, state, and the objectives.
        objectives: what the trials are judged by, as the columns are called.
        ax: where to draw; default: a figure of its own, as wide as a column.
    """
    with style.theme():
        ax = ax or style.new_axes()
        found = hypervolume_history(trials, objectives)
        ax.set(xlabel="trial", ylabel="hypervolume of the Pareto front\n(share, of logarithms)")
        if found.empty:
            style.note(ax, "no trial is complete yet")
            return ax
        ax.step(found["number"], found["hypervolume"], where="post", color=style.BEST.color, linewidth=1.3)
        ax.set_ylim(0, 1)
        style.whole_numbers(ax, found["number"])
    return ax
