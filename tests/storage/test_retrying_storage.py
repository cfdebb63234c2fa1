"""Trials are read as Optuna reads them, and written while they are the worker's."""

import math
from pprint import pformat
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from bdqm_tune.storage.database import open_storage
from bdqm_tune.storage.queries import CLAIM_TOKEN
from bdqm_tune.study.study import add_trials, next_trial
from tests.places import Place


def of_every_kind() -> list[FrozenTrial]:
    distributions = {
        "z": FloatDistribution(1e-5, 1.0, log=True),
        "a": IntDistribution(1, 9, step=2),
        "kind": CategoricalDistribution(["tanh", None, 1, True]),
    }
    params = {"z": 0.1, "a": 3, "kind": None}
    reports = {1: math.nan, 2: math.inf, 3: -math.inf, 20: 1e-300}
    attributes: dict[str, Any] = {"user_attrs": {"run": "é'\"\\", "many": [1, {"a": None}]}, "system_attrs": {"s": 1.5}}
    return [
        create_trial(
            value=0.1 + 0.2, params=params, distributions=distributions, intermediate_values=reports, **attributes
        ),
        create_trial(values=[math.inf, -math.inf, 0.0]),
        create_trial(state=TrialState.PRUNED, value=1.0, intermediate_values={5: 1.0}),
        create_trial(state=TrialState.FAIL),
        create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": params}),
    ]


def is_same(value: Any, other: Any) -> bool:
    return pformat(value) == pformat(other)  # of nan too; entries of dicts in any order, as PostgreSQL returns rows


def test_trials_are_read_as_optuna_reads_them(place: Place) -> None:
    storage = open_storage(place.stores)
    study = optuna.create_study(storage=storage, directions=["minimize"] * 3)
    optuna.create_study(storage=storage).add_trial(create_trial(value=7.0))  # of which nothing must be seen
    for trial in of_every_kind():
        storage.create_new_trial(study._study_id, trial)
    plain = RDBStorage(storage.backend.url, storage.backend.engine_kwargs)
    truth = plain.get_all_trials(study._study_id)
    for trial in truth:
        trial._system_attrs.pop(CLAIM_TOKEN, None)
    assert len(truth) == 5
    found = open_storage(place.stores).get_all_trials(study._study_id)
    for trial, true in zip(found, truth, strict=True):
        assert is_same(vars(trial), vars(true))
        assert list(trial.params) == list(true.params)
        assert is_same(vars(storage.backend.get_trial(trial._trial_id)), vars(true))
    complete = storage.backend.get_all_trials(study._study_id, states=(TrialState.COMPLETE,))
    assert [trial.number for trial in complete] == [0, 1]
    with pytest.raises(KeyError):
        storage.get_all_trials(999)
    with pytest.raises(KeyError):
        storage.get_trial(999)
    plain.engine.dispose()


def test_what_changed_is_read(place: Place) -> None:
    ours, others = open_storage(place.stores), open_storage(place.stores)
    study = optuna.create_study(storage=ours, study_name="s")
    add_trials(study, 4)
    known = study.get_trials()
    theirs = optuna.load_study(storage=others, study_name="s")
    for number in range(2):
        trial = next_trial(theirs)
        assert trial is not None
        trial.suggest_float("a", 0, 1)
        trial.report(0.5, 1)
        assert study.get_trials() != known
        known = study.get_trials()
        assert known[number].params == trial.params
        assert known[number].intermediate_values == {1: 0.5}
        trial.set_user_attr("run", "id")
        assert study.get_trials()[number].user_attrs == {"run": "id"}
        theirs.tell(trial, 1.0)
        assert [one.state for one in study.get_trials()][: number + 1] == [TrialState.COMPLETE] * (number + 1)
    assert ours.backend.get_all_trials(study._study_id) == study.get_trials()


def test_a_trial_that_ended_is_not_written_to(place: Place) -> None:
    ours, others = open_storage(place.stores), open_storage(place.stores)
    trial = optuna.create_study(storage=ours, study_name="s").ask()
    others.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
    for write in (
        lambda: trial.report(0.5, 1),
        lambda: trial.set_user_attr("run", "id"),
        lambda: trial.suggest_float("a", 0, 1),
        lambda: ours.set_trial_system_attr(trial._trial_id, "rung", 1),
    ):
        with pytest.raises(UpdateFinishedTrialError):
            write()
    found = others.get_trial(trial._trial_id)
    assert (found.intermediate_values, found.user_attrs, found.params, found.system_attrs) == ({}, {}, {}, {})
