"""All hyperparameters of a trial as one line, so that what good trials share is seen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from bdqm_tune.analysis.figures import style
from bdqm_tune.analysis.figures.slices import LOGARITHMIC

BEST_SHARE, BEST_LEAST = 0.1, 4  # of the trials, drawn in colour; how many of few trials


def parallel_coordinates(
    trials: pd.DataFrame, hyperparameters: Sequence[str], objective: str = style.MAE, ax: Axes | None = None
) -> Axes:
    """Draw one line a trial over an axis for each hyperparameter and one for the MAE, the best tenth in colour.

    A trial that does not have a hyperparameter leaves a gap there.

    Args:
        trials: one row a trial: number, state, the objective, and a column per hyperparameter.
        hyperparameters: the columns to draw, from left to right.
        objective: what the trials are judged by, as its column is called.
        ax: where to draw; default: a figure of its own, as wide as a page.
    """
    with style.theme():
        ax = ax or style.new_axes(style.PAGE, 2.6)
        rows = trials[trials["state"] == "complete"].dropna(subset=[objective])
        names = [name for name in hyperparameters if name in rows and rows[name].notna().any()]
        if rows.empty or not names:
            style.note(ax, "no trial is complete yet" if rows.empty else "no hyperparameter was searched")
            return ax
        shown = style.thinned(rows, objective).sort_values(objective)
        places = np.column_stack([_place(ax, i, rows[name], shown[name], name) for i, name in enumerate(names)])
        errors = _place(ax, len(names), rows[objective], shown[objective], objective)
        lines = np.column_stack([places, errors])
        good = min(len(shown), max(BEST_LEAST, round(BEST_SHARE * len(shown))))
        x = np.arange(lines.shape[1])
        for part, color, width, alpha, z in (
            (lines[good:], "0.6", 0.5, 0.4, 1.0),
            (lines[1:good], style.STATES["complete"].color, 0.9, 0.9, 2.0),
            (lines[:1], style.BEST.color, 1.8, 1.0, 3.0),
        ):
            segments = [np.column_stack([x, line]) for line in part]
            ax.add_collection(
                LineCollection(
                    segments, colors=[color], linewidths=width, alpha=alpha, zorder=z, rasterized=len(part) > 100
                )
            )
        for position in x.tolist():
            ax.axvline(position, color="0.2", linewidth=0.8, zorder=4)
        labels = [_broken(name) for name in names]
        ax.set_xticks(x, [*labels, style.label(objective).replace("validation ", "validation\n")])
        ax.set(xlim=(-0.3, len(names) + 0.45), ylim=(-0.04, 1.04), yticks=[])
        ax.tick_params(axis="x", length=0, pad=4)
        for spine in ax.spines.values():
            spine.set_visible(False)
        count = len(rows) if len(shown) == len(rows) else f"{len(shown)} of {len(rows)}"
        handles = [
            Line2D([], [], color=style.BEST.color, linewidth=1.8, label=f"best: trial {shown['number'].iloc[0]}"),
            Line2D([], [], color=style.STATES["complete"].color, label=f"the {good} best"),
            Line2D([], [], color="0.6", label=f"complete ({count})"),
        ]
        ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.02), ncols=3, frameon=False)
    return ax


def _broken(name: str) -> str:
    """A name over lines that find room below an axis."""
    parts = style.shortened(name, 24).replace("descriptor.", "descr._").split("_")
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) < 9:
            lines[-1] += f"_{part}"
        else:
            lines.append(part)
    return "_\n".join(lines).replace("._\n", ".\n")


def _place(ax: Axes, position: int, every: pd.Series, shown: pd.Series, name: str) -> np.ndarray[Any, Any]:
    """Positions of the values on an axis from 0 to 1, whose values are written beside it; NaN where there is none."""
    values = every.dropna().infer_objects()
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        numbers = values.to_numpy(float)
        log = style.wide(numbers, 5 if name in LOGARITHMIC else 30)
        scale = np.log10 if log else np.asarray
        low, high = scale(numbers.min()), scale(numbers.max())
        middle = (low + high) / 2
        marks = {0.0: low, 0.5: middle, 1.0: high} if high > low else {0.5: low}
        texts = {place: _text(float(10**mark if log else mark)) for place, mark in marks.items()}
        places = (scale(shown.to_numpy(float)) - low) / (high - low) if high > low else 0.5 + 0 * shown.to_numpy(float)
    else:
        choices = sorted(values.astype(str).unique())
        room = max(1, len(choices) - 1)
        texts = {i / room if len(choices) > 1 else 0.5: style.shortened(text, 12) for i, text in enumerate(choices)}
        where = dict(zip(choices, texts, strict=True))
        places = np.array([where[str(value)] if pd.notna(value) else np.nan for value in shown])
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    for place, text in texts.items():
        ax.text(position + 0.05, place, text, fontsize=7, va="center", ha="left", zorder=5, bbox=box)
    return np.asarray(places, dtype=float)


def _text(value: float) -> str:
    if value != 0 and abs(value) < 0.01:
        return style.short(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
