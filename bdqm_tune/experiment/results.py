"""What a study found, as data frames."""

from dataclasses import dataclass

import optuna
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial

from bdqm_tune.errors import BdqmError
from bdqm_tune.experiment.search_space import SEARCHABLE
from bdqm_tune.experiment.study import QUESTION, RESULT, RUN_ID, STATES, load_study
from bdqm_tune.experiment.tracking_client import reason, tracking_client
from bdqm_tune.progress import track
from bdqm_tune.services.connection import Stores

MEASURED = ("val_energy_mae", "val_forces_mae", "best_epoch", "epochs", "n_parameters", "trial_seconds", "reason")


@dataclass(frozen=True)
class StudyResults:
    """A study's trials and their curves."""

    name: str
    trials: pd.DataFrame  # one row a trial: number, state, val_energy_mae (eV), …, run_id, hyperparameters
    curves: pd.DataFrame  # trial, epoch, and the objective
    objective: str  # what the trials are judged by: val_energy_mae (eV) or val_forces_mae (eV/Å), as in the frames
    hyperparameters: list[str]  # those that were searched, of the descriptor as `descriptor.OPTION`
    study: optuna.Study


def load_results(stores: Stores, name: str) -> StudyResults:
    """Read a study from both stores.

    Raises:
        BadInput: there is no such study.
        BdqmError: a store cannot be read.
    """
    study = load_study(stores, name)
    found = study.get_trials(deepcopy=False)
    trials = trials_frame(found)
    searched = {key for trial in found for key, space in trial.distributions.items() if not space.single()}
    names = [key for key in SEARCHABLE if key in searched]
    objective = study.user_attrs[QUESTION]["objective"]
    curves = _curves_frame(tracking_client(stores), trials, objective)
    return StudyResults(name, trials, curves, objective, names, study)


def trials_frame(trials: list[FrozenTrial]) -> pd.DataFrame:
    """One row a trial; what a trial does not have is NaN."""
    rows = []
    for trial in trials:
        result = trial.user_attrs.get(RESULT, {})
        rows.append(
            {
                "number": trial.number,
                "state": STATES[trial.state],
                **{key: result.get(key) for key in MEASURED},
                "run_id": trial.user_attrs.get(RUN_ID),
                **trial.params,
            }
        )
    frame = pd.DataFrame(rows, columns=None if rows else ["number", "state", *MEASURED, "run_id"])
    numbers = [key for key in MEASURED if key != "reason"]
    return frame.astype(dict.fromkeys(numbers, float))


def _curves_frame(client: MlflowClient, trials: pd.DataFrame, objective: str) -> pd.DataFrame:
    rows = []
    known = trials[trials["run_id"].notna()]
    pairs = list(zip(known["number"], known["run_id"], strict=True))
    try:
        for number, run_id in track(pairs, "Curves", len(pairs)):
            # A trial that was handed back and began again has its first epochs twice; the later value counts.
            values = {m.step: m.value for m in client.get_metric_history(run_id, objective)}
            rows += [(int(number), step, value) for step, value in sorted(values.items())]
    except (MlflowException, OSError) as error:
        raise BdqmError(f"cannot read the curves from MLflow: {reason(error)}") from None
    return pd.DataFrame(rows, columns=["trial", "epoch", objective])
