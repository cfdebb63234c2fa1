"""An ensemble evaluated on the test split: its errors, and whether its intervals hold what they state."""

import optuna
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from bdqm_tune.errors import BadInput
from bdqm_tune.evaluation.evaluation import Candidate, evaluate
from bdqm_tune.evaluation.record import Evaluation
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.models.store import load_model
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.study import EXPERIMENT

LATEST = "latest"


def evaluate_ensemble(stores: Stores, name: str, which: str = LATEST, reopen: str = "", train: str = "") -> Evaluation:
    """Evaluate an ensemble of a study on its test split, as `evaluate` does: it is one more model of the study.

    The errors have three columns more: std, low and high (eV), the spread and the ends of the interval.

    Args:
        which: the id of the ensemble's run, or `latest`.

    Raises:
        BadInput: as `evaluate`, and if there is no such ensemble.
        BdqmError: a store or a file cannot be read.
    """

    def choose(study: optuna.Study, client: MlflowClient, stores: Stores) -> Candidate:
        run = _ensemble_run(client, name, study.user_attrs[EXPERIMENT], which)
        ensemble = load_model(run.info.run_id, stores)
        if not isinstance(ensemble, Ensemble) or ensemble.calibration is None:
            raise BadInput(f"{run.info.run_id}: holds no calibrated ensemble")
        trained = client.get_run(run.data.tags["model_run_ids"].split(", ")[0])
        trials = tuple(int(number) for number in run.data.tags["trials"].split(","))
        return Candidate(ensemble, run, trained, trials)

    return evaluate(stores, name, choose, reopen, train)


def _ensemble_run(client: MlflowClient, study: str, experiment_id: str, which: str) -> Run:
    """The run of an ensemble of the study. Raises BadInput if it has none, or not this one."""
    found = client.search_runs([experiment_id], "tags.kind = 'ensemble'", order_by=["attributes.start_time DESC"])
    runs = {run.info.run_id: run for run in found if run.data.tags.get("study") == study}
    if not runs:
        raise BadInput(f"study {study!r} has no ensemble yet; `bdqm-tune ensemble --study {study}` makes one")
    if which == LATEST:
        return next(iter(runs.values()))
    if which not in runs:
        raise BadInput(f"study {study!r} has no ensemble {which!r}; it has {LATEST} and {', '.join(runs)}")
    return runs[which]
