"""Several studies compared: repeats of one another, how good their best became, and significant differences."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bdqm_tune.analysis.statistics import SIGNIFICANT, RankTest, bootstrap_mean, holm, rank_test
from bdqm_tune.errors import BadInput
from bdqm_tune.units import OBJECTIVE_UNITS, shown

if TYPE_CHECKING:
    from bdqm_tune.study.results import StudyResults

# Options in which repeats may differ. Which data it is the digest says, not the file's name.
FREE = ("study.name", "study.seed", "study.n_trials", "data.train", "data.test", "data.validation_file")
STEPS = 100  # of the cost at which studies are compared
ORDINARY = (
    "study.",
    "training.",
    "data.",
    "target.",
)  # before the names of options that need no group to be understood
OF_A_BACKEND = ("search.", "descriptor.", "backend_options.")  # before those that another backend does not have


@dataclass(frozen=True)
class Comparison:
    """Studies side by side."""

    objective: str
    studies: pd.DataFrame  # study, group, seed (NaN: not known), trials, epochs, hours, structures, best (at `budget`)
    budget: int  # trials that each of them has tried
    by_trials: pd.DataFrame  # group, study, n_trials, best
    by_epochs: pd.DataFrame  # group, study, epochs, best
    notes: list[str]  # what a reader must know

    @property
    def groups(self) -> pd.DataFrame:
        """group, repeats, best (mean), low, high (95 %), epochs and hours (mean), the best first."""
        rows = []
        for group, part in self.studies.groupby("group", sort=False):
            values = part["best"].to_numpy(float)
            low, high = bootstrap_mean(values)
            cost = part["epochs"].mean(), part["hours"].mean()
            rows.append((group, len(part), values.mean(), float(low), float(high), *cost))
        columns = ["group", "repeats", "best", "low", "high", "epochs", "hours"]
        return pd.DataFrame(rows, columns=columns).sort_values("best", ignore_index=True)


def compare_studies(results: Sequence[StudyResults]) -> Comparison:
    """Put studies side by side, at the number of trials that all of them have tried.

    Studies that differ in nothing but their seed are repeats, and one group.

    Raises:
        BadInput: they are judged by different quantities, or one has no complete trial.
    """
    objectives = {one.name: one.objective for one in results}
    if len(set(objectives.values())) > 1:
        raise BadInput(f"studies with different objectives cannot be compared: {objectives}")
    objective = results[0].objective
    settings = [_settings(one) for one in results]
    labels = group_labels([one.name for one in results], settings)
    tried = [one.trials[one.trials["state"].isin(("complete", "pruned", "failed"))] for one in results]
    budget = min(map(len, tried))
    bests = [_best_by_position(trials, objective) for trials in tried]
    for one, best in zip(results, bests, strict=True):
        if not np.isfinite(best[:budget]).any():
            raise BadInput(f"study {one.name!r} has no complete trial among the first {budget}; nothing to compare")
    rows, by_trials, by_epochs = [], [], []
    spent = [trials.sort_values("number")["epochs"].fillna(0).cumsum().to_numpy() for trials in tried]
    steps = np.linspace(0, min(float(done[-1]) for done in spent), STEPS + 1)[1:]
    for one, label, trials, best, done, setting in zip(results, labels, tried, bests, spent, settings, strict=True):
        hours = float(trials["trial_seconds"].sum()) / 3600
        seed, structures = setting.get("study.seed", ""), one.splits.get("training", {}).get("structures")
        rows.append((one.name, label, _seed(seed), len(trials), done[-1], hours, structures, best[budget - 1]))
        common = {"group": label, "study": one.name}
        by_trials.append(pd.DataFrame({**common, "n_trials": range(1, budget + 1), "best": best[:budget]}))
        at = np.searchsorted(done, steps, side="right") - 1  # the last trial that had ended by then
        reached = np.where(at >= 0, best[np.maximum(at, 0)], np.nan)
        by_epochs.append(pd.DataFrame({**common, "epochs": steps, "best": reached}))
    columns = ["study", "group", "seed", "trials", "epochs", "hours", "structures", "best"]
    studies = pd.DataFrame(rows, columns=columns).astype({"structures": float})
    curves = pd.concat(by_trials, ignore_index=True), pd.concat(by_epochs, ignore_index=True)
    return Comparison(objective, studies, budget, *curves, _notes(results, settings, len(set(labels))))


def group_labels(names: Sequence[str], settings: Sequence[dict[str, str]]) -> list[str]:
    """The group of each study: the options in which studies differ, but for those in which repeats may.

    A study of which the options are not known is a group of its own.
    """
    known = [options for options in settings if "study.sampler" in options]
    keys = sorted(
        {key for options in known for key in options} - set(FREE), key=lambda k: (not k.startswith("study."), k)
    )
    differing = [key for key in keys if len({options.get(key) for options in known}) > 1]
    labels: dict[tuple[str | None, ...], str] = {}  # of the groups, by all in which they differ
    for name, options in zip(names, settings, strict=True):
        values = _identity(name, options, differing)
        if values in labels:
            continue
        parts = [f"{_short_name(key)} {_short_value(options.get(key))}" for key in _telling(differing, options, known)]
        label = name if options not in known else ", ".join(parts) or "all"
        labels[values] = label if label not in labels.values() else f"{label} ({name})"
    return [labels[_identity(name, options, differing)] for name, options in zip(names, settings, strict=True)]


def _telling(differing: Sequence[str], options: dict[str, str], settings: Sequence[dict[str, str]]) -> Sequence[str]:
    """The options that tell a study from the others: of those that its backend has for itself, from its like alone."""
    backend = options.get("backend")
    alike = [other for other in settings if other.get("backend") == backend]
    if len(alike) == len(settings):
        return differing
    return [
        key for key in differing if not key.startswith(OF_A_BACKEND) or len({other.get(key) for other in alike}) > 1
    ]


def _identity(name: str, options: dict[str, str], differing: Sequence[str]) -> tuple[str | None, ...]:
    return tuple(options.get(key) for key in differing) if "study.sampler" in options else ("", name)


def _short_name(key: str) -> str:
    return next((key.removeprefix(group) for group in ORDINARY if key.startswith(group)), key)


def _short_value(value: str | None) -> str:
    text = "not set" if value is None else value
    return text if len(text) <= 30 else f"{text[:20]}…{text[-8:]}"


def _settings(results: StudyResults) -> dict[str, str]:
    """The options of a study's workers as text; where they had different ones, all of them."""
    runs = results.runs
    found = {str(key): " + ".join(sorted(set(runs[key].dropna().astype(str)))) for key in runs}
    signature = results.study.user_attrs.get("question", {})
    return found | {"data": str(signature.get("data", ""))[:12], "backend": str(signature.get("backend", ""))}


