"""How all figures look: size of a paper's column, readable in greyscale, one look per trial state."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, LogLocator, MaxNLocator, NullFormatter, NullLocator

from bdqm_tune.files import written_whole
from bdqm_tune.units import FORCE_LENGTH, OBJECTIVE_UNITS

COLUMN = 3.4  # inches: one column of a two-column page
PAGE = 7.0  # inches: both columns
DPI = 200
MAE = "val_energy_mae"
MANY = 500  # points or lines of a figure; what is more becomes an image in the PDF, and transparent
LETTERS, HANDLE = 16, 7  # of a legend, that find room in an inch; that a line or a mark takes the room of
SCORED = ("complete", "pruned")  # the states with a value that means something
BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0}  # behind a text on data
OBJECTIVES = {
    MAE: "validation energy MAE",
    "val_energy_mae_per_atom": "validation energy MAE",
    "val_forces_mae": "validation force MAE",
    "val_energy_forces": f"energy + {FORCE_LENGTH} Å · force MAE",
}


@dataclass(frozen=True)
class Look:
    """How one kind of trial is drawn: distinct in colour and without it."""

    color: tuple[float, float, float] | str
    linestyle: str
    marker: str
    z: float


_BLUE, _ORANGE, _GREEN, _RED, _PURPLE = sns.color_palette("colorblind")[:5]
BEST = Look(_RED, "-", "*", 5)
STATES = {
    "complete": Look(_BLUE, "-", "o", 3),
    "pruned": Look("0.55", "--", "x", 4),
    "failed": Look(_PURPLE, ":", "v", 2),
    "running": Look(_GREEN, "-.", ">", 2),
    "waiting": Look(_ORANGE, "-.", "d", 2),
}


def theme() -> AbstractContextManager[None]:
    """The settings under which a figure is made and written; the caller's own are back afterwards."""
    settings = {
        **sns.axes_style("ticks"),
        **sns.plotting_context("paper"),
        "axes.labelsize": 8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 8,
        "font.size": 8,
        "legend.fontsize": 7,
        "pdf.fonttype": 42,  # text stays text
        "axes.linewidth": 0.8,
        **{
            f"{axis}tick.{key}": value
            for axis in "xy"
            for key, value in {
                "labelsize": 7,
                "major.size": 3,
                "major.width": 0.8,
                "minor.size": 1.5,
                "minor.width": 0.5,
            }.items()
        },
    }
    # axes_style copies what the user has; its own backend must not be set again
    return mpl.rc_context({key: value for key, value in settings.items() if key in mpl.rcParams})


def new_axes(width: float = COLUMN, height: float = 2.5) -> Axes:
    """Axes in a figure of their own; width and height in inches."""
    _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    ax.tick_params(labelsize=7)  # ticks are made when drawn, maybe outside of the theme
    return ax


def wide(values: Iterable[float], factor: float) -> bool:
    """Whether positive values span more than `factor`, so that a logarithmic axis shows them better."""
    numbers = np.asarray(list(values), dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    return bool(numbers.size and numbers.min() > 0 and numbers.max() > factor * numbers.min())


def log_axis(ax: Axes, which: Literal["x", "y"]) -> None:
    """Logarithmic ticks that a reader can read off: 1, 2, 5 over few decades, powers of ten over many."""
    ax.set(**{f"{which}scale": "log"})
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,), numticks=20))
    axis.set_minor_formatter(NullFormatter())
    if decades > 4:
        axis.set_minor_locator(NullLocator())
    if low >= 1e-3 and high <= 1e4:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    elif decades < 2.5:
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    else:
        axis.set_major_formatter(LogFormatterMathtext())


def short(value: float, digits: int = 0) -> str:
    """Scientific notation as people write it: 2e-5, not 2e-05."""
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def whole_numbers(ax: Axes, values: Iterable[int]) -> None:
    """Ticks at whole numbers along x, for trials and epochs, and room for one alone."""
    first, last = min(values), max(values)
    margin = max(0.5, 0.04 * (last - first))
    ax.set_xlim(first - margin, last + margin)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))


