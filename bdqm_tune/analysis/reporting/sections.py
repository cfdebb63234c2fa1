"""The sections of a report that say what was found; what is missing is named, with the command that does it."""

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

import pandas as pd

from bdqm_tune.analysis.figures.style import best_trial
from bdqm_tune.analysis.reporting.captions import CAPTIONS
from bdqm_tune.analysis.reporting.document import (
    Block,
    Fact,
    Facts,
    Notice,
    Picture,
    Piece,
    Section,
    Text,
    pieces,
    table,
)
from bdqm_tune.analysis.reporting.facts import StudyFacts
from bdqm_tune.analysis.reporting.frames import MAE
from bdqm_tune.analysis.tables import STATES, best_first
from bdqm_tune.confirmation import ranking
from bdqm_tune.study.study import TEST
from bdqm_tune.units import OBJECTIVE_UNITS, duration_text

TOP = 20  # trials that the report shows; the file has all
INTERVAL = {"low": "95 % from", "high": "to"}
Frames = Mapping[str, pd.DataFrame]


def best_row(facts: StudyFacts) -> "pd.Series[Any] | None":
    """The row of the trial that counts as the best one; None if no trial is complete."""
    trials = facts.results.trials
    number = best_trial(trials, facts.results.objective)
    return None if number is None else trials[trials["number"] == number].iloc[0]


def summary(facts: StudyFacts) -> Section:
    """What a reader wants to know first."""
    results = facts.results
    unit = OBJECTIVE_UNITS[results.objective]
    ways = [f"{key} {', '.join(_values_of(results.runs, f'study.{key}'))}" for key in ("sampler", "pruner")]
    seconds = float(facts.finished["trial_seconds"].astype(float).sum())
    rows = [
        Fact("study", pieces(facts.name)),
        Fact("judged by", pieces(_judged_by(facts, unit))),
        Fact("searched", pieces(", ".join(results.hyperparameters) or "nothing: every hyperparameter is fixed")),
        Fact("how", pieces(", ".join(ways) if len(results.runs) else "not known: there is no run of a worker")),
        Fact("trials", _trials_by_state(results.trials)),
        Fact("best trial", _best(facts, unit)),
        Fact("confirmed", _confirmed(facts, unit)),
        Fact("on the test split", _tested(facts)),
        Fact("test split opened", pieces(*_times(len(facts.openings)))),
        Fact("training took", pieces(f"{duration_text(seconds)}, all trials together")),
    ]
    left = int(results.trials["state"].isin(("waiting", "running")).sum())
    text = f"Not finished: this is how far the study is. Trials that wait or run: {left}."
    notices = [Notice(text, f"bdqm-tune status {_name(facts)}")]
    return Section("summary", "Summary", [Facts(rows), *(notices if left else []), *map(Notice, facts.missing)])


def _judged_by(facts: StudyFacts, unit: str) -> str:
    others = [name for name in facts.results.objectives if name != facts.results.objective]
    beside = "".join(f"; beside it {name}" for name in others)
    return f"{facts.results.objective} ({unit}): the best epoch of a trial, on the validation split{beside}"


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


def _best(facts: StudyFacts, unit: str) -> list[Piece]:
    row = best_row(facts)
    if row is None:
        return pieces("no trial is complete yet")
    value, epoch = float(row[facts.results.objective]), float(row["best_epoch"])
    return pieces("trial ", int(row["number"]), ": ", value, f" {unit} at epoch ", epoch)


def _confirmed(facts: StudyFacts, unit: str) -> list[Piece]:
    champion = facts.champion
    if champion is None:
        return pieces("not yet; see Finalists")
    parts: list[str | float] = ["trial ", champion.trial, ": ", champion.mean, f" {unit} on average over "]
    parts += [len(champion.run_ids), " seeds"]
    if facts.confirmation is not None:
        frame = facts.confirmation.finalists
        row = frame[(frame["trial"] == champion.trial) & frame["low"].notna()].head(1)
        for low, high in zip(row["low"], row["high"], strict=True):
            parts += [" (95 %: ", low, " to ", high, ")"]
    return pieces(*parts, ", on the validation split")


