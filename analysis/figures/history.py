"""How the validation MAE fell from trial to trial."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.figures import style


def best_so_far(trials: pd.DataFrame, objective: str = style.MAE) -> pd.DataFrame:
    """The lowest MAE of the complete trials up to each trial.

    Args:
        trials: one row a trial: number, state, and the objective.
        objective: what the trials are judged by, as its column is called.

    Returns:
        number and the objective: from the first complete trial to the last trial that was tried.
    """
    ordered = trials[trials["state"] != "waiting"].sort_values("number")
    values = ordered[objective].astype(float).where(ordered["state"] == "complete").cummin().ffill()
    return pd.DataFrame({"number": ordered["number"], objective: values}).dropna().reset_index(drop=True)


def optimisation_history(trials: pd.DataFrame, objective: str = style.MAE, ax: Axes | None = None) -> Axes:
    """Draw the MAE of every trial and the best so far.

    Args:
        trials: one row a trial: number, state, and the objective (of pruned trials the best until then).
        objective: what the trials are judged by, as its column is called.
        ax: where to draw; default: a figure of its own, as wide as a column.
    """
    with style.theme():
        ax = ax or style.new_axes()
        scored = trials.dropna(subset=[objective])
        for state, look in style.STATES.items():
            rows = scored[scored["state"] == state]
            if rows.empty:
                continue
            sns.scatterplot(
                data=rows, x="number", y=objective, ax=ax, marker=look.marker, color=look.color, s=22,
                linewidth=1.1 if look.marker == "x" else 0.4, zorder=look.z,
                label=f"{state} ({len(rows)})", legend=False,
            )  # fmt: skip
        best = best_so_far(trials, objective)
        if not best.empty:
            sns.lineplot(
                data=best, x="number", y=objective, ax=ax, drawstyle="steps-post", color=style.BEST.color,
                linewidth=1.3, errorbar=None, zorder=style.BEST.z, label="best so far", legend=False,
            )  # fmt: skip
        lost = trials[(trials["state"] == "failed") & trials[objective].isna()]
        if not lost.empty:  # no value to draw: marked at the lower edge
            look = style.STATES["failed"]
            ax.plot(
                lost["number"], [0.03] * len(lost), look.marker, transform=ax.get_xaxis_transform(), color=look.color,
                markersize=4, clip_on=False, label=f"failed, no value ({len(lost)})",
            )  # fmt: skip
        ax.set(xlabel="trial", ylabel=style.label(objective))
        if scored.empty:
            style.note(ax, f"none of {len(trials)} trials has a validation MAE" if len(trials) else "no trials yet")
        else:
            style.whole_numbers(ax, trials["number"])
            if style.wide(scored[objective], 10):
                style.log_axis(ax, "y")
        style.legend_above(ax)
    return ax
