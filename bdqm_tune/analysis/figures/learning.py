"""What more training structures would bring: the error against the size of the training split."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from bdqm_tune.analysis.figures import style
from bdqm_tune.analysis.statistics import bootstrap_mean


def learning_points(results: pd.DataFrame) -> pd.DataFrame:
    """The mean over repeats at each size, with its interval.

    Args:
        results: one row a trained model: structures, mae.

    Returns:
        structures, mae, low, high (95 % by bootstrap; NaN of one), repeats; by size.
    """
    rows = []
    for size, part in results.dropna(subset=["structures", "mae"]).groupby("structures"):
        values = part["mae"].to_numpy(float)
        low, high = bootstrap_mean(values)
        rows.append((size, values.mean(), float(low), float(high), len(values)))
    return pd.DataFrame(rows, columns=["structures", "mae", "low", "high", "repeats"])


def power_law(found: pd.DataFrame) -> tuple[float, float] | None:
    """a and b of mae = a · structures^b, by least squares of the logarithms; None of fewer than three sizes."""
    positive = found[found["mae"] > 0]
    if len(positive) < 3:
        return None
    exponent, logarithm = np.polyfit(np.log(positive["structures"].to_numpy(float)), np.log(positive["mae"]), 1)
    return float(np.exp(logarithm)), float(exponent)


def learning_curve(results: pd.DataFrame, ylabel: str, ax: Axes | None = None) -> Axes:
    """Draw the error of every model against the size of its training split, the means, and a power law through them.

    Args:
        results: one row a trained model: structures, mae.
        ylabel: what mae is, with its unit.
        ax: where to draw; default: a figure of its own, as wide as a column.
    """
    with style.theme():
        ax = ax or style.new_axes()
        ax.set(xlabel="training structures", ylabel=ylabel)
        found = learning_points(results)
        if found.empty:
            style.note(ax, "no models to compare")
            return ax
        look = style.STATES["complete"]
        single = results.dropna(subset=["structures", "mae"])
        ax.scatter(single["structures"], single["mae"], s=10, color="0.6", zorder=2, label=f"models ({len(single)})")
        reach = np.abs(found[["low", "high"]].to_numpy().T - found["mae"].to_numpy())
        ax.errorbar(
            found["structures"], found["mae"], yerr=reach, color=look.color, fmt="o-", markersize=4, capsize=2,
            linewidth=1.2, zorder=3, label="mean, 95 % interval",
        )  # fmt: skip
        law = power_law(found)
        if law is not None:
            x = np.geomspace(found["structures"].min(), found["structures"].max(), 50)
            text = f"∝ structures$^{{{law[1]:.2f}}}$"
            ax.plot(x, law[0] * x ** law[1], color="0.2", linestyle=":", linewidth=1.1, label=text)
        if len(found) > 1:
            ax.set(xscale="log")
            ax.set_xticks(found["structures"], [f"{size:.0f}" for size in found["structures"]])
            ax.xaxis.set_minor_locator(NullLocator())
        if style.wide(single["mae"], 5):
            style.log_axis(ax, "y")
        style.legend_above(ax)
    return ax
