"""Whether intervals hold what they state, and whether the spread of an ensemble follows its error."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bdqm_tune.analysis.figures import style
from bdqm_tune.units import MEV


def calibration(
    coverage: pd.DataFrame,
    stated: float | None = None,
    observed: tuple[float, float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw observed against stated coverage, the diagonal, and the range that chance alone explains.

    Args:
        coverage: stated, observed, low, high at several levels.
        stated: the coverage that the intervals were made for.
        observed: what was observed for it, and the ends of its confidence interval.
        ax: where to draw; default: a figure of its own, as wide as a column.
    """
    with style.theme():
        ax = ax or style.new_axes(height=3.2)
        ax.set(xlabel="stated coverage", ylabel="observed coverage", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        if coverage.empty:
            style.note(ax, "no intervals to compare")
            return ax
        look = style.STATES["complete"]
        ax.fill_between(
            coverage["stated"],
            coverage["low"],
            coverage["high"],
            color="0.85",
            linewidth=0,
            label="95 % range by chance",
        )
        ax.axline((0, 0), slope=1, color="0.3", linestyle="--", linewidth=0.9)
        ax.plot(coverage["stated"], coverage["observed"], color=look.color, linewidth=1.4, label="observed")
        if stated is not None and observed is not None:
            value, low, high = observed
            ax.errorbar(
                [stated], [value], yerr=[[value - low], [high - value]], color=style.BEST.color, fmt="o", markersize=4,
                capsize=2, linewidth=1, label=f"{value:.3f} at {stated:g}",
            )  # fmt: skip
        style.legend_above(ax)
    return ax


def spread(errors: pd.DataFrame, ax: Axes | None = None, per_atom: bool = False) -> Axes:
    """Draw the error of every structure against the spread of the ensemble, and which lie within their intervals.

    Args:
        errors: one row a structure: n_atoms, energy, error, std, low and high (eV).
        ax: where to draw; default: a figure of its own, as wide as a column.
        per_atom: divide both by the number of atoms: structures of very different size become comparable.
    """
    unit, factor = ("meV/atom", MEV) if per_atom else ("eV", 1.0)
    with style.theme():
        ax = ax or style.new_axes(height=3.0)
        ax.set(xlabel=f"spread of the members ({unit})", ylabel=f"absolute error ({unit})")
        divisor = errors["n_atoms"] / factor if per_atom else 1
        points = pd.DataFrame(
            {
                "spread": errors["std"] / divisor,
                "error": errors["error"].abs() / divisor,
                "inside": errors["energy"].between(errors["low"], errors["high"]),
                "half": (errors["high"] - errors["low"]) / 2 / divisor,
            }
        )
        points = points.replace([np.inf, -np.inf], np.nan).dropna()
        if points.empty:
            style.note(ax, "no structures to compare")
            return ax
        for inside, text, color, marker in (
            (True, "within", style.STATES["complete"].color, "o"),
            (False, "outside", style.BEST.color, "x"),
        ):
            some = points[points["inside"] == inside]
            ax.scatter(
                some["spread"], some["error"], s=10, marker=marker, color=color, linewidth=0.7, alpha=0.75,
                label=f"{len(some)} {text}",
            )  # fmt: skip
        ends = points.sort_values("spread")
        ax.plot(ends["spread"], ends["half"], color="0.3", linestyle="--", linewidth=0.9, label="half interval")
        ax.set(xlim=(0, None), ylim=(0, None))
        style.legend_above(ax)
    return ax
