"""How the errors of a model are distributed, over structures and over elements."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from ase.data import atomic_numbers
from ase.formula import Formula
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from bdqm_tune.analysis.figures import style
from bdqm_tune.analysis.figures.parity import components
from bdqm_tune.analysis.statistics import bootstrap_mean
from bdqm_tune.units import MEV

BINS = 40


def element_errors(errors: pd.DataFrame) -> pd.DataFrame:
    """The mean absolute error per atom of the structures that hold each element.

    An energy is of a whole structure: these are errors of structures, and one that is off counts for all its elements.

    Args:
        errors: one row a structure: formula, n_atoms, error (eV).

    Returns:
        element, structures, mae (eV/atom), low and high (95 % by bootstrap; NaN of one structure), the worst first.
    """
    per_atom = (errors["error"] / errors["n_atoms"]).abs()
    kinds = [frozenset(Formula(formula).count()) for formula in errors["formula"]]
    rows = []
    for element in sorted(set().union(*kinds), key=atomic_numbers.__getitem__):
        values = per_atom[[element in kind for kind in kinds]].dropna().to_numpy()
        if len(values):
            low, high = bootstrap_mean(values)
            rows.append((element, len(values), float(values.mean()), float(low), float(high)))
    frame = pd.DataFrame(rows, columns=["element", "structures", "mae", "low", "high"])
    return frame.sort_values("mae", ascending=False, ignore_index=True, kind="stable")


def element_force_errors(by_element: pd.DataFrame) -> pd.DataFrame:
    """The mean absolute error of the forces on the atoms of each element.

    Args:
        by_element: the evaluation's table: element, structures, forces_mae and, where there is one, its interval.

    Returns:
        element, structures, mae (eV/Å), low and high (95 % by bootstrap; NaN of few structures), the worst first.
    """
    names = {"forces_mae": "mae", "forces_mae_low": "low", "forces_mae_high": "high"}
    found = by_element.reindex(columns=["element", "structures", *names]).rename(columns=names)
    return found.sort_values("mae", ascending=False, ignore_index=True, kind="stable")


def per_element(found: pd.DataFrame, ax: Axes | None = None, forces: bool = False) -> Axes:
    """Draw the error of the structures with each element, with intervals and how many structures there are.

    Args:
        found: element, structures, mae, low, high (eV/atom, or eV/Å), as `element_errors` or `element_force_errors`
            give them.
        forces: they are errors of the forces on its atoms.
        ax: where to draw; default: a figure of its own, as wide as a column, or as a page for many elements.
    """
    with style.theme():
        wide = len(found) > 20
        ax = ax or style.new_axes(style.PAGE if wide else style.COLUMN, 2.5)
        what = "MAE of forces on\nits atoms (meV/Å)" if forces else "MAE of structures\nwith it (meV/atom)"
        ax.set(xlabel="element (structures with it)", ylabel=what)
        if found.empty:
            style.note(ax, "no structures to compare")
            return ax
        x, values = np.arange(len(found)), MEV * found["mae"].to_numpy()
        ends = MEV * found[["low", "high"]].to_numpy().T
        reach = np.abs(ends - values)  # NaN, not drawn, of one structure
        ax.errorbar(
            x, values, yerr=reach, fmt="o", color=style.STATES["complete"].color, markersize=3.5, capsize=1.5,
            linewidth=0.9,
        )  # fmt: skip
        texts = [f"{row.element}\n{row.structures}" for row in found.itertuples()]
        ax.set_xticks(x, texts)
        if wide:
            ax.tick_params(axis="x", labelsize=7)
            if len(found) > 32:  # two rows, so that no name touches the next
                ax.set_xticks(x, [("\n\n" if i % 2 else "") + text for i, text in enumerate(texts)])
        ax.set(xlim=(-0.7, len(found) - 0.3), ylim=(0, None))
        if style.wide(values, 30):
            style.log_axis(ax, "y")
    return ax


def error_distribution(errors: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the distribution of errors per atom, and the share of structures whose error is smaller.

    Args:
        errors: one row a structure: n_atoms, error (eV).
        ax: where to draw; default: a figure of its own, as wide as a column.
    """
    values = MEV * (errors["error"] / errors["n_atoms"]).to_numpy(float)
    with style.theme():
        return _distribution(values, "meV/atom", "structures", ax or style.new_axes())


def force_error_distribution(forces: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the distribution of the errors of the forces' components, and the share of those whose error is smaller.

    Args:
        forces: one row an atom: true_x, true_y, true_z, predicted_x, … (eV/Å).
        ax: where to draw; default: a figure of its own, as wide as a column.
    """
    values = MEV * (components(forces, "predicted") - components(forces, "true"))
    with style.theme():
        return _distribution(values, "meV/Å", "components", ax or style.new_axes())


def _distribution(values: NDArray[np.float64], unit: str, counted: str, ax: Axes) -> Axes:
    """Args: values: errors, in the unit; counted: what they are of, in the plural."""
    ax.set(xlabel=f"error, predicted less true ({unit})", ylabel=counted)
    values = values[np.isfinite(values)]
    if not len(values):
        style.note(ax, "no structures to compare")
        return ax
    reach = _reach(np.abs(values))
    inside = values[np.abs(values) <= reach]
    bins = np.linspace(-reach, reach, min(BINS, 7 + 2 * (len(values) // 12)) + 1).tolist()
    color = style.STATES["complete"].color
    counts, _, _ = ax.hist(inside, bins=bins, color=color, edgecolor="white", linewidth=0.3)
    ax.axvline(0, color="0.3", linestyle="--", linewidth=0.9)
    ax.axvline(values.mean(), color=style.BEST.color, linewidth=1.2)
    ax.set(xlim=(-reach, reach), ylim=(0, 1.35 * float(np.max(counts))))  # with room for the text above
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    share = ax.twinx()
    ordered = np.sort(np.abs(values))
    share.step([0, *ordered], np.arange(len(ordered) + 1) / len(ordered), where="post", color="0.25", linewidth=1.0)
    share.set(ylim=(0, 1.02), ylabel="share with a smaller |error|")
    share.yaxis.set_major_formatter(PercentFormatter(1.0))
    share.spines["right"].set_visible(True)
    share.tick_params(labelsize=7)
    lines = [
        f"mean {values.mean():+.3g}",
        f"MAE {np.abs(values).mean():.3g}",
        f"95 % below {np.quantile(ordered, 0.95):.3g}",
        f"{len(values)} {counted}",
    ]
    if len(inside) < len(values):
        lines.append(f"{len(values) - len(inside)} farther out")
    ax.text(0.03, 0.97, "\n".join(lines), transform=ax.transAxes, ha="left", va="top", fontsize=7, bbox=style.BOX)
    return ax


def _reach(sizes: Iterable[float]) -> float:
    """How far the axis goes: to the largest, or to where a few that are far out do not flatten all others."""
    values = np.asarray(list(sizes))
    largest, usual = float(values.max()), 3 * float(np.quantile(values, 0.95))
    return 1.05 * min(largest, usual) or 1.0