def _tested(facts: StudyFacts) -> list[Piece]:
    evaluation = facts.evaluation
    if evaluation is None:
        return pieces("not yet; see Test" if not any(one.is_done for one in facts.openings) else "see Test")
    found = evaluation.metrics
    parts: list[str | float] = [f"{evaluation.opening.model}: energy MAE ", found[MAE], " eV"]
    if f"{MAE}_low" in found:
        parts += [" (95 %: ", found[f"{MAE}_low"], " to ", found[f"{MAE}_high"], ")"]
    baseline = found.get("baseline_reference_energy_mae")
    return pieces(*parts, *(() if baseline is None else ("; reference energies alone ", baseline, " eV")))


def pictures(names: Sequence[str], drawn: Sequence[str]) -> list[Block]:
    """Those of the figures that were drawn."""
    return [Picture(name, CAPTIONS[name]) for name in names if name in drawn]


def search(facts: StudyFacts, found: Frames, drawn: Sequence[str]) -> Section:
    """How the search went, and its best trials."""
    results = facts.results
    blocks: list[Block] = pictures(("history", "curves"), drawn)
    if results.trials.empty:
        return Section("search", "Search", [Notice("The study has no trials yet.")])
    headings = {
        "number": "trial",
        "state": "state",
        results.objective: f"MAE ({OBJECTIVE_UNITS[results.objective]})",
        "best_epoch": "best epoch",
        "epochs": "epochs",
        "n_parameters": "parameters",
        "trial_seconds": "seconds",
        **{name: name for name in results.hyperparameters},
    }
    ordered = best_first(found["trials"], results.objective)
    return Section("search", "Search", [*blocks, table(ordered, "trials.csv", "Trials, the best first", headings, TOP)])


def hyperparameters(drawn: Sequence[str]) -> Section | None:
    """What the hyperparameters do; None where nothing was drawn."""
    blocks = pictures(("importance", "contour", "slices", "parallel"), drawn)
    return Section("hyperparameters", "Hyperparameters", blocks) if blocks else None


def finalists(facts: StudyFacts, found: Frames) -> Section:
    """The best configurations with other seeds, or that this has not been done."""
    command = f"bdqm-tune confirm --study {_name(facts)}"
    blocks: list[Block] = []
    if facts.chosen is None and best_row(facts) is not None:
        text = "The study has several objectives, and no trial of its Pareto front was picked."
        blocks.append(Notice(text, f"bdqm-tune front {_name(facts)}"))
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
        record, unit = facts.confirmation.record, facts.confirmation.record["unit"]
        headings = {
            "rank": "rank",
            "name": "configuration",
            "mean": f"mean MAE ({unit})",
            **INTERVAL,
            "best": "best seed's",
            "seeds": "seeds",
            "n_parameters": "parameters",
            "difference": "difference to the champion",
            "difference_low": "95 % from",
            "difference_high": "to",
            "p": "p",
        }
        title = f"Finalists and baselines over {len(record['seeds'])} seeds"
        blocks += [
            Facts([Fact("champion", pieces(facts.champion.why)), *_baselines(record)]),
            table(found["finalists"], "finalists.csv", title, headings),
            Text(pieces(f"Intervals: {ranking.INTERVAL}; p by a {ranking.TEST}, not corrected for their number.")),
        ]
    return Section("finalists", "Finalists", blocks)


def _baselines(record: Mapping[str, Any]) -> list[Fact]:
    lines = [("baseline", line) for line in record["yardsticks"]]
    return [Fact(name, pieces(line)) for name, line in (*lines, ("random search", record["random"]))]


