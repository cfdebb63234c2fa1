"""A study that others touch while a worker runs: workers with other settings, and programs of Optuna's own."""

import time
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from bdqm_tune.errors import BdqmError
from bdqm_tune.services.connection import Stores
from bdqm_tune.storage.cache import cache_of
from bdqm_tune.storage.database import open_storage
from bdqm_tune.study.search_space import BEGUN
from bdqm_tune.study.study import RESULT, RUN_ID, load_study, next_trial, others_run, requeue
from bdqm_tune.tuning.trial import TrialRunner
from tests.places import Place
from tests.storage.test_database import new_study

Run = Callable[..., Any]
SEARCHED = {"lr": {"float": [1e-3, 1e-2]}, "num_nodes": {"int": [6, 9]}}
TRAINING = {"epochs": 12, "early_stopping": None}


def theirs(stores: Stores, name: str) -> optuna.Study:
    """The study as a program of Optuna's own has it."""
    return optuna.load_study(study_name=name, storage=stores.storage_url)


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_a_begun_trial_keeps_its_hyperparameters_and_its_seed(
    run: Run, interrupted: Callable[[int], None], stores: Stores, with_checkpoint: bool
) -> None:
    """Whatever the next worker's configuration says: a curve, its reports and a model are of one training."""
    study = {"n_trials": 1, "pruner": "none", "sampler": "random", "enqueue": [{"lr": 0.005, "num_nodes": 7}]}
    reference, _ = run(study={**study, "name": "whole"}, search=SEARCHED, training=TRAINING)
    interrupted(7)
    with pytest.raises(KeyboardInterrupt):
        run(study={**study, "name": "parts"}, search=SEARCHED, training=TRAINING)
    if not with_checkpoint:
        for file in (stores.home / "checkpoints").rglob("*.checkpoint"):
            file.unlink()
    fixed = {"lr": 1e-4, "num_nodes": 5}
    resumed, results = run(study={**study, "name": "parts", "seed": 7, "enqueue": []}, search=fixed, training=TRAINING)
    first, whole = resumed.trials[0], reference.trials[0]
    assert first.user_attrs[BEGUN]["search"]["num_nodes"] == first.params["num_nodes"] == 7
    assert first.value == whole.value
    assert first.user_attrs[RESULT]["n_parameters"] == whole.user_attrs[RESULT]["n_parameters"]
    client = MlflowClient()
    ours, reference_run = (client.get_run(trial.user_attrs[RUN_ID]) for trial in (first, whole))
    for parameter in ("lr", "num_nodes", "seed"):
        assert ours.data.params[parameter] == reference_run.data.params[parameter], parameter
    histories = [client.get_metric_history(one.info.run_id, "val_energy_mae") for one in (ours, reference_run)]
    curves = [[(metric.step, metric.value) for metric in history] for history in histories]
    assert curves[0] == curves[1]
    assert results[1].n_parameters != results[0].n_parameters, "what begins now is as the configuration says"


def test_parameters_that_nothing_can_train_fail_their_trial_alone(run: Run, stores: Stores) -> None:
    search = {"activation": {"choice": ["tanh", "relu"]}, "lr": {"float": [1e-3, 1e-2]}}
    run(study={"name": "poisoned", "n_trials": 1}, search=search)
    for parameters in ({"activation": "rleu"}, {"lr": "abc"}, {"lr": -1.0}):
        theirs(stores, "poisoned").enqueue_trial(parameters)
    study, results = run(study={"name": "poisoned", "n_trials": 1}, search=search)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "FAIL", "FAIL", "COMPLETE"]
    assert "rleu" in results[0].reason
    assert study.trials[1].user_attrs[RESULT]["reason"] == results[0].reason


def test_nobody_waits_for_a_trial_that_another_program_runs(place: Place) -> None:
    study = new_study(open_storage(place.stores), 2)
    study.enqueue_trial({"a": 1})
    backend = cache_of(study).backend
    backend.worker = "w1"
    other = optuna.load_study(study_name="s", storage=optuna.storages.RDBStorage(backend.url, backend.engine_kwargs))
    for _ in range(3):
        other.ask()
    assert [trial.state for trial in study.get_trials()] == [TrialState.RUNNING] * 3
    assert next_trial(study) is None
    assert not others_run(study)


def test_a_requeued_trial_is_whose_program_claims_it(place: Place) -> None:
    study = new_study(open_storage(place.stores), 1)
    backend = cache_of(study).backend
    backend.worker = "w1"
    trial = next_trial(study)
    assert trial is not None
    requeue(trial)
    other = optuna.load_study(study_name="s", storage=optuna.storages.RDBStorage(backend.url, backend.engine_kwargs))
    asked = other.ask()
    assert asked.number == trial.number
    assert [claim.worker for claim in backend.running(study._study_id)] == [""], "so that no worker requeues it"
    other.tell(asked, 0.5)


@pytest.mark.parametrize("moment", ["_suggest", "_open_run"])
def test_a_trial_that_is_ended_by_hand_does_not_end_its_worker(
    run: Run, stores: Stores, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    method, ended = getattr(TrialRunner, moment), list[int]()

    def end_first(self: TrialRunner, trial: optuna.Trial, *arguments: Any) -> Any:
        result = method(self, trial, *arguments) if moment == "_open_run" else None
        if not ended:
            ended.append(trial.number)
            while result is not None and RUN_ID not in theirs(stores, "touched").trials[trial.number].user_attrs:
                time.sleep(0.05)  # until the run is made, in the thread that sends
            theirs(stores, "touched").tell(trial.number, state=TrialState.FAIL)
        return result if result is not None else method(self, trial, *arguments)

    monkeypatch.setattr(TrialRunner, moment, end_first)
    study, _ = run(study={"name": "touched", "n_trials": 2, "pruner": "hyperband"}, training=TRAINING)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    runs = MlflowClient().search_runs([study.user_attrs["mlflow_experiment_id"]])
    assert not [one.info.run_name for one in runs if one.info.status == "RUNNING"]


def test_a_worker_leaves_a_study_that_took_the_place_of_its_own(
    run: Run, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite gives the id of a deleted study to the next one."""
    take, taken = TrialRunner._take, list[int]()

    def replaced(self: TrialRunner, study: optuna.Study) -> Any:
        if len(taken) == 1:
            optuna.delete_study(study_name="old", storage=stores.storage_url)
            new = optuna.create_study(study_name="new", storage=stores.storage_url)
            assert new._study_id == study._study_id
            new.enqueue_trial({})
        taken.append(1)
        return take(self, study)

    monkeypatch.setattr(TrialRunner, "_take", replaced)
    with pytest.raises(BdqmError, match="the study was deleted while this worker ran"):
        run(study={"name": "old", "n_trials": 2})
    assert [trial.state.name for trial in load_study(stores, "new").trials] == ["WAITING"]
