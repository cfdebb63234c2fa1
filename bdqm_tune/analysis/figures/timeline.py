"""Which worker ran which trial when, and how many ran at the same time."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bdqm_tune.analysis.figures import style

MOST_LANES = 40  # workers that get a row of their own
DRAWN = ("complete", "pruned", "failed")
UNITS = ((3 * 86400.0, 86400.0, "days"), (3 * 3600.0, 3600.0, "h"), (180.0, 60.0, "min"), (0.0, 1.0, "s"))


def spans(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that have ended, with start and end in seconds since the first began, and the lane of each.

    A lane is a worker; one that runs several trials at the same time has as many lanes as it needs.

    Args:
        trials: one row a trial: number, state, started, ended, and worker where it is known.

    Returns:
        number, state, worker, start, end (s), lane (0, 1, …), sorted by start.
    """
    rows = trials[trials["state"].isin(DRAWN)].dropna(subset=["started", "ended"]).sort_values("started")
    rows = rows.astype({"started": "datetime64[us]", "ended": "datetime64[us]"})  # of no rows, pandas does not know
    first = rows["started"].min()
    frame = pd.DataFrame(
        {
            "number": rows["number"],
            "state": rows["state"],
            "worker": rows["worker"].fillna("") if "worker" in rows else "",
            "start": (rows["started"] - first).dt.total_seconds(),
            "end": (rows["ended"] - first).dt.total_seconds(),
        }
    ).reset_index(drop=True)
    lanes: dict[str, list[float]] = {}  # of each worker, when its lanes are free
    places: list[tuple[str, int]] = []
    for worker, start, end in zip(frame["worker"], frame["start"], frame["end"], strict=True):
        free = lanes.setdefault(worker, [])
        lane = next((i for i, until in enumerate(free) if until <= start), len(free))
        free[lane : lane + 1] = [end]
        places.append((worker, lane))
    order = {
        place: i for i, place in enumerate((worker, lane) for worker in lanes for lane in range(len(lanes[worker])))
    }
    return frame.assign(lane=[order[place] for place in places])


def running(rows: pd.DataFrame) -> pd.DataFrame:
    """How many trials ran from each moment on.

    Args:
        rows: start and end of each, s.

    Returns:
        seconds, trials; it ends with 0.
    """
    changes = pd.concat([pd.Series(1, rows["start"]), pd.Series(-1, rows["end"])]).groupby(level=0).sum().sort_index()
    return pd.DataFrame({"seconds": changes.index.to_numpy(float), "trials": changes.cumsum().to_numpy()})


def utilisation(rows: pd.DataFrame) -> float:
    """The share of their time, from the first trial of any to the last, that the lanes ran trials."""
    length = rows["end"].max() - rows["start"].min()
    return (
        float((rows["end"] - rows["start"]).sum() / (rows["lane"].nunique() * length)) if length > 0 else float("nan")
    )


def timeline(trials: pd.DataFrame) -> Figure:
    """Draw each worker's trials as bars along the time, and below how many ran at the same time.

    Args:
        trials: one row a trial: number, state, started, ended, and worker and host where they are known.
    """
    with style.theme():
        rows = spans(trials)
        if rows.empty:
            ax = style.new_axes(style.PAGE, 2.2)
            style.note(ax, "no trial has ended yet")
            return ax.get_figure(root=True)  # type: ignore[return-value]
        lanes = int(rows["lane"].max()) + 1
        height = min(3.2, 0.25 + 0.2 * lanes)
        figure, (upper, lower) = plt.subplots(
            2, 1, figsize=(style.PAGE, height + 1.5), sharex=True, layout="constrained", height_ratios=[height, 0.9]
        )
        _, factor, unit = next(entry for entry in UNITS if rows["end"].max() >= entry[0])
        hosts = dict(zip(trials["worker"], trials["host"], strict=True)) if {"worker", "host"} <= set(trials) else {}
        _lanes(upper, rows, factor, hosts)
        counts = running(rows)
        lower.fill_between(counts["seconds"] / factor, counts["trials"], step="post", color="0.75", linewidth=0)
        if len(rows) <= style.MANY:
            lower.step(counts["seconds"] / factor, counts["trials"], where="post", color="0.25", linewidth=0.8)
        lower.set(xlabel=f"time since the first trial began ({unit})", ylabel="trials\nrunning", ylim=(0, None))
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        text = f"utilisation {utilisation(rows):.0%}" if lanes > 0 else ""
        lower.text(0.99, 0.9, text, transform=lower.transAxes, ha="right", va="top", fontsize=7, bbox=style.BOX)
        for ax in (upper, lower):
            ax.tick_params(labelsize=7)
    return figure


def _lanes(ax: Axes, rows: pd.DataFrame, factor: float, hosts: dict[str, str]) -> None:
    for state in DRAWN:
        part, look = rows[rows["state"] == state], style.STATES[state]
        if part.empty:
            continue
        start, end, lane = part["start"] / factor, part["end"] / factor, part["lane"].to_numpy(float)
        corners = np.stack(
            [np.stack([a, lane + b], axis=-1) for a, b in ((start, -0.4), (end, -0.4), (end, 0.4), (start, 0.4))],
            axis=1,
        )
        many = len(rows) > style.MANY
        ax.add_collection(
            PolyCollection(
                list(corners),
                facecolor=look.color,
                edgecolor="white",
                linewidth=0 if many else 0.3,
                rasterized=many,
                snap=False,  # else bars narrower than a dot are lost or widened
                label=f"{state} ({len(part)})",
                hatch="////" if state == "pruned" and not many else None,
            )
        )
    lanes = int(rows["lane"].max()) + 1
    ax.set(ylim=(lanes - 0.4, -0.6), xlim=(-0.01 * rows["end"].max() / factor, 1.01 * rows["end"].max() / factor))
    first = rows.drop_duplicates("lane").sort_values("lane")
    if lanes <= MOST_LANES:
        names = {worker: f"{i}" for i, worker in enumerate(first["worker"].unique(), 1)}
        texts = [f"{style.shortened(str(hosts.get(w) or 'worker'), 14)} {names[w]}" for w in first["worker"]]
        once = [text if i == 0 or text != texts[i - 1] else "" for i, text in enumerate(texts)]
        ax.set_yticks(first["lane"], once)
    else:
        ax.set(ylabel=f"{lanes} lanes", yticks=[])
    ax.tick_params(axis="y", length=0)
    style.legend_above(ax, columns=3)
