"""Each hyperparameter against the validation MAE."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bdqm_tune.analysis.figures import style

UNITS = {"batch_size": "structures", "step_size": "epochs", "descriptor.cutoff": "Å"}
LOGARITHMIC = ("lr", "batch_size")  # usually searched in their logarithm
LONGEST = 30  # letters of a name below a panel
LETTERS = 24  # that find room below a panel, one word after the other


def slices(trials: pd.DataFrame, hyperparameters: Sequence[str], objective: str = style.MAE) -> Figure:
    """Draw a grid of panels, one a hyperparameter, over the width of a page.

    Args:
        trials: one row a trial: number, state, the objective, and a column per hyperparameter.
        hyperparameters: the columns to draw, one panel each.
        objective: what the trials are judged by, as its column is called.
    """
    with style.theme():
        scored = trials[trials["state"].isin(style.SCORED)].dropna(subset=[objective])
        names = [name for name in hyperparameters if name in scored and scored[name].notna().any()]
        if not names:
            ax = style.new_axes(style.PAGE, 2.4)
            ax.set(xlabel="hyperparameter", ylabel=style.label(objective))
            style.note(ax, "no trial has a validation MAE yet" if scored.empty else "no hyperparameter was searched")
            return ax.get_figure(root=True) or ax.figure  # type: ignore[return-value]
        columns = min(len(names), 4 if len(names) > 6 else 3)
        rows = -(-len(names) // columns)
        figure, grid = plt.subplots(
            rows, columns, figsize=(style.PAGE, 0.4 + 1.75 * rows), sharey=True, squeeze=False, layout="constrained"
        )
        axes = list(grid.flat)
        best = style.best_trial(trials, objective)
        for ax, name in zip(axes, names, strict=False):
            _panel(ax, scored, name, best, objective)
        if style.wide(scored[objective], 10):
            style.log_axis(axes[0], "y")
        for ax in axes[len(names) :]:
            ax.remove()
        figure.supylabel(style.label(objective), fontsize=8)
        handles = {label: handle for ax in axes[: len(names)] for handle, label in zip(*_legend(ax), strict=True)}
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside upper left",
            ncols=len(handles),
            frameon=False,
            fontsize=7,
        )
    return figure


def axis_label(name: str) -> str:
    """A hyperparameter and its unit, for an axis; a long name without its middle."""
    return f"{name} ({UNITS[name]})" if name in UNITS else style.shortened(name, LONGEST)


def _legend(ax: Axes) -> tuple[list[Any], list[str]]:
    return ax.get_legend_handles_labels()


def _panel(ax: Axes, scored: pd.DataFrame, name: str, best: int | None, objective: str) -> None:
    """One hyperparameter: numbers along an axis, anything else in strips, pruned beside complete."""
    rows = scored.dropna(subset=[name])
    values = rows[name].infer_objects()
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if numeric:
        values = values.astype(float)
        order: list[str] = []
    else:
        values = values.astype(str)
        order = sorted(values.unique(), key=lambda text: text.rstrip("]"))  # [0, 1] before [0, 1, 2]
    rows = rows.assign(**{name: values})
    many = len(rows) > style.MANY
    for state in style.SCORED:
        part, look = rows[rows["state"] == state], style.STATES[state]
        if part.empty:
            continue
        if numeric:
            style.points(ax, part[name], part[objective], look, state)
        else:
            marks: dict[str, Any] = {"marker": look.marker, "zorder": look.z, "legend": False, "linewidth": 1.0}
            if look.marker != "x":
                marks |= {"edgecolor": "white", "linewidth": 0.0 if many else 0.3}
            if many:
                marks |= {"alpha": 0.4, "rasterized": True}
            sns.stripplot(
                data=part, x=name, y=objective, ax=ax, order=order, hue="state", hue_order=style.SCORED, dodge=True,
                palette=[style.STATES[shown].color for shown in style.SCORED], jitter=0.15 if many else False,
                size=2 if many else 4, **marks,
            )  # fmt: skip
    chosen = rows[rows["number"] == best]
    if not chosen.empty:
        value: Any = chosen[name].iloc[0]
        x = value if numeric else order.index(value) - 0.2  # the strip of complete trials is the left one
        ax.plot(
            [x], chosen[objective], style.BEST.marker, color=style.BEST.color, markersize=9, markeredgecolor="white",
            markeredgewidth=0.5, zorder=style.BEST.z, linestyle="none", label=f"best: trial {best}",
        )  # fmt: skip
    ax.set(ylabel="", xlabel=axis_label(name))
    ax.tick_params(labelsize=7)
    if not numeric:
        ax.set_xlim(-0.5, len(order) - 0.5)
        labels = [style.shortened(text) for text in order]
        tilted: dict[str, Any] = (
            {"rotation": 20, "ha": "right", "rotation_mode": "anchor"} if sum(map(len, labels)) > LETTERS else {}
        )
        ax.set_xticks(range(len(order)), labels, **tilted)
        return
    numbers = values.to_numpy(float)
    if style.wide(numbers, 5 if name in LOGARITHMIC else 30):
        style.log_axis(ax, "x")
    else:
        room = 5 if numbers.max() > 0.01 else 3  # for 0.0005 and the like
        whole = bool(np.all(numbers == numbers.round()))
        ax.xaxis.set_major_locator(MaxNLocator(room, integer=whole, min_n_ticks=1))
