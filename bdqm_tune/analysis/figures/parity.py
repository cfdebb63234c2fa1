"""Predicted energies and forces against true ones."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from bdqm_tune.analysis.figures import style
from bdqm_tune.units import MEV

MANY = 5000  # points from which they are an image


def parity(errors: pd.DataFrame, ax: Axes | None = None, per_atom: bool = False) -> Axes:
    """Draw predicted against true energy, the diagonal, and the mean errors in a corner, those per atom first.

    Args:
        errors: one row a structure: n_atoms, energy (eV), predicted (eV).
        ax: where to draw; default: a figure of its own, as wide as a column.
        per_atom: divide both energies by the number of atoms: structures of very different size become comparable.
    """
    unit = "eV/atom" if per_atom else "eV"
    divisor = errors["n_atoms"] if per_atom else 1
    energies = pd.DataFrame({"true": errors["energy"] / divisor, "predicted": errors["predicted"] / divisor})
    finite = energies.replace([np.inf, -np.inf], np.nan).dropna()
    deviation = errors.loc[finite.index, "predicted"] - errors.loc[finite.index, "energy"]
    lines = []
    if not finite.empty:
        sizes = errors.loc[finite.index, "n_atoms"]
        for name, mean in (("MAE", _mae), ("RMSE", _rmse)):
            lines.append(f"{name} {_three_digits(MEV * mean(deviation / sizes))} meV/atom")
            lines[-1] += "" if per_atom else f" ({_three_digits(mean(deviation))} eV)"
        lines.append(f"{len(finite)} structure{'s' * (len(finite) != 1)}")
    if len(finite) < len(energies):
        lines.append(f"{len(energies) - len(finite)} not finite, left out")
    with style.theme():
        return _draw(finite, f"energy ({unit})", lines, ax or style.new_axes(height=3.2), size=14)


def force_parity(forces: pd.DataFrame, metrics: Mapping[str, float], ax: Axes | None = None) -> Axes:
    """Draw predicted against true components of forces, the diagonal, and the mean errors in a corner.

    Args:
        forces: one row an atom: true_x, true_y, true_z, predicted_x, … (eV/Å).
        metrics: test_forces_mae and test_forces_rmse (eV/Å) of all atoms, of which `forces` may hold some only.
        ax: where to draw; default: a figure of its own, as wide as a column.
    """
    points = pd.DataFrame({name: components(forces, name) for name in ("true", "predicted")})
    finite = points.replace([np.inf, -np.inf], np.nan).dropna()
    names = {"MAE": "test_forces_mae", "RMSE": "test_forces_rmse"}
    lines = [f"{text} {_three_digits(metrics[name])} eV/Å" for text, name in names.items() if name in metrics]
    lines.append(f"{len(finite)} components")
    with style.theme():
        return _draw(finite, "force (eV/Å)", lines, ax or style.new_axes(height=3.2), size=6)


def components(forces: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """The components x, y, z of the forces on all atoms one after the other (3 * n_atoms,), eV/Å.

    Args:
        name: true or predicted.
    """
    return np.concatenate([forces[f"{name}_{axis}"].to_numpy(float) for axis in "xyz"])


def _draw(points: pd.DataFrame, what: str, lines: Sequence[str], ax: Axes, size: float) -> Axes:
    """Args: points: true, predicted; what: is compared, with its unit; size: of a point, points²."""
    labels = {"xlabel": f"true {what}", "ylabel": f"predicted {what}"}
    ax.set(**labels)
    if points.empty:
        style.note(ax, "no structures to compare")
        return ax
    low, high = float(points.to_numpy().min()), float(points.to_numpy().max())
    margin = 0.05 * (high - low) or 0.5
    ends = (low - margin, high + margin)
    ax.axline((low, low), slope=1, color="0.3", linestyle="--", linewidth=0.9, zorder=1)
    many = len(points) > MANY
    sns.scatterplot(
        data=points, x="true", y="predicted", ax=ax, color=style.STATES["complete"].color, s=size / 2 if many else size,
        linewidth=0 if many else 0.3, alpha=0.4 if many else 0.75, legend=False, rasterized=many,
    )  # fmt: skip
    ax.set(xlim=ends, ylim=ends, aspect="equal", **labels)  # seaborn named them after its columns
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    ax.text(
        0.04, 0.97, "\n".join(lines), transform=ax.transAxes, ha="left", va="top", fontsize=7, bbox=style.BOX
    )  # fmt: skip
    return ax


def _mae(deviation: "pd.Series[float]") -> float:
    return float(deviation.abs().mean())


def _rmse(deviation: "pd.Series[float]") -> float:
    return float(np.sqrt((deviation**2).mean()))


def _three_digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")
