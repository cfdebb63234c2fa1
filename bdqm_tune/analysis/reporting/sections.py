"""The sections of a report that say what was found; what is missing is named, with the command that does it."""

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

import pandas as pd

from bdqm_tune.analysis.figures.style import best_trial
from bdqm_tune.analysis.reporting.captions import pictures
from bdqm_tune.analysis.reporting.document import (
    Block,
    Fact,
    Facts,
    Notice,
    Piece,
    Section,
    Text,
    pieces,
    table,
)
from bdqm_tune.analysis.reporting.evaluation import INTERVAL, tested
from bdqm_tune.analysis.reporting.facts import StudyFacts
from bdqm_tune.analysis.tables import BOTH, FORCES, PER_ATOM, STATES, STRESS, best_first, error_unit, errors_first
from bdqm_tune.confirmation import seeds
from bdqm_tune.errors import argument
from bdqm_tune.study.optimism import METHOD, optimism_of
from bdqm_tune.units import MEV, OBJECTIVE_UNITS, duration_text, error_name, error_title, shown

TOP = 20  # trials that the report shows; the file has all
Frames = Mapping[str, pd.DataFrame]


def best_row(facts: StudyFacts) -> "pd.Series[Any] | None":
    """The row of the trial that counts as the best one; None if no trial is complete."""
    trials = facts.results.trials
    number = best_trial(trials, facts.results.objective)
    return None if number is None else trials[trials["number"] == number].iloc[0]


def summary(facts: StudyFacts) -> Section:
    """What a reader wants to know first."""
    results = facts.results
    unit = shown(1.0, OBJECTIVE_UNITS[results.objective])[1]
    ways = [f"{key} {', '.join(_values_of(results.runs, f'study.{key}'))}" for key in ("sampler", "pruner")]
    seconds = float(facts.finished["trial_seconds"].astype(float).sum())
    rows = [
        Fact("study", pieces(facts.name)),
        Fact("judged by", pieces(_judged_by(facts, unit))),
        Fact("searched", pieces(", ".join(results.hyperparameters) or "nothing: every hyperparameter is fixed")),
        *_fixed(facts),
        Fact("how", pieces(", ".join(ways) if len(results.runs) else "not known: there is no run of a worker")),
        Fact("trials", _trials_by_state(results.trials)),
        Fact("best trial", _best(facts)),
        *_optimism(facts),
        Fact("confirmed", _confirmed(facts)),
        Fact("on the test split", tested(facts)),
        Fact("test split opened", pieces(*_times(len(facts.openings)))),
        Fact("training took", pieces(f"{duration_text(seconds)}, all trials together")),
    ]
    left = int(results.trials["state"].isin(("waiting", "running")).sum())
    text = f"Not finished: this is how far the study is. Trials that wait or run: {left}."
    notices = [Notice(text, f"bdqm-tune status {argument(facts.name)}")]
    return Section("summary", "Summary", [Facts(rows), *(notices if left else []), *map(Notice, facts.missing)])


def _fixed(facts: StudyFacts) -> list[Fact]:
    """The hyperparameters that were not searched, with their values; several, where workers fixed different ones."""
    trials = facts.results.trials
    values = {name: trials[name].dropna().astype(str).unique() for name in facts.results.fixed}
    text = ", ".join(f"{name} {' or '.join(found)}" for name, found in values.items() if len(found))
    return [Fact("fixed", pieces(text))] if text else []


def _judged_by(facts: StudyFacts, unit: str) -> str:
    others = [name for name in facts.results.objectives if name != facts.results.objective]
    beside = "".join(f"; beside it {name}" for name in others)
    return f"{facts.results.objective} ({unit}): the best epoch of a trial, {_validated(facts)}{beside}"


def _validated(facts: StudyFacts) -> str:
    folds = facts.results.splits.get("validation", {}).get("folds")
    return "on the validation split" if folds is None else f"by {folds}-fold cross-validation"


def _values_of(runs: pd.DataFrame, option: str) -> list[str]:
    return [str(value) for value in runs[option].dropna().unique()] if option in runs else []


def _name(facts: StudyFacts) -> str:
    return quote(facts.name)


def _times(count: int) -> list[str | float]:
    return ["never"] if not count else ["once"] if count == 1 else [count, " times"]


def _trials_by_state(trials: pd.DataFrame) -> list[Piece]:
    counts = trials["state"].value_counts()
    parts: list[str | float] = [len(trials)]
    for state in STATES:
        if state in counts:
            parts += [": " if len(parts) == 1 else ", ", int(counts[state]), f" {state}"]
    return pieces(*parts)


def _best(facts: StudyFacts) -> list[Piece]:
    row = best_row(facts)
    if row is None:
        return pieces("no trial is complete yet")
    epoch, parts = float(row["best_epoch"]), list[str | float]()
    for name in errors_first(facts.results.objective):
        if row[name] == row[name]:
            value, quoted = shown(float(row[name]), error_unit(name))
            parts += [", " if parts else "", value, f" {quoted}"]
    return pieces("trial ", int(row["number"]), ": ", *parts, " at epoch ", epoch)


def _optimism(facts: StudyFacts) -> list[Fact]:
    """What to expect of the best trial on new structures; nothing where that is not known."""
    found = optimism_of(facts.study.get_trials(deepcopy=False), facts.results.objectives)
    if found is None:
        return []
    factor, unit = shown(1.0, error_unit(found.objective))
    too_low = factor * (found.expected - found.least)
    why = f"{unit}: the least of {found.trials} validation errors is too low by about "
    text = pieces(factor * found.expected, f" {why}", too_low, f" ({METHOD})")
    return [Fact("expected on new structures", text)]


