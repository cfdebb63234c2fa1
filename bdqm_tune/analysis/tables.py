"""A study's trials as a table for a terminal, and in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bdqm_tune.units import OBJECTIVE_UNITS, error_name, error_text, metric_unit, shown

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

STATES = ("complete", "pruned", "failed", "running", "waiting")
WIDTH = 120  # columns, where the output is no terminal
MAE, PER_ATOM = "val_energy_mae", "val_energy_mae_per_atom"
FORCES, BOTH, STRESS = "val_forces_mae", "val_energy_forces", "val_stress_mae"


def best_first(trials: pd.DataFrame, objective: str = MAE) -> pd.DataFrame:
    """Complete trials by their objective, then pruned ones by theirs, then what has no result."""
    rank = trials["state"].map({state: position for position, state in enumerate(STATES)})
    return trials.assign(_rank=rank).sort_values(["_rank", objective, "number"]).drop(columns="_rank")


def summary(name: str, trials: pd.DataFrame, objective: str = MAE) -> str:
    """How many trials came to what, the best one, and the time they took, in one line."""
    counts = trials["state"].value_counts()
    total = f"{len(trials)} {'trial' if len(trials) == 1 else 'trials'}"
    parts = [f"{name}: {total}", ", ".join(f"{counts[state]} {state}" for state in STATES if state in counts)]
    first = best_first(trials, objective).head(1)
    if first["state"].eq("complete").any():
        best = first.iloc[0]
        errors = {str(name): value for name, value in best.items()}
        parts.append(f"best trial {best['number']} with {error_text(errors, objective, '.4g')}")
    else:
        parts.append("none complete yet")
    hours = trials["trial_seconds"].astype(float).sum() / 3600
    parts.append(f"{hours:.1f} h in trials" if hours >= 0.1 else f"{hours:.3f} h in trials")
    return "; ".join(part for part in parts if part)


def table(
    trials: pd.DataFrame,
    hyperparameters: list[str],
    top: int,
    width: int = WIDTH,
    objective: str = MAE,
    fixed: Sequence[str] = (),
) -> Table:
    """The best `top` trials, in `width` columns.

    A hyperparameter that is the same in all of them is below, as are the names of those that found no room.

    Args:
        fixed: hyperparameters that were not searched; workers of one study may have fixed different values.
    """
    from rich.console import Console

    rows = best_first(trials, objective).head(top)
    varied = [name for name in hyperparameters if len(rows) == 1 or rows[name].astype(str).nunique() > 1]
    varied += [name for name in fixed if rows[name].astype(str).nunique() > 1]
    notes = []
    for names, text in ((hyperparameters, "the same in all"), (fixed, "fixed")):
        same = [f"{name} {_setting(rows[name].iloc[0])}" for name in names if name not in varied and len(rows)]
        notes += [f"{text}: {', '.join(same)}"] if same else []
    console = Console(width=10_000)
    for room in range(len(varied), -1, -1):
        left_out = [f"in trials.csv: {', '.join(varied[room:])}"] if room < len(varied) else []
        result = _table(rows, varied[:room], "\n".join(notes + left_out), objective)
        if console.measure(result).maximum <= width:
            break
    return result


def _table(rows: pd.DataFrame, hyperparameters: list[str], caption: str, objective: str) -> Table:
    from rich import box
    from rich.table import Table

    result = Table(
        box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False, caption=caption or None,
        caption_justify="left", caption_style="",
    )  # fmt: skip
    errors = [name for name in errors_first(objective) if name in rows and rows[name].notna().any()]
    errors = errors or [objective]
    for heading in ("trial", "state", *map(_error_heading, errors), "best/\nepochs", "param-\neters", "seconds"):
        result.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
    for name in hyperparameters:
        result.add_column(_heading(name), justify="right", no_wrap=True)
    for row in rows.to_dict("records"):
        result.add_row(
            f"{row['number']}",
            row["state"],
            *(_number(shown(row[name], error_unit(name))[0], ".4g") for name in errors),
            f"{_number(row['best_epoch'])}/{_number(row['epochs'])}",
            _number(row["n_parameters"]),
            _number(row["trial_seconds"], ".1f"),
            *(_setting(row[name]) for name in hyperparameters),
        )
    return result


def errors_first(objective: str) -> list[str]:
    """The errors that a table of trials shows: the objective, total energies after those per atom, and the others."""
    further = {MAE: [PER_ATOM, MAE], PER_ATOM: [PER_ATOM], BOTH: [BOTH, PER_ATOM, FORCES, STRESS]}
    return further.get(objective, [objective, PER_ATOM])


def error_unit(name: str) -> str:
    """The unit of an error of the validation split, as it is stored."""
    return metric_unit(name) if name == STRESS else OBJECTIVE_UNITS[name]


def _error_heading(name: str) -> str:
    unit = shown(0.0, error_unit(name))[1]
    what = {FORCES: "force\n", PER_ATOM: "energy\n", BOTH: "both\n", STRESS: "stress\n"}.get(name, "")
    return f"{what}{error_name(name)}\n({unit})"


def _heading(name: str) -> str:
    """A hyperparameter's name over several lines, so that a narrow column holds it."""
    parts = []
    for word in name.replace("descriptor.", "descr._").split("_"):
        half = (len(word) + 1) // 2
        parts += [word] if len(word) < 9 else [word[:half] + "-", word[half:]]
    return "\n".join(parts)


