"""What a study's trials are judged by, and which of them are the better ones."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from optuna.trial import FrozenTrial, TrialState


def objectives_of(signature: Mapping[str, Any]) -> list[str]:
    """The objectives in a study's search-space signature, in the order of its trials' values: the error first."""
    return list(signature.get("objectives", [signature["objective"]]))


def error_of(trial: FrozenTrial) -> float:
    """The error by which training goes, of a complete trial; of several objectives it is the first."""
    return float(trial.values[0])


def best_first(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Those that are complete, by their error."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return sorted(complete, key=lambda trial: (error_of(trial), trial.number))


def pareto_front(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The complete trials on the Pareto front, by their error."""
    ordered = best_first(trials)
    if not ordered:
        return []
    return [
        trial for trial, is_on in zip(ordered, is_on_pareto_front([t.values for t in ordered]), strict=True) if is_on
    ]


def is_on_pareto_front(values: ArrayLike | Sequence[Sequence[float]]) -> NDArray[np.bool_]:
    """Mask (n,) of the points (n, n_objectives) on the Pareto front: those that no other point dominates.

    All objectives are minimised. Of equal points all are on the front.
    """
    points = np.asarray(values, dtype=float)
    is_on = np.zeros(len(points), dtype=bool)
    for i in np.lexsort(points.T[::-1]):  # what dominates a point comes before it
        front = points[is_on]
        is_on[i] = not ((front <= points[i]).all(axis=1) & (front < points[i]).any(axis=1)).any()
    return is_on