def test(facts: StudyFacts, found: Frames, drawn: Sequence[str]) -> Section:
    """The error on the test split, and every opening of the lock box; or that there is none."""
    blocks: list[Block] = [*_untested(facts)]
    if facts.openings:
        headings = {"number": "opening", "time": "time", "model": "model", MAE: "MAE (eV)"}
        headings |= {f"{MAE}_low": "95 % from", f"{MAE}_high": "to", "reason": "why again"}
        blocks.append(table(found["openings"], "openings.csv", "Openings of the test split", headings))
    if len(facts.openings) > 1:
        blocks.append(
            Notice(
                "The test split was opened for more than one model. A choice among them by these errors is a "
                "choice by the test split; the first opening is free of that."
            )
        )
    evaluation = facts.evaluation
    if evaluation is None and any(one.is_done for one in facts.openings):
        blocks.append(Notice("The files of the evaluation are gone: what is left of it is in the table above."))
    elif evaluation is not None:
        opening = evaluation.opening
        introduction = pieces(
            f"Below is the evaluation of {opening.model} (opening ", opening.number, ") on ", len(evaluation.errors),
            f" structures. Intervals are by bootstrap over the structures. Model: run {opening.model_run_id}; "
            f"evaluation: run {evaluation.run_id}.",
        )  # fmt: skip
        headings = {"metric": "metric", "value": "value", **INTERVAL, "unit": "unit"}
        headings |= {"mean energy": "by the mean energy", "references": "by reference energies"}
        blocks += [
            Text(introduction),
            *pictures(("parity", "parity_per_atom", "error_distribution", "element_errors"), drawn),
            *pictures(("calibration", "spread"), drawn),
            table(found["metrics"], "metrics.csv", "Metrics, beside those of baselines without a network", headings),
            *_gain(evaluation.metrics),
            Text(_overlap(evaluation.metrics)),
        ]
        for name, title in (("by_element", "Errors by element"), ("by_class", "Errors by composition")):
            if name in found:
                heading = {str(column): str(column).replace("_", " ") for column in found[name]}
                blocks.append(table(found[name], f"{name}.csv", title, heading, folded=True))
    return Section("test", "Test", blocks)


def _untested(facts: StudyFacts) -> list[Notice]:
    command, chosen = f"bdqm-tune evaluate --study {_name(facts)}", facts.chosen
    notices = [
        Notice(f"An evaluation of {one.model} opened the test split on {one.time}, and did not come to its end.")
        for one in facts.openings
        if not one.is_done
    ]
    if not facts.openings and TEST not in facts.study.user_attrs:
        text = "The study has no test split: what error to expect of other structures is not known. It gets one by the "
        return [Notice(f"{text}next tune under this name with --test FILE.")]
    if not facts.openings:
        again = command if chosen is not None else ""
        return [Notice("Not evaluated yet: no structure of the test split has been predicted, no label seen.", again)]
    if chosen is not None and all(one.model_run_id != chosen.run_id for one in facts.openings):
        text = f"The study's model now, of trial {chosen.trial} ({chosen.why}), has not been "
        notices.append(
            Notice(f"{text}evaluated; that would open the test split again.", f'{command} --reopen "REASON"')
        )
    return notices


def _gain(metrics: Mapping[str, float]) -> list[Text]:
    """What the network adds to reference energies, where there are intervals."""
    gain, low, high = (metrics.get(f"{MAE}_gain{end}") for end in ("", "_low", "_high"))
    if gain is None or low is None or high is None:
        return []
    shown = "better than" if low > 0 else "worse than" if high < 0 else "not shown to be better or worse than"
    parts = ("The error is ", gain, " eV less than that of reference energies alone (95 %: ", low, " to ", high)
    return [Text(pieces(*parts, f"): the model is {shown} these."))]


def _overlap(metrics: Mapping[str, float]) -> list[Piece]:
    if "overlap_same" not in metrics:
        return pieces("Test structures were not compared with those of the training file.")
    same, near, least = (metrics[f"overlap_{key}"] for key in ("same", "near", "least"))
    return pieces(
        "Overlap: of the test structures, ", same, " are also in the training file and ", near, " nearly so; the least "
        "distance is ", least, ", and near begins below ", metrics["overlap_threshold"],
        ". docs/evaluation.md says how it is measured.",
    )  # fmt: skip
