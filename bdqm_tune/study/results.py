"""The results of a study, as data frames."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.optuna_private import id_of
from bdqm_tune.storage.cache import cache_of
from bdqm_tune.storage.study_tables import TrialTables, is_searched
from bdqm_tune.study.best_so_far import ERRORS
from bdqm_tune.study.objectives import objectives_of
from bdqm_tune.study.search_space import searchable_in, tried_values
from bdqm_tune.study.study import EXPERIMENT, RESULT, RUN_ID, SIGNATURE, STATES, load_study
from bdqm_tune.tracking.client import reason, tracking_client
from bdqm_tune.tracking.metric_history import read_curves
from bdqm_tune.tracking.recoverable_run import active_run

MEASURED = (
    *ERRORS,
    *("val_stress_mae", "best_epoch", "epochs", "n_parameters", "time_per_atom", "trial_seconds", "reason"),
)
TIMES = ("started", "ended")  # by the last worker that ran it; local time
DESCRIBED = ("host", "device", "run_id")  # of a worker
COLUMNS = ("number", "state", *MEASURED, *TIMES, "run_id")
MOST_QUERIES = 20  # for a run that still exists
CONTEXT = "mlflow.data.context"  # tag of a run's data: training or validation


@dataclass(frozen=True)
class StudyResults:
    """A study's trials and their curves."""

    name: str
    # one row a trial: number, state, val_energy_mae (eV), …, run_id, hyperparameters, searched and fixed (NaN: it does
    # not count, or is not known); and, where known: given (parameters, not by the sampler), worker, host, device,
    # sampler, pruner
    trials: pd.DataFrame
    curves: pd.DataFrame  # trial, epoch, and the objective
    objective: str  # the error by which training goes, a column of both frames
    hyperparameters: list[str]  # those that were searched, of the descriptor as `descriptor.OPTION`
    study: optuna.Study
    spaces: Mapping[str, Sequence[BaseDistribution]] = field(default_factory=dict)  # what each was searched in
    runs: pd.DataFrame = field(default_factory=pd.DataFrame)  # options of each worker's configuration, by its run's id
    splits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # training, validation: structures, atoms, …
    objectives: Sequence[str] = ()  # all that the trials are judged by, that error first
    fixed: Sequence[str] = ()  # the hyperparameters that were not searched; columns of `trials`


def load_results(stores: Stores, name: str) -> StudyResults:
    """Read a study from both stores.

    Raises:
        BadInput: there is no such study, or it was not made here.
        BdqmError: a store cannot be read.
    """
    study = load_study(stores, name)
    if SIGNATURE not in study.user_attrs:
        raise BadInput(f"study {name!r} was not made by bdqm-tune; nothing is known of its data and objective")
    objectives, experiment = objectives_of(study.user_attrs[SIGNATURE]), study.user_attrs.get(EXPERIMENT, "")
    objective = objectives[0]
    tables = TrialTables(cache_of(study).backend, id_of(study))
    spaces = tables.spaces()
    client = tracking_client(stores)
    workers, given = tables.workers(), tables.given()
    rows = [
        {**_row(trial), "worker": workers.get(id_of(trial)), "given": id_of(trial) in given}
        for trial in study.get_trials(deepcopy=False)
    ]
    curves = _curves(stores, experiment, rows, objective)
    tried = spaces | {name: None for row in rows for name in row["params"]}
    searchable = searchable_in(study.user_attrs[SIGNATURE], tried)
    trials = _frame(rows, [key for key in searchable if key in spaces])
    fixed = [key for key in searchable if key in trials and not is_searched(spaces, key)]
    try:
        runs, splits = _study_runs(client, experiment, name), _splits(client, trials)
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot read the study's runs from MLflow: {reason(error)}") from None
    trials = _placed(trials, tables.descriptions(), runs)
    names = [key for key in searchable if is_searched(spaces, key)]
    return StudyResults(name, trials, curves, objective, names, study, spaces, runs, splits, objectives, fixed)


