"""The section of a report about the test split: what was found on it, and every opening of the lock box."""

from collections.abc import Mapping, Sequence
from shlex import quote

import pandas as pd

from bdqm_tune.analysis.metrics_table import as_quoted
from bdqm_tune.analysis.reporting.captions import pictures
from bdqm_tune.analysis.reporting.document import Block, Notice, Piece, Section, Table, Text, pieces, table
from bdqm_tune.analysis.reporting.facts import StudyFacts
from bdqm_tune.evaluation.lockbox import headline
from bdqm_tune.learning.baselines import REFERENCE
from bdqm_tune.study.study import TEST
from bdqm_tune.units import metric_unit, shown

INTERVAL = {"low": "95 % from", "high": "to"}
GAINS = ("test_energy_mae_per_atom_gain", "test_energy_mae_gain")  # the latter of an earlier version
Frames = Mapping[str, pd.DataFrame]


def tested(facts: StudyFacts) -> list[Piece]:
    evaluation = facts.evaluation
    if evaluation is None:
        return pieces("not yet; see Test" if not any(one.is_done for one in facts.openings) else "see Test")
    found = evaluation.metrics
    parts: list[str | float] = [f"{evaluation.opening.model}: "]
    for place, name in enumerate(headline(found, facts.results.objective)):
        what = "force MAE " if name == "test_forces_mae" else "in total " if place else "energy MAE "
        if place and name.endswith("_per_atom"):
            what = "energy MAE "
        parts += ["; " if place else "", what, *with_interval(found, name)]
    name = f"{REFERENCE}_energy_mae_per_atom"
    return pieces(*parts, *(("; reference energies alone ", *with_interval(found, name)) if name in found else ()))


def with_interval(found: Mapping[str, float], name: str) -> list[str | float]:
    """A metric with its unit and, where there is one, its interval."""
    value, unit = shown(found[name], metric_unit(name))
    parts: list[str | float] = [value, f" {unit}"]
    if f"{name}_low" in found:
        low, high = (shown(found[f"{name}_{end}"], metric_unit(name))[0] for end in ("low", "high"))
        parts += [" (95 %: ", low, " to ", high, ")"]
    return parts


def test(facts: StudyFacts, found: Frames, drawn: Sequence[str]) -> Section:
    """The error on the test split, and every opening of the lock box; or that there is none."""
    blocks: list[Block] = [*_untested(facts)]
    if facts.openings:
        headings = {"number": "opening", "time": "time", "model": "model"}
        factors: dict[str, float] = {}
        for name in headline({str(column): 0.0 for column in found["openings"]}, facts.results.objective):
            factor, unit = shown(1.0, metric_unit(name))
            what = "force MAE" if name == "test_forces_mae" else "energy MAE"
            headings |= {name: f"{what} ({unit})", f"{name}_low": "95 % from", f"{name}_high": "to"}
            factors |= {f"{name}{end}": factor for end in ("", "_low", "_high") if factor != 1}
        headings |= {"reason": "why again"}
        title = "Openings of the test split"
        blocks.append(table(found["openings"], "openings.csv", title, headings, factors=factors))
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
            *pictures("test", drawn),
            table(
                as_quoted(found["metrics"]),
                "metrics.csv",
                "Metrics, beside those of baselines without a network",
                headings,
            ),
            *_gain(evaluation.metrics),
            Text(_overlap(evaluation.metrics)),
        ]
        for name, title in (("by_element", "Errors by element"), ("by_class", "Errors by composition")):
            if name in found:
                blocks.append(_breakdown(found[name], name, title, facts.results.objective))
    return Section("test", "Test", blocks)


def _breakdown(frame: pd.DataFrame, name: str, title: str, objective: str) -> Table:
    """Errors by element or composition: those of the objective first, of energies those per atom first."""
    columns = [str(column) for column in frame]
    first = [column for column in columns if not column.startswith(("energy_", "forces_", "stress_"))]
    of_forces = [column for column in columns if column.startswith(("forces_", "stress_"))]
    per_atom = [column for column in columns if column.startswith("energy_") and "_per_atom" in column]
    total = [column for column in columns if column.startswith("energy_") and "_per_atom" not in column]
    errors = [*of_forces, *per_atom, *total] if objective == "val_forces_mae" else [*per_atom, *total, *of_forces]
    units = {column: metric_unit(f"test_{column}") for column in errors}
    headings = {column: column.replace("_", " ") for column in first}
    headings |= {
        column: column.replace("_", " ") + (f" ({shown(1.0, unit)[1]})" if unit else "")
        for column, unit in units.items()
    }
    factors = {column: shown(1.0, unit)[0] for column, unit in units.items() if shown(1.0, unit)[0] != 1}
    return table(frame, f"{name}.csv", title, headings, folded=True, factors=factors)


def _untested(facts: StudyFacts) -> list[Notice]:
    command, chosen = f"bdqm-tune evaluate --study {quote(facts.name)}", facts.chosen
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
    name = next((name for name in GAINS if f"{name}_low" in metrics), None)
    if name is None:
        return []
    (gain, unit), low, high = shown(metrics[name], metric_unit(name)), metrics[f"{name}_low"], metrics[f"{name}_high"]
    verdict = "better than" if low > 0 else "worse than" if high < 0 else "not shown to be better or worse than"
    ends = (shown(end, metric_unit(name))[0] for end in (low, high))
    parts = ("The error of energies is ", gain, f" {unit} less than that of reference energies alone (95 %: ")
    return [Text(pieces(*parts, next(ends), " to ", next(ends), f"): the model is {verdict} these."))]


def _overlap(metrics: Mapping[str, float]) -> list[Piece]:
    if "overlap_same" not in metrics:
        return pieces("Test structures were not compared with those of the training file.")
    same, near, least = (metrics[f"overlap_{key}"] for key in ("same", "near", "least"))
    return pieces(
        "Overlap: of the test structures, ", same, " are also in the training file and ", near, " nearly so; the least "
        "distance is ", least, ", and near begins below ", metrics["overlap_threshold"],
        ". docs/evaluation.md says how it is measured.",
    )  # fmt: skip
