"""The Pareto front of a study of several objectives, as data and as a table."""

import shlex
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from bdqm_tune.errors import BadInput, argument
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.objectives import best_first, objectives_of, pareto_front
from bdqm_tune.study.search_space import tried_values
from bdqm_tune.study.study import RESULT, RUN_ID, SIGNATURE, load_study
from bdqm_tune.units import OBJECTIVE_UNITS, shown

WIDTH = 120  # columns of the table, at most


@dataclass(frozen=True)
class ParetoTrial:
    """A trial on the Pareto front."""

    trial: int
    values: dict[str, float]  # errors, eV or eV/Å; n_parameters; time_per_atom, s
    parameters: dict[str, Any]  # searched and fixed
    run_id: str


@dataclass(frozen=True)
class ParetoFront:
    """The Pareto front of a study."""

    study: str
    objectives: list[str]
    complete: int  # trials
    trials: list[ParetoTrial]  # by their error


def study_pareto_front(stores: Stores, name: str) -> ParetoFront:
    """The Pareto front of a study so far.

    Raises:
        BadInput: there is no such study, or it has one objective.
        BdqmError: the database cannot be read.
    """
    study = load_study(stores, name)
    if SIGNATURE not in study.user_attrs:
        raise BadInput(f"study {name!r} was not made by bdqm-tune; nothing is known of its objectives")
    objectives = objectives_of(study.user_attrs[SIGNATURE])
    if len(objectives) == 1:
        raise BadInput(
            f"study {name!r} has one objective, {objectives[0]}, and no Pareto front: "
            f"`bdqm-tune status {argument(name)}` says which trial is best; study.objectives gives a new study several"
        )
    trials = study.get_trials(deepcopy=False)
    optimal = [
        ParetoTrial(
            trial.number,
            {**_measured(trial.user_attrs[RESULT]), **dict(zip(objectives, trial.values, strict=True))},
            tried_values(trial),
            trial.user_attrs[RUN_ID],
        )
        for trial in pareto_front(trials)
    ]
    return ParetoFront(name, objectives, len(best_first(trials)), optimal)


def _measured(result: dict[str, Any]) -> dict[str, float]:
    """What was measured of a trial of all possible objectives, by their names; energies per atom (eV/atom) first."""
    names = dict.fromkeys(("val_energy_mae_per_atom", *OBJECTIVE_UNITS))
    return {name: result[name] for name in names if result.get(name) is not None}


def pareto_front_lines(front: ParetoFront) -> list[str]:
    """What `bdqm-tune front` prints: a table of the trials, what they have in common, and how to pick one."""
    if not front.trials:
        return [f"{front.study}: no trial is complete yet"]
    names = list(dict.fromkeys(name for trial in front.trials for name in trial.parameters))
    settings = {name: [_setting(trial.parameters.get(name)) for trial in front.trials] for name in names}
    varied = [name for name in names if len(set(settings[name])) > 1]
    columns = [["trial", *(str(trial.trial) for trial in front.trials)]]
    for name in front.trials[0].values:
        if any(name not in trial.values for trial in front.trials):  # of an earlier version
            continue
        star = "*" if name in front.objectives else ""
        columns.append([_heading(name) + star, *(_value(name, trial.values[name]) for trial in front.trials)])
    left_out = []
    for name in varied:
        column = [name, *settings[name]]
        if sum(_width(each) for each in [*columns, column]) <= WIDTH:
            columns.append(column)
        else:
            left_out.append(name)
    lines = [
        f"{front.study}: {len(front.trials)} of {front.complete} complete trials are on the Pareto front",
        *("  ".join(cell.rjust(_width(c) - 2) for c, cell in zip(columns, row, strict=True)) for row in _rows(columns)),
        "(* minimised together: no other trial is better in one of these and as good in the others)",
    ]
    same = [f"{name} {settings[name][0]}" for name in names if name not in varied]
    lines += wrap(f"the same in all: {', '.join(same)}", WIDTH, subsequent_indent="  ") if same else []
    lines += [f"in --json: {', '.join(left_out)}"] if left_out else []
    name = shlex.quote(front.study)
    return [
        *lines,
        "",
        f"next: `bdqm-tune confirm --study {name} --trial N` trains the one that you pick with other seeds",
        f"      `bdqm-tune evaluate --study {name} --trial N` evaluates it on the test split",
        f"      `bdqm-tune register --study {name} --trial N` registers it",
    ]


def _rows(columns: list[list[str]]) -> list[tuple[str, ...]]:
    return list(zip(*columns, strict=True))


def _width(column: list[str]) -> int:
    return max(map(len, column)) + 2  # between two


def _heading(name: str) -> str:
    units = {"n_parameters": "", "time_per_atom": " (µs)"}
    return f"{name}{units[name] if name in units else f' ({shown(0.0, OBJECTIVE_UNITS[name])[1]})'}"


def _value(name: str, value: float) -> str:
    if name == "n_parameters":
        return f"{value:.0f}"
    quoted, unit = shown(value, OBJECTIVE_UNITS[name])
    if unit == "meV/atom":
        return f"{quoted:.4g}"
    return f"{1e6 * value:.3f}" if name == "time_per_atom" else f"{value:.4f}"


def _setting(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
