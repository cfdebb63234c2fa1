"""Configurations ranked by what several seeds gave, one of them chosen, and the words for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bdqm_tune.confirmation.candidates import FINALIST, Candidate
from bdqm_tune.confirmation.retraining import Retraining
from bdqm_tune.confirmation.seeds import LEAST_SEEDS, MOST_SEEDS, POWER, TEST, Comparison, compare, mean_of
from bdqm_tune.errors import BdqmError
from bdqm_tune.units import shown

Trained = Mapping[str, Sequence[Retraining]]  # by the candidate's name, in the order of the seeds


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
    seeds, and the difference to the champion with its interval and p, and how many seeds one as large needs.

    `mean_per_atom` is of the same trainings (eV/atom); NaN of forces, and where an earlier version trained.
    """
    found = [values_of(trained[candidate.name]) for candidate in candidates]
    places = order(found)
    chosen = values_of(trained[champion.name])
    rows: list[dict[str, Any]] = []
    for rank, i in enumerate(places, start=1):
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
            "mean_per_atom": per_atom_of(runs),
        }
        if len(complete) > 1:
            mean = mean_of(complete)
            row |= {"std": mean.std, "low": mean.low, "high": mean.high}
        if len(complete):
            best = best_of(runs)
            row |= {"best": best.value, "best_seed": best.seed, "best_run_id": best.run_id}
        if not np.isnan(found[i]).any() and candidate is not champion:
            compared = compare(chosen, found[i])
            row |= {
                "difference": compared.difference.mean,
                "difference_low": compared.difference.low,
                "difference_high": compared.difference.high,
                "p": compared.p,
                "seeds_needed": compared.seeds_needed,
            }
        rows.append(row)
    columns = [
        *("rank", "name", "kind", "trial", "n_parameters", "seeds", "mean", "mean_per_atom", "std", "low", "high"),
        *("best", "best_seed", "best_run_id", "difference", "difference_low", "difference_high", "p"),
        "seeds_needed",
    ]
    whole = dict.fromkeys(("trial", "n_parameters", "best_seed", "seeds_needed"), "Int64")
    return pd.DataFrame(rows, columns=columns).astype(whole)


def decide(candidates: Sequence[Candidate], trained: Trained, unit: str) -> Verdict:
    """Choose a finalist: the one with the least mean, or the smaller of the first two if these do not differ.

    Of fewer than `LEAST_SEEDS` seeds no winner is declared: the one with the least mean stands for the study.

    Raises:
        BdqmError: no finalist was trained to the end with every seed.
    """
    contenders = [c for c in candidates if c.kind == FINALIST and not np.isnan(values_of(trained[c.name])).any()]
    if not contenders:
        reasons = {one.reason for runs in trained.values() for one in runs if one.reason}
        raise BdqmError(f"no finalist was trained to the end with every seed: {'; '.join(sorted(reasons))}")
    places = order([values_of(trained[c.name]) for c in contenders])
    winner = contenders[places[0]]
    champion, why = winner, f"{winner.name} is the only finalist"
    if len(places) > 1:
        champion, why = _of_two(winner, contenders[places[1]], trained, unit)
    lines = [_against(champion, other, trained, unit) for other in candidates if other.kind != FINALIST]
    return Verdict(champion, best_of(trained[champion.name]), why, lines)


def best_of(trained: Sequence[Retraining]) -> Retraining:
    """The training with the least objective; of equal ones, the first."""
    return min((one for one in trained if one.state == "complete"), key=lambda one: one.value)


def per_atom_of(trained: Sequence[Retraining]) -> float:
    """The mean error of energies per atom, eV/atom, of the complete trainings; NaN where one of them has none."""
    found = [one.value_per_atom for one in trained if one.state == "complete"]
    return float(np.mean(found)) if found else float("nan")


def n_parameters(trained: Sequence[Retraining]) -> int | None:
    """Of the network, which is the same with every seed; None where no training began."""
    return next((one.n_parameters for one in trained if one.n_parameters is not None), None)


def _of_two(winner: Candidate, second: Candidate, trained: Trained, unit: str) -> tuple[Candidate, str]:
    compared = compare(values_of(trained[winner.name]), values_of(trained[second.name]))
    if compared.n_seeds < LEAST_SEEDS:
        few = f"no winner is declared from {compared.n_seeds} seeds, at least {LEAST_SEEDS} are needed"
        less = f"{winner.name} stands for the study, as its mean is the least"
        return winner, f"{few}; {less}, before {second.name} ({_difference(compared, unit)}); {_needed(compared)}"
    found = f"{_difference(compared, unit)} by a {TEST}"
    if compared.distinguishable:
        return winner, f"{winner.name} is better than the runner-up {second.name}: {found}"
    sizes = {c.name: n_parameters(trained[c.name]) or 0 for c in (winner, second)}
    smaller = second if sizes[second.name] < sizes[winner.name] else winner
    larger = second if smaller is winner else winner
    chosen = f"{smaller.name} is smaller, with {sizes[smaller.name]} parameters against {sizes[larger.name]}"
    if sizes[smaller.name] == sizes[larger.name]:
        chosen = f"both have {sizes[smaller.name]} parameters, and {smaller.name} the lesser mean"
    what = f"{winner.name} cannot be told from the runner-up {second.name} ({found}; {_needed(compared)})"
    return smaller, f"{what}; {chosen}"


def _against(champion: Candidate, other: Candidate, trained: Trained, unit: str) -> str:
    first, second = values_of(trained[champion.name]), values_of(trained[other.name])
    if np.isnan(second).any():
        n_seeds = int((~np.isnan(second)).sum())
        return f"{other.name}: trained to the end with {n_seeds} of {len(second)} seeds only; not compared"
    compared = compare(first, second)
    if compared.n_seeds < LEAST_SEEDS:
        few = f"not compared with {champion.name} from {compared.n_seeds} seeds"
        return f"{other.name}: {few}, {_difference(compared, unit)}; {_needed(compared)}"
    if not compared.distinguishable:
        return f"{other.name} cannot be told from {champion.name}: {_difference(compared, unit)}; {_needed(compared)}"
    word = "is worse than" if compared.difference.mean > 0 else "is BETTER than"
    return f"{other.name} {word} {champion.name}: {_difference(compared, unit)}"


def _difference(compared: Comparison, unit: str) -> str:
    d = compared.difference
    p = "" if compared.p != compared.p else f", p = {compared.p:.2g}"
    factor, quoted = shown(1.0, unit)
    return f"{factor * d.mean:+.4g} {quoted} ({factor * d.low:+.4g} to {factor * d.high:+.4g}){p}"


def _needed(compared: Comparison) -> str:
    """How many seeds a difference as large as the one seen needs."""
    if compared.difference.mean == 0:
        return "there is no difference"
    n = compared.seeds_needed
    count = f"over {MOST_SEEDS}" if n is None else f"about {n}"
    return f"such a difference needs {count} seeds ({100 * POWER:.0f} % power)"
