"""What is to be expected of the least error of a study, and where nothing is said."""

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from bdqm_tune.learning.bootstrap import selection_optimism
from bdqm_tune.study.optimism import optimism_of
from bdqm_tune.study.study import RESULT

ERRORS = np.random.default_rng(0).exponential(size=(6, 30))
ONE = ["val_energy_mae_per_atom"]


def trial(errors: "np.ndarray | None", state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    result = {} if errors is None else {"validation_errors": errors.tolist()}
    value = None if state != TrialState.COMPLETE else 1.0
    return create_trial(state=state, value=value, user_attrs={RESULT: result})


def test_it_is_that_of_the_complete_and_the_pruned_trials() -> None:
    """Of those that did not diverge."""
    trials = [*map(trial, ERRORS[:5]), trial(None, TrialState.PRUNED), trial(None, TrialState.FAIL)]
    trials.append(trial(ERRORS[5], TrialState.PRUNED))
    found = optimism_of(trials, ONE)
    assert found is not None
    least = ERRORS[:5].mean(axis=1).min()
    assert (found.trials, found.least) == (6, pytest.approx(least))
    assert found.expected == pytest.approx(least + selection_optimism(ERRORS))
    text = found.text()
    assert text.startswith(f"{1000 * found.expected:.4g} meV/atom are to be expected")
    assert f"the least of 6 validation errors, {1000 * least:.4g}, is too low by about" in text


@pytest.mark.parametrize(
    ("trials", "objectives"),
    [
        ([], ONE),
        ([trial(ERRORS[0])], ONE),
        ([trial(ERRORS[0]), trial(None)], ONE),
        ([trial(errors[:9]) for errors in ERRORS], ONE),
        ([*map(trial, ERRORS)], [*ONE, "n_parameters"]),
    ],
    ids=["no trial", "one trial", "of an earlier version", "few structures", "several objectives"],
)
def test_nothing_is_said_where_it_is_not_known(trials: list[FrozenTrial], objectives: list[str]) -> None:
    assert optimism_of(trials, objectives) is None