def _confirmed(facts: StudyFacts) -> list[Piece]:
    champion, (factor, unit) = facts.champion, shown(1.0, error_unit(facts.results.objective))
    if champion is None:
        return pieces("not yet; see Finalists")
    parts: list[str | float] = ["trial ", champion.trial, ": "]
    interval: list[str | float] = []
    if facts.confirmation is not None:
        frame = facts.confirmation.finalists.reindex(columns=["trial", "mean_per_atom", "low", "high"])
        for _, per_atom, low, high in frame[frame["trial"] == champion.trial].head(1).itertuples(index=False):
            parts += [MEV * per_atom, " meV/atom, "] if per_atom == per_atom else []
            interval = [" (95 %: ", factor * low, " to ", factor * high, ")"] if low == low else []
    parts += [factor * champion.mean, f" {unit}", *interval, " on average over ", len(champion.run_ids), " seeds"]
    few = "; of so few no winner is declared" if len(champion.run_ids) < seeds.LEAST_SEEDS else ""
    return pieces(*parts, f", {_validated(facts)}{few}")


def search(facts: StudyFacts, found: Frames, drawn: Sequence[str]) -> Section:
    """How the search went, and its best trials."""
    results = facts.results
    blocks: list[Block] = pictures("search", drawn)
    if results.trials.empty:
        return Section("search", "Search", [Notice("The study has no trials yet.")])
    errors = [name for name in errors_first(results.objective) if results.trials[name].notna().any()]
    errors = errors or [results.objective]
    headings = {
        "number": "trial",
        "state": "state",
        **{name: _error_heading(name, results.objective) for name in errors},
        "best_epoch": "best epoch",
        "epochs": "epochs",
        "n_parameters": "parameters",
        "trial_seconds": "seconds",
        **{name: name for name in results.hyperparameters},
    }
    ordered = best_first(found["trials"], results.objective)
    factors = {name: MEV for name in errors if shown(0.0, error_unit(name))[1] == "meV/atom"}
    found_table = table(ordered, "trials.csv", "Trials, the best first", headings, TOP, factors=factors)
    return Section("search", "Search", [*blocks, found_table])


def _error_heading(name: str, objective: str) -> str:
    what = {PER_ATOM: "energy ", FORCES: "force ", BOTH: "energy and force ", STRESS: "stress "}.get(name, "")
    return f"{'' if objective == 'val_energy_mae' else what}{error_name(name)} ({shown(0.0, error_unit(name))[1]})"


def hyperparameters(drawn: Sequence[str]) -> Section | None:
    """What the hyperparameters do; None where nothing was drawn."""
    blocks = pictures("hyperparameters", drawn)
    return Section("hyperparameters", "Hyperparameters", blocks) if blocks else None


def finalists(facts: StudyFacts, found: Frames) -> Section:
    """The best configurations with other seeds, or that this has not been done."""
    command = f"bdqm-tune confirm --study {_name(facts)}"
    blocks: list[Block] = []
    if facts.chosen is None and best_row(facts) is not None:
        text = "The study has several objectives, and no trial of its Pareto front was picked."
        blocks.append(Notice(text, f"bdqm-tune front {argument(facts.name)}"))
    elif facts.chosen is None:
        blocks.append(Notice("No trial is complete yet, so there is nothing to confirm."))
    elif facts.champion is None:
        text = "Not confirmed yet: the best trials were not retrained with other seeds, so how much of the best "
        blocks.append(Notice(f"{text}one's error is the luck of its seed is not known.", command))
    elif (since := len(facts.finished) - facts.champion.trials) > 0:
        text = f"Trials that ended after the confirmation, and take no part in it: {since}."
        blocks.append(Notice(text, command))
    if facts.champion is not None and facts.confirmation is None:
        blocks.append(Notice("The files of the confirmation are gone; to confirm again trains nothing twice.", command))
    elif facts.champion is not None and facts.confirmation is not None:
        record = facts.confirmation.record
        factor, unit = shown(1.0, record["unit"])
        per_atom = found["finalists"].get("mean_per_atom")
        quoted = {"mean_per_atom": "mean MAE (meV/atom)"} if per_atom is not None and per_atom.notna().any() else {}
        headings = {
            "rank": "rank",
            "name": "configuration",
            **quoted,
            "mean": f"mean {error_title(record['objective'])} ({unit})",
            **INTERVAL,
            "best": "best seed's",
            **({} if (found["finalists"]["seeds"] == len(record["seeds"])).all() else {"seeds": "seeds"}),
            "n_parameters": "parameters",
            "difference": "less the champion's",
            "difference_low": "95 % from",
            "difference_high": "to",
            "p": "p",
            **({"seeds_needed": "seeds needed"} if "seeds_needed" in found["finalists"] else {}),
        }
        share = f"{100 * seeds.POWER:.0f} % of all cases"
        needed = f"With the seeds needed, a difference as large as the one seen is found in {share}."
        values = ("mean", *INTERVAL, "best", "difference", "difference_low", "difference_high")
        factors = dict.fromkeys(quoted, MEV) | (dict.fromkeys(values, factor) if factor != 1 else {})
        title = f"Finalists and baselines over {len(record['seeds'])} seeds"
        blocks += [
            Facts([Fact("champion", pieces(facts.champion.why)), *_baselines(record)]),
            table(found["finalists"], "finalists.csv", title, headings, factors=factors),
            Text(pieces(f"Intervals: {seeds.INTERVAL}; p by a {seeds.TEST}, not corrected for their number. {needed}")),
        ]
    return Section("finalists", "Finalists", blocks)


def _baselines(record: Mapping[str, Any]) -> list[Fact]:
    lines = [("baseline", line) for line in record["yardsticks"]]
    return [Fact(name, pieces(line)) for name, line in (*lines, ("random search", record["random"]))]