def _number(value: float, form: str = ".0f") -> str:
    return "–" if value != value else f"{value:{form}}"


def _setting(value: Any) -> str:
    """A hyperparameter's value in a narrow column: three digits of a number, 2.2e-3 of a small one."""
    if hasattr(value, "item"):
        value = value.item()
    if value is None or value != value:
        return "–"
    if isinstance(value, str | bool):
        return str(value)
    if float(value).is_integer():
        return str(int(value))
    if abs(value) >= 0.01:
        return f"{value:.3g}"
    from bdqm_tune.analysis.figures.style import short

    return short(value, digits=1)


def models_table(models: pd.DataFrame) -> Table:
    """The best models of several studies, as `best_models` gives them; predictions in µs an atom."""
    from rich import box
    from rich.table import Table

    result = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    errors = [name for name in (PER_ATOM, FORCES, STRESS) if models[name].notna().any()]
    for heading in ("study", "backend"):
        result.add_column(heading)
    times = ("training\n(s)", "energy\n(µs/atom)", "with forces\n(µs/atom)")
    for heading in ("trial", *map(_error_heading, errors), "param-\neters", *times):
        result.add_column(heading, justify="right", no_wrap=True)
    for row in models.to_dict("records"):
        result.add_row(
            row["study"],
            row["backend"],
            f"{row['trial']}",
            *(_number(shown(row[name], error_unit(name))[0], ".4g") for name in errors),
            _number(row["n_parameters"]),
            _number(row["training_seconds"], ".3g"),
            *(_number(1e6 * row[f"{what}_seconds_per_atom"], ".3g") for what in ("energy", "forces")),
        )
    return result


def groups_table(groups: pd.DataFrame, objective: str) -> Table:
    """Groups of repeated studies: their best with its interval, and what they cost."""
    from rich import box
    from rich.table import Table

    result = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    result.add_column("group")
    factor, unit = shown(1.0, error_unit(objective))
    for heading in ("repeats", f"best {error_name(objective)} ({unit})", "95 % interval", "epochs", "hours"):
        result.add_column(heading, justify="right", no_wrap=True)
    for row in groups.to_dict("records"):
        interval = f"{factor * row['low']:.4g} – {factor * row['high']:.4g}" if row["low"] == row["low"] else "–"
        result.add_row(
            row["group"],
            f"{row['repeats']}",
            f"{factor * row['best']:.4g}",
            interval,
            f"{row['epochs']:.0f}",
            f"{row['hours']:.3g}",
        )
    return result
