"""The best value of each error and objective that a study has reached."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.config.config import Objective
from bdqm_tune.study.study import RESULT

ERRORS = get_args(Objective)  # of the validation split


@dataclass(frozen=True)
class BestSoFar:
    """The best values of the trials that have ended.

    Trials that have ended stay so: the same number of them is the same set, and has the same values, for every worker.
    """

    n_ended: int  # trials that have ended, whatever they came to
    time: datetime  # when the last of them ended; local time
    values: dict[str, float]  # `best_NAME` of every error and objective
    trials: frozenset[int]  # numbers of the trials that one of these values is of


def best_so_far(
    trials: Sequence[FrozenTrial], objectives: Sequence[str], directions: Sequence[StudyDirection]
) -> BestSoFar | None:
    """The best of the complete trials, over all workers; None if none is complete.

    Each value is the best by itself: with several of them, they may be of different trials.

    Args:
        objectives: names of the trials' values.
        directions: minimised or maximised, for each of them. Errors that are no objectives are minimised.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        return None
    ended = [trial for trial in trials if trial.state.is_finished()]
    values: dict[str, float] = {}
    numbers: set[int] = set()
    for name in dict.fromkeys((*objectives, *ERRORS)):
        if name in objectives:
            place = objectives.index(name)
            found = [float(trial.values[place]) for trial in complete]
            pick = max if directions[place] == StudyDirection.MAXIMIZE else min
        else:
            results = [trial.user_attrs.get(RESULT, {}).get(name) for trial in complete]
            found = [float("inf") if value is None else float(value) for value in results]
            pick = min
        best = pick(found)
        if best != float("inf"):
            values[f"best_{name}"] = best
            numbers |= {trial.number for trial, value in zip(complete, found, strict=True) if value == best}
    last = max(trial.datetime_complete for trial in ended if trial.datetime_complete is not None)
    return BestSoFar(len(ended), last, values, frozenset(numbers))