def trials_frame(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """One row a trial; what a trial does not have is NaN."""
    return _frame([_row(trial) for trial in trials])


def _curves(stores: Stores, experiment: str, rows: Sequence[Mapping[str, Any]], objective: str) -> pd.DataFrame:
    """The objective of the trials by epoch."""
    numbers = {row["run_id"]: row["number"] for row in rows if row["run_id"]}
    read = read_curves(stores, experiment, list(numbers), objective)
    curves = pd.DataFrame({"trial": read["run_id"].map(numbers), "epoch": read["step"], objective: read["value"]})
    return curves.astype({"trial": int, "epoch": int, objective: float}).sort_values(
        ["trial", "epoch"], ignore_index=True
    )


def _row(trial: FrozenTrial) -> dict[str, Any]:
    """What is known of a trial."""
    result = trial.user_attrs.get(RESULT, {})
    times = (trial.datetime_start, trial.datetime_complete)
    return {
        "number": trial.number,
        "state": STATES[trial.state],
        **{key: result.get(key) for key in MEASURED},
        **dict(zip(TIMES, times, strict=True)),
        "run_id": trial.user_attrs.get(RUN_ID),
        "params": tried_values(trial),
    }


def _frame(rows: Sequence[dict[str, Any]], hyperparameters: Sequence[str] = ()) -> pd.DataFrame:
    flat = [{**{key: value for key, value in row.items() if key != "params"}, **row["params"]} for row in rows]
    frame = pd.DataFrame(flat, columns=None if flat else [*COLUMNS, *hyperparameters])
    numbers = [key for key in MEASURED if key != "reason"]
    frame = frame.astype(dict.fromkeys(numbers, float))
    return frame.assign(**{key: pd.to_datetime(frame[key]) for key in TIMES})


def _study_runs(client: MlflowClient, experiment: str, name: str) -> pd.DataFrame:
    """The options of the configuration of every worker's run, by the run's id; the first to start first."""
    if not experiment:
        return pd.DataFrame()
    found = client.search_runs([experiment], "tags.kind = 'study'", order_by=["attributes.start_time ASC"])
    own = {run.info.run_id: run.data.params for run in found if run.data.tags.get("study") == name}
    return pd.DataFrame.from_dict(own, orient="index")


def _splits(client: MlflowClient, trials: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """What the trials were trained and validated on, from the first of their runs that still exists."""
    known = trials["run_id"].dropna().iloc[:MOST_QUERIES]
    first = next((run for run_id in known if (run := active_run(client, run_id)) is not None), None)
    if first is None:
        return {}
    inputs: Any = first.inputs
    return {
        next(tag.value for tag in given.tags if tag.key == CONTEXT): json.loads(given.dataset.profile)
        for given in inputs.dataset_inputs
    }


def _placed(trials: pd.DataFrame, workers: Mapping[str, Mapping[str, str]], runs: pd.DataFrame) -> pd.DataFrame:
    """The trials with the host, the device, the sampler and the pruner of each, where they are known."""
    about = pd.DataFrame(
        [{"worker": name, **description} for name, description in workers.items()], columns=["worker", *DESCRIBED]
    )
    about = about.join(runs.reindex(columns=["study.sampler", "study.pruner"]), on="run_id")
    about = about.rename(columns={"study.sampler": "sampler", "study.pruner": "pruner"}).drop(columns="run_id")
    placed = trials.reindex(columns=[*trials.columns, *({"worker", "given"} - {*trials.columns})])
    placed = placed.astype({"worker": object}).merge(about, on="worker", how="left")  # of no trials it is a number
    for option in ("sampler", "pruner"):  # of a study that knows no workers, where all its runs had the same
        logged = set(runs.get(f"study.{option}", ()))
        placed[option] = placed[option].fillna(logged.pop()) if len(logged) == 1 else placed[option]
    return placed
