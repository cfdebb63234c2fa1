"""Groups of repeated studies side by side: how their best fell with trials and with epochs, and what it came to."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bdqm_tune.analysis.figures import style
from bdqm_tune.analysis.statistics import bootstrap_mean

LETTERS = 34  # of a group's name in a legend


def mean_best(curves: pd.DataFrame, x: str) -> pd.DataFrame:
    """The mean over repeats of the best so far, and its 95 % interval, where every repeat has one.

    Args:
        curves: group, study, the column `x`, best.

    Returns:
        group, the column `x`, best, low, high (NaN of a single repeat).
    """
    parts = []
    for group, part in curves.groupby("group", sort=False):
        table = part.pivot(index=x, columns="study", values="best").dropna()
        low, high = bootstrap_mean(table.to_numpy(float).T)
        parts.append(
            pd.DataFrame(
                {"group": group, x: table.index, "best": table.mean(axis=1).to_numpy(), "low": low, "high": high}
            )
        )
    return pd.concat(parts, ignore_index=True)


def comparison(
    by_trials: pd.DataFrame, by_epochs: pd.DataFrame, studies: pd.DataFrame, objective: str = style.MAE
) -> Figure:
    """Draw the best so far against trials and against epochs of training, and the final best of every study.

    Against trials, samplers are compared; against epochs, pruners, too, which save them.

    Args:
        by_trials: group, study, n_trials, best.
        by_epochs: group, study, epochs (of all trials together), best.
        studies: group, study, best.
        objective: what the trials are judged by, as its column is called.
    """
    groups = list(dict.fromkeys(studies["group"]))
    looks = dict(zip(groups, style.series(len(groups)), strict=True))
    with style.theme():
        room = 0.17 * -(-len(groups) // 2)
        figure, axes = plt.subplots(
            1, 3, figsize=(style.PAGE, 2.4 + room), layout="constrained", width_ratios=[1, 1, 0.6], sharey=True
        )
        for ax, curves, x, text in (
            (axes[0], by_trials, "n_trials", "trials"),
            (axes[1], by_epochs, "epochs", "epochs trained, all trials"),
        ):
            _curves(ax, mean_best(curves, x), x, looks)
            ax.set(xlabel=text, ylabel=f"best so far:\n{style.label(objective)}" if ax is axes[0] else "")
        _finals(axes[2], studies, looks)
        axes[2].set(xlabel=f"after {by_trials['n_trials'].max()} trials")
        if style.wide(pd.concat([by_trials["best"], by_epochs["best"]]), 10):
            style.log_axis(axes[0], "y")
        handles, labels = axes[0].get_legend_handles_labels()
        texts = [style.shortened(label, LETTERS) for label in labels]
        figure.legend(handles, texts, loc="outside upper left", ncols=2, frameon=False, fontsize=7, handlelength=2.8)
        for ax in axes:
            ax.tick_params(labelsize=7)
    return figure


def _curves(ax: Axes, found: pd.DataFrame, x: str, looks: dict[str, style.Look]) -> None:
    for group, look in looks.items():
        part = found[found["group"] == group]
        if part["low"].notna().any():
            ax.fill_between(part[x], part["low"], part["high"], step="post", color=look.color, alpha=0.2, linewidth=0)
        ax.step(
            part[x], part["best"], where="post", color=look.color, linestyle=look.linestyle, linewidth=1.3, label=group,
            marker=look.marker, markersize=3.5, markevery=max(1, len(part) // 5),
        )  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))


def _finals(ax: Axes, studies: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    """Every study's best as a point, and beside them the mean of the group with its interval."""
    for place, (group, look) in enumerate(looks.items()):
        values = studies.loc[studies["group"] == group, "best"].to_numpy(float)
        spread = 0.12 * (np.arange(len(values)) - (len(values) - 1) / 2) / max(1, len(values) - 1)
        ax.plot(place - 0.15 + spread, values, look.marker, color=look.color, markersize=3.5, alpha=0.7)
        low, high = bootstrap_mean(values)
        mean = values.mean()
        reach = np.abs(np.array([[low], [high]], dtype=float) - mean)
        ax.errorbar(
            [place + 0.2], [mean], yerr=reach, fmt="_", color=look.color, markersize=8, capsize=2, linewidth=1.2
        )
    ax.set(xticks=[], xlim=(-0.6, len(looks) - 0.4))
