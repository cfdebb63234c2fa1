"""A model of a study, evaluated on the test split: it predicts first, and then the lock box is opened, on record."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass

import optuna
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.evaluation.lockbox import next_opening, put_on_record
from bdqm_tune.evaluation.measurement import measure, measure_unlabelled, predict, predict_stress
from bdqm_tune.evaluation.record import Evaluation, record_evaluation, recorded_evaluation
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.potential import Potential
from bdqm_tune.models.store import MODEL_FOLDERS, existing_run, load_model
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.secrets import refuse_secrets
from bdqm_tune.storage.database import study_lock
from bdqm_tune.structures.sealed import open_labels
from bdqm_tune.study.data import load_test_split, study_data, trial_config
from bdqm_tune.study.selection import chosen_model
from bdqm_tune.study.study import EXPERIMENT, load_study
from bdqm_tune.tracking.client import reason, tracking_client
from bdqm_tune.tracking.quiet import quiet_libraries

LATEST = "latest"


@dataclass(frozen=True)
class Candidate:
    """A model of a study that is to be evaluated."""

    model: Potential | Ensemble
    run: Run  # that has it
    trained: Run  # of the trial that it is, or of one of its members: what it was trained on
    trials: tuple[int, ...]  # one, or those of an ensemble's members

    def __str__(self) -> str:
        if not isinstance(self.model, Ensemble):
            return f"trial {self.trials[0]}"
        if len(self.trials) == 1:
            return f"the ensemble of trial {self.trials[0]} with {len(self.model.members)} seeds"
        return f"the ensemble of trials {', '.join(map(str, self.trials))}"


Choose = Callable[[optuna.Study, MlflowClient, Stores], Candidate]


def evaluate_best(
    stores: Stores,
    name: str,
    reopen: str = "",
    train: str = "",
    trial: int | None = None,
    allow_unknown_elements: bool = False,
) -> Evaluation:
    """Evaluate a study's champion, or else its best trial, on its test split, as `evaluate` does.

    Args:
        trial: number of the one to evaluate in their place.
    """
    return evaluate(stores, name, chosen(trial), reopen, train, allow_unknown_elements)


def evaluate(
    stores: Stores,
    name: str,
    choose: Choose,
    reopen: str = "",
    train: str = "",
    allow_unknown_elements: bool = False,
) -> Evaluation:
    """Evaluate a model of a study on its test split, and record it in the study and in a run of its own.

    The test split is opened for one model. The same again gives what is on record; another needs a reason, which stays
    on record. Of two evaluations at once, one waits for the other.

    Args:
        choose: gives the model.
        reopen: the reason.
        train: the training file, where it is no longer where it was; empty: it is.
        allow_unknown_elements: also of elements that the model was not trained on, with a warning.

    Raises:
        BadInput: no such study or model, the study has no test split, or it was opened for another model; it has
            elements that the model was not trained on; or the training file is not there or has changed.
        BdqmError: a store or a file cannot be read.
    """
    quiet_libraries()
    refuse_secrets({"reopen": reopen})
    load_study(stores, name)  # without a study there is nothing to lock
    with study_lock(stores, name, "evaluation") as check:
        study, client = load_study(stores, name), tracking_client(stores)
        test = load_test_split(study, stores.home)
        try:
            candidate = choose(study, client, stores)
            opening = next_opening(study, str(candidate), candidate.run.info.run_id, test.digest, reopen)
            if opening.is_done:
                return recorded_evaluation(client, study, opening)
            config = trial_config(client, candidate.trained)
            data = study_data(config, candidate.trained, train or None)
            predicted = predict(candidate.model, test, stores.home, allow_unknown_elements)
            trained = config.training.stress
            stress = predict_stress(candidate.model, test, allow_unknown_elements) if trained else None
            known = measure_unlabelled(candidate.model, test, data, stores.home)
            check()
            put_on_record(study, opening)  # now: from here on, the labels count as seen
            labelled = open_labels(test, stores.home)
            found = measure(candidate.model, predicted, labelled, data.structures.select(data.train), stress)
            return record_evaluation(client, study, candidate.run, candidate.trials, opening, found | known)
        except (MlflowException, OSError) as error:
            raise BdqmError(f"cannot evaluate through the MLflow tracking store: {reason(error)}") from None


def chosen(trial: int | None = None) -> Choose:
    """Chooses a study's champion, or else its best trial; or the trial of this number."""

    def choose(study: optuna.Study, client: MlflowClient, stores: Stores) -> Candidate:
        model = chosen_model(study, trial)
        run = existing_run(client, f"trial {model.trial}, {model.why}", model.run_id)
        trained = client.get_run(model.trained_in)
        found = load_model(f"runs:/{model.run_id}/{MODEL_FOLDERS[model.is_ensemble]}", stores)
        return Candidate(found, run, trained, (model.trial,))

    return choose


def evaluate_ensemble(
    stores: Stores,
    name: str,
    which: str = LATEST,
    reopen: str = "",
    train: str = "",
    allow_unknown_elements: bool = False,
) -> Evaluation:
    """Evaluate an ensemble of a study on its test split, as `evaluate` does: it is one more model of the study.

    The errors have three columns more: std, low and high (eV), the spread and the ends of the interval.

    Args:
        which: the id of the ensemble's run, or `latest`.

    Raises:
        BadInput: as `evaluate`, and if there is no such ensemble.
        BdqmError: a store or a file cannot be read.
    """
    return evaluate(stores, name, chosen_ensemble(which), reopen, train, allow_unknown_elements)


def chosen_ensemble(which: str = LATEST) -> Choose:
    """Chooses an ensemble of a study: by the id of its run, or the latest."""

    def choose(study: optuna.Study, client: MlflowClient, stores: Stores) -> Candidate:
        run = _ensemble_run(client, study.study_name, study.user_attrs[EXPERIMENT], which)
        ensemble = load_model(run.info.run_id, stores)
        if not isinstance(ensemble, Ensemble) or ensemble.calibration is None:
            raise BadInput(f"{run.info.run_id}: holds no calibrated ensemble")
        trained = client.get_run(run.data.tags["model_run_ids"].split(", ")[0])
        trials = tuple(int(number) for number in run.data.tags["trials"].split(","))
        return Candidate(ensemble, run, trained, trials)

    return choose


def _ensemble_run(client: MlflowClient, study: str, experiment_id: str, which: str) -> Run:
    """The run of an ensemble of the study. Raises BadInput if it has none, or not this one."""
    found = client.search_runs([experiment_id], "tags.kind = 'ensemble'", order_by=["attributes.start_time DESC"])
    runs = {run.info.run_id: run for run in found if run.data.tags.get("study") == study}
    if not runs:
        raise BadInput(
            f"study {study!r} has no ensemble yet; `bdqm-tune ensemble --study {shlex.quote(study)}` makes one"
        )
    if which == LATEST:
        return next(iter(runs.values()))
    if which not in runs:
        raise BadInput(f"study {study!r} has no ensemble {which!r}; it has {LATEST} and {', '.join(runs)}")
    return runs[which]
