"""How much too low the least validation error of a study is, as it is the least of several that are noisy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.learning.bootstrap import LEAST, selection_optimism
from bdqm_tune.study.study import RESULT
from bdqm_tune.units import OBJECTIVE_UNITS, shown

COMPLETE, PRUNED = TrialState.COMPLETE, TrialState.PRUNED
METHOD = "bootstrap over validation structures"


@dataclass(frozen=True)
class Optimism:
    """The least validation error of a study's complete trials, and what to expect of it on new structures."""

    objective: str
    least: float  # in the objective's unit
    expected: float  # the same, and how much too low that is
    trials: int  # that it was chosen among, pruned ones too

    def text(self) -> str:
        """One line for a reader."""
        factor, unit = shown(1.0, OBJECTIVE_UNITS[self.objective])
        return (
            f"{factor * self.expected:.4g} {unit} are to be expected on new structures of the kind: the least of "
            f"{self.trials} validation errors, {factor * self.least:.4g}, is too low by about "
            f"{factor * (self.expected - self.least):.2g} ({METHOD})"
        )


def optimism_of(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> Optimism | None:
    """What choosing among the trials makes of their least error.

    Pruned trials count with their best epoch: the same noisy errors chose against them.

    None where it is not known: of several objectives, of fewer than two trials, of fewer than ten validation
    structures, or where complete trials do not have the errors of single structures, as those of earlier versions.
    """
    errors = {state: [_errors(t) for t in trials if t.state == state] for state in (COMPLETE, PRUNED)}
    complete = [each for each in errors[COMPLETE] if each is not None]
    known = [*complete, *(each for each in errors[PRUNED] if each is not None)]  # one that diverged has none
    if len(objectives) > 1 or not complete or len(complete) < len(errors[COMPLETE]):
        return None
    if len(known) < 2 or len(known[0]) < LEAST:
        return None
    least = float(np.mean(complete, axis=1).min())
    return Optimism(objectives[0], least, least + selection_optimism(np.array(known)), len(known))


def _errors(trial: FrozenTrial) -> list[float] | None:
    errors: list[float] | None = trial.user_attrs.get(RESULT, {}).get("validation_errors")
    return errors
