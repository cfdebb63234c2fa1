"""Predicted energies against true ones."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bdqm_tune.analysis.figures import style


def parity(errors: pd.DataFrame, ax: Axes | None = None, per_atom: bool = False) -> Axes:
    """Draw predicted against true energy, the diagonal, and the mean errors in a corner.

    Args:
        errors: one row a structure: n_atoms, energy (eV), predicted (eV).
        ax: where to draw; default: a figure of its own, as wide as a column.
        per_atom: divide both energies by the number of atoms: structures of very different size become comparable.
    """
    unit = "eV/atom" if per_atom else "eV"
    with style.theme():
        ax = ax or style.new_axes(height=3.2)
        ax.set(xlabel=f"true energy ({unit})", ylabel=f"predicted energy ({unit})")
        divisor = errors["n_atoms"] if per_atom else 1
        energies = pd.DataFrame({"true": errors["energy"] / divisor, "predicted": errors["predicted"] / divisor})
        finite = energies[np.isfinite(energies).all(axis=1)]
        if finite.empty:
            style.note(ax, "no structures to compare")
            return ax
        low, high = float(finite.to_numpy().min()), float(finite.to_numpy().max())
        margin = 0.05 * (high - low) or 0.5
        ax.axline((low, low), slope=1, color="0.3", linestyle="--", linewidth=0.9, zorder=1)
        color = style.STATES["complete"].color
        sns.scatterplot(
            data=finite, x="true", y="predicted", ax=ax, color=color, s=14, linewidth=0.3, alpha=0.75, legend=False,
            rasterized=len(finite) > 5000,
        )  # fmt: skip
        ax.set(
            xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), aspect="equal",
            xlabel=f"true energy ({unit})", ylabel=f"predicted energy ({unit})",  # seaborn named them after its columns
        )  # fmt: skip
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(5))
        deviation = finite["predicted"] - finite["true"]
        mae, rmse = float(deviation.abs().mean()), float(np.sqrt((deviation**2).mean()))
        lines = [
            f"MAE {_three_digits(mae)} {unit}",
            f"RMSE {_three_digits(rmse)} {unit}",
            f"{len(finite)} structure{'s' * (len(finite) != 1)}",
        ]
        if len(finite) < len(energies):
            lines.append(f"{len(energies) - len(finite)} not finite, left out")
        ax.text(0.04, 0.97, "\n".join(lines), transform=ax.transAxes, ha="left", va="top", fontsize=7)
    return ax


def _three_digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")
