"""How the validation MAE fell from trial to trial, and how it would have by chance."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bdqm_tune.analysis.figures import style
from bdqm_tune.analysis.statistics import expected_best

MIN_RANDOM = 3  # trials; of fewer, there is no baseline


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


def random_baseline(trials: pd.DataFrame, objective: str = style.MAE) -> pd.DataFrame:
    """The best MAE that n random trials have on average.

    Trials whose parameters were given are none of the random sampler's. A pruned trial counts with what it had
    reached, which is no better than what it would have come to.

    Args:
        trials: one row a trial: state, the objective and, where it is known, sampler and given.

    Returns:
        n_trials and the objective, from 1 to as many random trials as there are; empty where there are hardly any.
    """
    sampled = trials.get("sampler", pd.Series("", trials.index)) == "random"
    given = trials.get("given", pd.Series(False, trials.index)).fillna(False).astype(bool)
    values = trials.loc[sampled & ~given & trials["state"].isin(style.SCORED), objective].astype(float).dropna()
    values = values[np.isfinite(values)]
    if len(values) < MIN_RANDOM:
        return pd.DataFrame({"n_trials": [], objective: []})
    return pd.DataFrame({"n_trials": range(1, len(values) + 1), objective: expected_best(values.to_numpy())})


def optimisation_history(
    trials: pd.DataFrame,
    objective: str = style.MAE,
    baseline: pd.DataFrame | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the MAE of every trial, the best so far, and what random trials come to.

    Args:
        trials: one row a trial: number, state, and the objective (of pruned trials the best until then).
        objective: what the trials are judged by, as its column is called.
        baseline: n_trials and the objective, as `random_baseline` gives it.
        ax: where to draw; default: a figure of its own, as wide as a column.
    """
    with style.theme():
        ax = ax or style.new_axes()
        scored = trials[np.isfinite(trials[objective].astype(float))]
        for state, look in style.STATES.items():
            rows = scored[scored["state"] == state]
            if not rows.empty:
                style.points(ax, rows["number"], rows[objective], look, f"{state} ({len(rows)})", size=18)
        best = best_so_far(trials, objective)
        if not best.empty:
            ax.step(
                best["number"], best[objective], where="post", color=style.BEST.color, linewidth=1.3,
                zorder=style.BEST.z, label="best so far",
            )  # fmt: skip
        if baseline is not None and not baseline.empty:
            ax.plot(
                baseline["n_trials"] - 1, baseline[objective], color="0.15", linestyle=":", linewidth=1.3,
                zorder=style.BEST.z, label="random, expected best",
            )  # fmt: skip
        failed = trials[(trials["state"] == "failed") & trials[objective].isna()]
        if not failed.empty:  # no value to draw: marked at the lower edge
            look = style.STATES["failed"]
            ax.plot(
                failed["number"], [0.03] * len(failed), look.marker, transform=ax.get_xaxis_transform(),
                color=look.color, markersize=4, clip_on=False, label=f"failed, no value ({len(failed)})",
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
