"""A storage that asks little gives and keeps what Optuna's own does."""

import math
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from bdqm_tune.services.optuna_private import tell_with_warning
from bdqm_tune.storage.cache import together
from bdqm_tune.storage.database import open_storage
from bdqm_tune.storage.queries import CLAIM_TOKEN
from bdqm_tune.study.samplers import make_pruner, make_sampler
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
    return repr(value) == repr(other)  # of nan too


def written(trial: FrozenTrial) -> list[str]:
    """What of a trial is there."""
    return [name for name in ("params", "intermediate_values", "user_attrs", "system_attrs") if getattr(trial, name)]


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
        assert {name: repr(value) for name, value in vars(trial).items()} == {
            name: repr(value) for name, value in vars(true).items()
        }
        assert list(trial.params) == list(true.params)
        assert is_same(vars(storage.backend.get_trial(trial._trial_id)), vars(true))
    complete = storage.backend.get_all_trials(study._study_id, states=(TrialState.COMPLETE,))
    assert [trial.number for trial in complete] == [0, 1]
    with pytest.raises(KeyError):
        storage.get_all_trials(999)
    with pytest.raises(KeyError):
        storage.get_trial(999)
    plain.engine.dispose()


@pytest.mark.parametrize("can_upsert", [True, False])
def test_what_is_set_again_counts(place: Place, can_upsert: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not can_upsert:
        monkeypatch.setattr("bdqm_tune.storage.trial_writes.INSERT", {})
    storage = open_storage(place.stores)
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    for value in (1.0, math.nan, 2.0):
        storage.set_trial_intermediate_value(trial._trial_id, 3, value)
        storage.set_trial_user_attr(trial._trial_id, "name", value)
        storage.set_trial_system_attr(trial._trial_id, "name", [value])
    found = storage.get_trial(trial._trial_id)
    assert (found.intermediate_values, found.user_attrs["name"], found.system_attrs["name"]) == ({3: 2.0}, 2.0, [2.0])


def test_in_a_block_all_is_written_at_its_end_and_seen_before(place: Place) -> None:
    storage, others = open_storage(place.stores), open_storage(place.stores)
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    with together(trial):
        trial.suggest_float("a", 0, 1)
        trial.report(0.5, 1)
        trial.set_user_attr("run", "id")
        storage.set_trial_system_attr(trial._trial_id, "rung", 1)
        assert storage.get_trial_system_attrs(trial._trial_id)["rung"] == 1
        before = others.get_trial(trial._trial_id)
        assert written(before) == []
    after = others.get_trial(trial._trial_id)
    assert (after.intermediate_values, after.user_attrs, after.params) == ({1: 0.5}, {"run": "id"}, trial.params)
    assert after.system_attrs["rung"] == 1
    with together(trial):
        trial.set_user_attr("last", True)
        study.tell(trial, 1.0)  # after which nothing can be written
    assert others.get_trial(trial._trial_id).user_attrs == {"run": "id", "last": True}


def test_of_a_block_that_fails_nothing_is_written(place: Place) -> None:
    storage = open_storage(place.stores)
    trial = optuna.create_study(storage=storage).ask()
    with pytest.raises(RuntimeError), together(trial):
        trial.report(0.5, 1)
        trial.set_user_attr("run", "id")
        raise RuntimeError
    assert written(storage.get_trial(trial._trial_id)) == []


@pytest.mark.parametrize("few", [0, 300])
def test_what_changed_is_read_however_many_trials_there_are(
    place: Place, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdqm_tune.storage.unfinished.FEW", few)
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


def test_a_transaction_that_breaks_in_a_block_begins_again(mariadb_place: Place) -> None:
    storage = open_storage(mariadb_place.stores, 30.0)
    study = optuna.create_study(storage=storage, study_name="s")
    add_trials(study, 1)
    trial = next_trial(study)
    assert trial is not None
    with together(trial):
        storage.backend.get_trial(trial._trial_id)
        trial.report(0.5, 1)
        storage.backend.scoped_session().connection().connection.driver_connection._force_close()
        assert storage.backend.get_trial(trial._trial_id).intermediate_values == {}  # asked again
        storage.backend.scoped_session().connection().connection.driver_connection._force_close()
    assert storage.get_trial(trial._trial_id).intermediate_values == {1: 0.5}
    with together(trial):  # which has nothing to write
        storage.backend.get_trial(trial._trial_id)
        storage.backend.scoped_session().connection().connection.driver_connection._force_close()
    assert storage.get_trial(trial._trial_id).state == TrialState.RUNNING


def test_a_trial_that_ends_in_the_middle_of_a_block_is_not_written_to(place: Place) -> None:
    ours, others = open_storage(place.stores), open_storage(place.stores)
    study = optuna.create_study(storage=ours, study_name="s")
    trial = study.ask()
    with pytest.raises(UpdateFinishedTrialError), together(trial):
        study.get_trials(deepcopy=False)
        trial.report(0.5, 1)
        others.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
    assert others.get_trial(trial._trial_id).intermediate_values == {}


def test_a_trial_takes_few_round_trips(mariadb_place: Place) -> None:
    """Taken, suggested, compared twice by the pruner, and told: Optuna alone takes some 120."""
    storage = open_storage(mariadb_place.stores)
    pruner = make_pruner("hyperband", 90)
    study = optuna.create_study(storage=storage, sampler=make_sampler("tpe", 0, 0), pruner=pruner)
    add_trials(study, 14)
    trips: list[str] = []
    engine = storage.backend.engine
    sqlalchemy.event.listen(engine, "after_cursor_execute", lambda *args: trips.append(args[2]))
    for ending in ("commit", "rollback"):
        sqlalchemy.event.listen(engine, ending, lambda connection, ending=ending: trips.append(ending))
    for number in range(14):
        trips.clear()
        trial = next_trial(study)
        assert trial is not None
        with together(trial):
            for name in "abcdefgh":
                trial.suggest_float(name, 0, 1)
        for epoch in (10, 30):
            with together(trial):
                trial.report(1 / (number + epoch), epoch)
                assert not trial.should_prune()
        with together(trial):
            trial.set_user_attr("result", {})
            tell_with_warning(study, trial, 1 / (1 + number))
    assert 20 < len(trips) <= 36
