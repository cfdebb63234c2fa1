"""How long trials took, and the hours that pruning saved."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bdqm_tune.analysis.figures import style

BINS = 24


@dataclass(frozen=True)
class Saved:
    """What pruning saved."""

    spent: float  # hours, of complete and pruned trials
    saved: float  # hours, that pruned trials would have taken on; an estimate
    trials: int  # that were pruned


def hours_saved(trials: pd.DataFrame) -> Saved:
    """Hours that trials took, and that pruned ones would have taken had they gone on.

    An estimate: a pruned trial is taken to go on at its own pace until the epoch at which the median complete trial
    ended, by early stopping or at the last epoch.

    Args:
        trials: one row a trial: state, epochs, trial_seconds.
    """
    seconds, epochs = trials["trial_seconds"].astype(float), trials["epochs"].astype(float)
    scored = trials["state"].isin(style.SCORED)
    pruned = (trials["state"] == "pruned") & (epochs > 0)
    usual = epochs[trials["state"] == "complete"].median()
    rest = (usual - epochs[pruned]).clip(lower=0) * seconds[pruned] / epochs[pruned]
    return Saved(float(seconds[scored].sum()) / 3600, float(rest.sum()) / 3600, int(pruned.sum()))


def durations(trials: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how many trials took how long, pruned ones above complete ones, and say what pruning saved.

    Args:
        trials: one row a trial: state, epochs, trial_seconds.
        ax: where to draw; default: a figure of its own, as wide as a column.
    """
    with style.theme():
        ax = ax or style.new_axes()
        seconds = trials["trial_seconds"].astype(float)
        shown = [state for state in ("complete", "pruned", "failed") if (seconds[trials["state"] == state] > 0).any()]
        ax.set(xlabel="duration of a trial (s)", ylabel="trials")
        if not shown:
            style.note(ax, "no trial has ended yet")
            return ax
        groups = [seconds[(trials["state"] == state) & (seconds > 0)].to_numpy() for state in shown]
        every = np.concatenate(groups)
        logarithmic = style.wide(every, 10)
        low, high = every.min(), every.max()
        if low == high:
            low, high = 0.9 * low, 1.1 * high
        edges = (np.geomspace if logarithmic else np.linspace)(low, high, min(BINS, 4 + len(every) // 3))
        hatches = {"complete": "", "pruned": "////", "failed": "...."}
        drawn: Any = ax.hist(
            groups, bins=edges.tolist(), stacked=True, color=[style.STATES[state].color for state in shown],
            label=[f"{state} ({len(group)})" for state, group in zip(shown, groups, strict=True)],
        )  # fmt: skip
        bars = drawn[2]  # matplotlib gives one group itself, several as a list
        for state, container in zip(shown, [bars] if len(shown) == 1 else bars, strict=True):
            for bar in container:
                bar.set(hatch=hatches[state], edgecolor="white", linewidth=0.3)
        if logarithmic:
            style.log_axis(ax, "x")
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        style.legend_above(ax, columns=3)
        found = hours_saved(trials)
        if found.trials and np.isfinite(found.saved) and "complete" in shown:
            share = found.saved / (found.saved + found.spent)
            ax.set_ylim(top=1.35 * ax.get_ylim()[1])  # room for the text
            text = f"{_hours(found.spent)} spent\nabout {_hours(found.saved)} saved\nby pruning ({share:.0%})"
            ax.text(0.98, 0.97, text, transform=ax.transAxes, ha="right", va="top", fontsize=7, bbox=style.BOX)
    return ax


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.1f} s"
