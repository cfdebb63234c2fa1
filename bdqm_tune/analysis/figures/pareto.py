"""What a lower error costs: the validation MAE against the size and the time of a network."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bdqm_tune.analysis.figures import style
from bdqm_tune.analysis.statistics import pareto_front
from bdqm_tune.study.objectives import is_on_pareto_front

LABELS = {
    "n_parameters": "parameters of the network",
    "microseconds": "training time per atom and epoch (µs)",
    "time_per_atom": "prediction time per atom (µs)",
}
COSTS = ("n_parameters", "microseconds")  # of a study of one objective
MOST_NUMBERS = 15  # trials of a Pareto front that have theirs beside them


def with_costs(trials: pd.DataFrame, atoms: int | None) -> pd.DataFrame:
    """The trials with a column microseconds: their time, all of it, by their epochs and the atoms that they trained on.

    Args:
        trials: one row a trial: trial_seconds, epochs.
        atoms: in the training split; None: not known, and the column is NaN.
    """
    steps = trials["epochs"].astype(float).where(trials["epochs"] > 0) * (atoms or np.nan)
    return trials.assign(microseconds=1e6 * trials["trial_seconds"].astype(float) / steps)


def pareto(trials: pd.DataFrame, objective: str = style.MAE, objectives: Sequence[str] = ()) -> Figure:
    """Draw the MAE of complete trials against each cost, and the Pareto front of the two.

    Args:
        trials: one row a trial: number, state, the objective, n_parameters, and microseconds as `with_costs` adds it.
        objective: the error that picks the best epoch, as its column is called.
        objectives: of a study of several; it is drawn against the others, and the trials of the Pareto front of all of
            them bear their numbers.
    """
    several = len(objectives) > 1
    costs = [name for name in objectives if name != objective] if several else COSTS
    with style.theme():
        width = style.COLUMN if len(costs) == 1 else style.PAGE
        figure, axes = plt.subplots(1, len(costs), figsize=(width, 2.6), layout="constrained", squeeze=False)
        complete = trials[(trials["state"] == "complete") & np.isfinite(trials[objective].astype(float))]
        if "time_per_atom" in costs:
            complete = complete.assign(time_per_atom=1e6 * complete["time_per_atom"].astype(float))
        chosen = complete[is_on_pareto_front(complete[list(objectives)].to_numpy(float))] if several else None
        for ax, cost in zip(axes[0], costs, strict=True):
            _panel(ax, complete, cost, objective, chosen)
            text = LABELS[cost] if cost in LABELS else style.label(cost)
            ax.set(xlabel=text, ylabel=style.label(objective) if ax is axes[0, 0] else "")
    return figure


def _panel(ax: Axes, complete: pd.DataFrame, cost: str, objective: str, chosen: pd.DataFrame | None = None) -> None:
    """Draw one cost; `chosen` are the trials of the Pareto front, where they are not those of this panel alone."""
    ax.tick_params(labelsize=7)
    rows = complete[complete[cost].notna()]
    if rows.empty:
        style.note(ax, "no trial is complete yet" if complete.empty else "not known for these trials")
        return
    front = pareto_front(rows, cost, objective)
    marked = front if chosen is None else chosen
    style.points(ax, rows[cost], rows[objective], style.STATES["complete"], f"complete ({len(rows)})")
    ax.step(front[cost], front[objective], where="post", color=style.BEST.color, linewidth=1.3, zorder=4)
    ax.plot(
        marked[cost], marked[objective], "D", color=style.BEST.color, markersize=4, markeredgecolor="white",
        markeredgewidth=0.4, zorder=5, label=f"Pareto front ({len(marked)})",
    )  # fmt: skip
    if chosen is not None and len(chosen) <= MOST_NUMBERS:
        for number, x, y in zip(chosen["number"], chosen[cost], chosen[objective], strict=True):
            ax.annotate(str(number), (x, y), (3, 3), textcoords="offset points", fontsize=6, zorder=6)
    if style.wide(rows[cost], 10):
        style.log_axis(ax, "x")
    if style.wide(rows[objective], 10):
        style.log_axis(ax, "y")
    style.legend_above(ax)