def _seed(text: str) -> float:
    return float(text) if text.isdecimal() else float("nan")


def _best_by_position(tried: pd.DataFrame, objective: str) -> NDArray[np.floating[Any]]:
    """The lowest objective of the complete trials among the first 1, 2, … (n_tried,); NaN before there is one."""
    ordered = tried.sort_values("number")
    return ordered[objective].astype(float).where(ordered["state"] == "complete").cummin().ffill().to_numpy()


def _notes(results: Sequence[StudyResults], settings: Sequence[dict[str, str]], n_groups: int) -> list[str]:
    notes = []
    if len({options["data"] for options in settings}) > 1:
        notes.append("not the same data: the errors are of different validation structures, and rank no settings")
    unfinished = [one.name for one in results if one.trials["state"].isin(("waiting", "running")).any()]
    if unfinished:
        notes.append(f"still running: {', '.join(unfinished)}")
    if len({options["backend"] for options in settings}) > 1:
        notes.append("epochs of different backends take different times: the hours and the training time compare them")
    if n_groups == 1:
        notes.append("the studies differ in nothing but their seed: repeats of one group")
    return notes


def statements(comparison: Comparison) -> list[str]:
    """How every pair of groups differs, one line each, with the test of significance."""
    factor, unit = shown(1.0, OBJECTIVE_UNITS[comparison.objective])
    parts = {
        group: part.set_index("seed" if part["seed"].notna().all() else "study")["best"]
        for group, part in comparison.studies.groupby("group", sort=False)
    }
    pairs = list(itertools.combinations(comparison.groups["group"], 2))
    tests = [rank_test(parts[one], parts[other], SIGNIFICANT / len(pairs)) for one, other in pairs]
    corrected = holm([test.p for test in tests])
    lines = []
    for (one, other), test, p in zip(pairs, tests, corrected, strict=True):
        difference = factor * (parts[other].mean() - parts[one].mean())
        lines.append(
            f"{one} against {other}: {difference:.3g} {unit} lower on average; {_verdict(test, p, len(tests))}"
        )
    return lines


def _verdict(test: RankTest, p: float, tests: int) -> str:
    count = f"{test.repeats[0]} and {test.repeats[1]} repeats"
    if not test.name:
        least = min(1.0, test.least_p * tests)
        return f"too few repeats to say whether that is chance ({count}; p could not come below {least:.2g})"
    among = f", corrected for {tests} comparisons (Holm)" if tests > 1 else ""
    significance = "more than chance" if p < SIGNIFICANT else "may be chance"
    return f"{significance}: p = {p:.2g} ({test.name}, {count}{among})"