def legend_above(ax: Axes, columns: int = 2) -> None:
    """A legend over the axes, where it covers no data; none where nothing has a label."""
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    grid, figure = ax.get_subplotspec(), ax.get_figure(root=True)
    inches = figure.get_size_inches()[0] / (grid.get_gridspec().ncols if grid else 1) if figure else COLUMN
    while columns > 1 and _letters(labels, columns) > LETTERS * inches:
        columns -= 1
    legend = ax.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        frameon=False,
        borderaxespad=0.3,
        handlelength=2.4,
        columnspacing=1.2,
    )
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):  # as large as few points are
            handle.set_sizes([16])
            handle.set_alpha(1)


def points(
    ax: Axes, x: Iterable[float], y: Iterable[float], look: Look, label: str | None = None, size: float = 14
) -> None:
    """Draw points in the look of their kind, in a size (points²) that falls where there are very many."""
    x, y = np.asarray(list(x), dtype=float), np.asarray(list(y), dtype=float)
    many = len(x) > MANY
    options: dict[str, object] = {"linewidth": 0.9} if look.marker == "x" else {"linewidth": 0.3, "edgecolor": "white"}
    if many:
        size, options = size / 3, {"linewidth": 0.5 if look.marker == "x" else 0}
    ax.scatter(
        x, y, s=size, marker=look.marker, color=look.color, zorder=look.z, label=label, rasterized=many,
        alpha=0.5 if many else None, **options,  # type: ignore[arg-type]
    )  # fmt: skip


def thinned(rows: pd.DataFrame, objective: str, most: int = MANY) -> pd.DataFrame:
    """At most so many rows: the best tenth of them, and of the others every so many by their objective."""
    if len(rows) <= most:
        return rows
    ordered = rows.sort_values(objective, kind="stable")
    best = most // 10
    others = np.unique(np.linspace(best, len(ordered) - 1, most - best).round().astype(int))
    return ordered.iloc[[*range(best), *others.tolist()]]


def series(count: int) -> list[Look]:
    """Looks for so many kinds that are compared, distinct without colour, too."""
    colors = sns.color_palette("colorblind")
    lines, markers = ("-", "--", "-.", ":"), "osD^vPX"
    return [Look(colors[i % len(colors)], lines[i % 4], markers[i % 7], 3) for i in range(count)]


def shortened(text: str, letters: int = 24) -> str:
    """A text of at most so many letters, its middle left out."""
    return text if len(text) <= letters else f"{text[: letters // 2]}…{text[-letters // 4 :]}"


def _letters(labels: Sequence[str], columns: int) -> int:
    """The letters of a legend's longest labels side by side; it is filled column by column."""
    rows = -(-len(labels) // columns)
    return sum(max(map(len, labels[start : start + rows])) + HANDLE for start in range(0, len(labels), rows))


def note(ax: Axes, text: str) -> None:
    """Say in the middle of empty axes why they are empty."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="0.35", fontsize=8)
    ax.set(xticks=[], yticks=[])


def label(objective: str) -> str:
    """The objective and its unit, for an axis."""
    return f"{OBJECTIVES[objective]} ({OBJECTIVE_UNITS[objective]})"


def best_trial(trials: pd.DataFrame, objective: str = MAE) -> int | None:
    """Number of the complete trial with the lowest objective, or None where none is complete."""
    values = trials[trials["state"] == "complete"].dropna(subset=[objective])
    if values.empty:
        return None
    return int(values["number"].iloc[int(values[objective].to_numpy(float).argmin())])


def save(drawn: Figure | Axes, path: str | Path) -> list[Path]:
    """Write a figure as PNG and PDF; the folder is made.

    Args:
        drawn: the figure, or axes in it.
        path: without suffix.

    Returns:
        the two files.
    """
    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    if figure is None:
        raise ValueError("the axes belong to no figure")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "pdf")]
    with theme():
        for file in files:
            kind = file.suffix.removeprefix(".")
            with written_whole(file) as whole:
                figure.savefig(whole, format=kind, dpi=DPI, metadata={"CreationDate": None} if kind == "pdf" else None)
    return files
