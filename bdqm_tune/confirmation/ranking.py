"""Configurations ranked by what several seeds gave, the significance of their differences, and the words for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bdqm_tune.confirmation import ranking
from bdqm_tune.confirmation.candidates import FINALIST, Candidate
from bdqm_tune.confirmation.retraining import Retraining
from bdqm_tune.errors import BdqmError

LEVEL = 0.95  # of the intervals
SIGNIFICANT = 0.05  # p below which two differ
INTERVAL = "95 % confidence interval of the mean by Student's t"
TEST = "two-sided paired t-test over the seeds"
Trained = Mapping[str, Sequence[Retraining]]  # by the candidate's name, in the order of the seeds


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and the ends of its confidence interval."""

    mean: float
    low: float
    high: float
    std: float  # of one value, n - 1 in the divisor


@dataclass(frozen=True)
class Comparison:
    """Two configurations with the same seeds: the second less the first."""

    difference: Mean
    p: float

    @property
    def distinguishable(self) -> bool:
        """Whether they differ significantly."""
        return self.p < SIGNIFICANT


def mean_of(values: NDArray[np.float64]) -> Mean:
    """The mean of values (n_seeds,) with its interval, mean ± t · std / √n. Raises ValueError for fewer than two."""
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval needs at least 2 values, got {n}")
    mean, std = float(values.mean()), float(values.std(ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * std / n**0.5
    return Mean(mean, mean - half, mean + half, std)


def compare(first: NDArray[np.float64], second: NDArray[np.float64]) -> Comparison:
    """Whether two configurations differ, from what each gave (n_seeds,) with the same seeds.

    Student's paired test: the rank tests cannot reach p < 0.05 with five pairs.
    """
    difference = mean_of(second - first)
    if difference.std == 0:  # what does not depend on the seed
        return Comparison(difference, 1.0 if difference.mean == 0 else 0.0)
    n = len(first)
    return Comparison(difference, 2 * float(stats.t.sf(abs(difference.mean) / difference.std * n**0.5, n - 1)))


def order(values: Sequence[NDArray[np.float64]]) -> list[int]:
    """Places of configurations by their mean, the best first; one with a seed that gave nothing (NaN) comes last."""

    def key(i: int) -> tuple[int, float, int]:
        missing = int(np.isnan(values[i]).sum())
        return missing, float(values[i][~np.isnan(values[i])].mean()) if missing < len(values[i]) else np.inf, i

    return sorted(range(len(values)), key=key)


@dataclass(frozen=True)
class Verdict:
    """Which finalist is chosen, and why."""

    champion: Candidate
    best: Retraining  # its model with the least objective
    why: str
    baselines: list[str]  # how each compares with the champion


def values_of(trained: Sequence[Retraining]) -> NDArray[np.float64]:
    """The objective for each seed, (n_seeds,); NaN where the training did not come to its end."""
    return np.array([one.value for one in trained], dtype=np.float64)


def table(candidates: Sequence[Candidate], trained: Trained, champion: Candidate) -> pd.DataFrame:
    """One row a candidate, the best first: mean, std, interval and best of the objective (eV or eV/Å), over how many
    seeds, and the difference to the champion with its interval and p."""
    found = [values_of(trained[candidate.name]) for candidate in candidates]
    order = ranking.order(found)
    chosen = values_of(trained[champion.name])
    rows: list[dict[str, Any]] = []
    for rank, i in enumerate(order, start=1):
        candidate, runs = candidates[i], trained[candidates[i].name]
        complete = found[i][~np.isnan(found[i])]
        row: dict[str, Any] = {
            "rank": rank,
            "name": candidate.name,
            "kind": candidate.kind,
            "trial": candidate.trial,
            "n_parameters": n_parameters(runs),
            "seeds": len(complete),
            "mean": float(complete.mean()) if len(complete) else None,
        }
        if len(complete) > 1:
            mean = ranking.mean_of(complete)
            row |= {"std": mean.std, "low": mean.low, "high": mean.high}
        if len(complete):
            best = best_of(runs)
            row |= {"best": best.value, "best_seed": best.seed, "best_run_id": best.run_id}
        if not np.isnan(found[i]).any() and candidate is not champion:
            compared = ranking.compare(chosen, found[i])
            row |= {
                "difference": compared.difference.mean,
                "difference_low": compared.difference.low,
                "difference_high": compared.difference.high,
                "p": compared.p,
            }
        rows.append(row)
    columns = [
        *("rank", "name", "kind", "trial", "n_parameters", "seeds", "mean", "std", "low", "high"),
        *("best", "best_seed", "best_run_id", "difference", "difference_low", "difference_high", "p"),
    ]
    whole = dict.fromkeys(("trial", "n_parameters", "best_seed"), "Int64")
    return pd.DataFrame(rows, columns=columns).astype(whole)


def decide(candidates: Sequence[Candidate], trained: Trained, unit: str) -> Verdict:
    """Choose a finalist: the one with the least mean, or the smaller of the first two if these do not differ.

    Raises:
        BdqmError: no finalist was trained to the end with every seed.
    """
    contenders = [c for c in candidates if c.kind == FINALIST and not np.isnan(values_of(trained[c.name])).any()]
    if not contenders:
        reasons = {one.reason for runs in trained.values() for one in runs if one.reason}
        raise BdqmError(f"no finalist was trained to the end with every seed: {'; '.join(sorted(reasons))}")
    order = ranking.order([values_of(trained[c.name]) for c in contenders])
    winner = contenders[order[0]]
    champion, why = winner, f"{winner.name} is the only finalist"
    if len(order) > 1:
        champion, why = _of_two(winner, contenders[order[1]], trained, unit)
    lines = [_against(champion, other, trained, unit) for other in candidates if other.kind != FINALIST]
    return Verdict(champion, best_of(trained[champion.name]), why, lines)


def best_of(trained: Sequence[Retraining]) -> Retraining:
    """The training with the least objective; of equal ones, the first."""
    return min((one for one in trained if one.state == "complete"), key=lambda one: one.value)


def n_parameters(trained: Sequence[Retraining]) -> int | None:
    """Of the network, which is the same with every seed; None where no training began."""
    return next((one.n_parameters for one in trained if one.n_parameters is not None), None)


def _of_two(winner: Candidate, second: Candidate, trained: Trained, unit: str) -> tuple[Candidate, str]:
    compared = ranking.compare(values_of(trained[winner.name]), values_of(trained[second.name]))
    found = f"{_difference(compared, unit)} by a {ranking.TEST}"
    if compared.distinguishable:
        return winner, f"{winner.name} is better than the runner-up {second.name}: {found}"
    sizes = {c.name: n_parameters(trained[c.name]) or 0 for c in (winner, second)}
    smaller = second if sizes[second.name] < sizes[winner.name] else winner
    larger = second if smaller is winner else winner
    chosen = f"{smaller.name} is smaller, with {sizes[smaller.name]} parameters against {sizes[larger.name]}"
    if sizes[smaller.name] == sizes[larger.name]:
        chosen = f"both have {sizes[smaller.name]} parameters, and {smaller.name} the lesser mean"
    return smaller, f"{winner.name} cannot be told from the runner-up {second.name} ({found}); {chosen}"


def _against(champion: Candidate, other: Candidate, trained: Trained, unit: str) -> str:
    first, second = values_of(trained[champion.name]), values_of(trained[other.name])
    if np.isnan(second).any():
        n_seeds = int((~np.isnan(second)).sum())
        return f"{other.name}: trained to the end with {n_seeds} of {len(second)} seeds only; not compared"
    compared = ranking.compare(first, second)
    if not compared.distinguishable:
        word = "cannot be told from"
    else:
        word = "is worse than" if compared.difference.mean > 0 else "is BETTER than"
    return f"{other.name} {word} {champion.name}: {_difference(compared, unit)}"


def _difference(compared: ranking.Comparison, unit: str) -> str:
    d = compared.difference
    return f"{d.mean:+.4g} {unit} ({d.low:+.4g} to {d.high:+.4g}), p = {compared.p:.2g}"
