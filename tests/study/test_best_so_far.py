"""The best so far, worked out by hand."""

from datetime import datetime

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from bdqm_tune.study.best_so_far import best_so_far
from bdqm_tune.study.study import RESULT

MINIMISE, MAXIMISE = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE


def trials(*rows: tuple[list[float] | None, dict[str, float]]) -> list[FrozenTrial]:
    """Of values, complete, and of None, pruned; with the results that each has."""
    study = optuna.create_study(directions=[MINIMISE] * max(len(values or [0]) for values, _ in rows))
    for values, result in rows:
        state = TrialState.PRUNED if values is None else TrialState.COMPLETE
        study.add_trial(create_trial(state=state, values=values, user_attrs={RESULT: result}))
    return study.get_trials()


def test_it_is_the_least_of_the_complete_trials_whatever_their_order() -> None:
    found = trials(([3.0], {}), ([1.0], {}), (None, {"val_energy_mae": 0.5}), ([2.0], {}))
    best = best_so_far(found, ["val_energy_mae"], [MINIMISE])
    assert best is not None
    assert (best.n_ended, best.values, best.trials) == (4, {"best_val_energy_mae": 1.0}, {1})
    assert isinstance(best.time, datetime)
    assert best_so_far(found[2:3], ["val_energy_mae"], [MINIMISE]) is None


def test_each_error_is_the_best_by_itself() -> None:
    found = trials(
        ([0.3], {"val_forces_mae": 0.3, "val_energy_mae": 2.0, "val_energy_mae_per_atom": 0.2}),
        ([0.4], {"val_forces_mae": 0.4, "val_energy_mae": 1.0}),  # of an earlier version, which knew none per atom
    )
    best = best_so_far(found, ["val_forces_mae"], [MINIMISE])
    assert best is not None
    assert best.values == {
        "best_val_forces_mae": 0.3,
        "best_val_energy_mae": 1.0,
        "best_val_energy_mae_per_atom": 0.2,
    }
    assert best.trials == {0, 1}


def test_objectives_go_by_their_directions() -> None:
    found = trials(([3.0, 10.0], {}), ([1.0, 30.0], {}), ([2.0, 20.0], {}))
    for direction, value in ((MINIMISE, 10.0), (MAXIMISE, 30.0)):
        best = best_so_far(found, ["val_energy_mae", "n_parameters"], [MINIMISE, direction])
        assert best is not None
        assert best.values == {"best_val_energy_mae": 1.0, "best_n_parameters": value}
