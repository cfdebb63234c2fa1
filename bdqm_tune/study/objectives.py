"""What a study's trials are judged by, and which of them are the better ones."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from optuna.trial import FrozenTrial, TrialState


def objectives_of(question: Mapping[str, Any]) -> list[str]:
    """The objectives of a study from its question, in the order of its trials' values: first the error."""
    return list(question.get("objectives", [question["objective"]]))


def error_of(trial: FrozenTrial) -> float:
    """The error by which training goes, of a complete trial; of several objectives it is the first."""
    return float(trial.values[0])


def best_first(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Those that are complete, by their error."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return sorted(complete, key=lambda trial: (error_of(trial), trial.number))


def pareto_front(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The complete trials that no other one beats in all objectives, by their error."""
    ordered = best_first(trials)
    if not ordered:
        return []
    return [
        trial for trial, is_on in zip(ordered, is_on_pareto_front([t.values for t in ordered]), strict=True) if is_on
    ]


def is_on_pareto_front(values: ArrayLike | Sequence[Sequence[float]]) -> NDArray[np.bool_]:
    """Of points (n, n_objectives), those (n,) that no other one equals or beats in every objective; equal ones both.

    All objectives are the better the lower they are.
    """
    points = np.asarray(values, dtype=float)
    found = np.zeros(len(points), dtype=bool)
    for i in np.lexsort(points.T[::-1]):  # whatever beats a point comes before it
        front = points[found]
        found[i] = not ((front <= points[i]).all(axis=1) & (front < points[i]).any(axis=1)).any()
    return found
