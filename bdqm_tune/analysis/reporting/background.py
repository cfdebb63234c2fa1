"""The sections of a report that say what a result rests on: cost, data, environment, and how to repeat it."""

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

import numpy as np
import pandas as pd

from bdqm_tune.admin.runs import VERSION
from bdqm_tune.analysis.figures.durations import hours_saved
from bdqm_tune.analysis.reporting.captions import pictures
from bdqm_tune.analysis.reporting.document import Block, Commands, Fact, Facts, Notice, Section, Text, pieces, table
from bdqm_tune.analysis.reporting.facts import StudyFacts
from bdqm_tune.errors import argument
from bdqm_tune.study.study import SIGNATURE

MOST = 4  # environments that are written out; the file has all
Frames = Mapping[str, pd.DataFrame]


def cost(facts: StudyFacts, found: Frames, drawn: Sequence[str]) -> Section:
    """Trials and hours, and what pruning saved."""
    finished, frame = facts.finished, found["cost"]
    if finished.empty:
        return Section("cost", "Cost", [Text(pieces("No trial has ended yet."))])
    pruned, saved = int((finished["state"] == "pruned").sum()), hours_saved(finished)
    share = 100 * pruned / len(finished)
    rows = [
        Fact("trials that ended", pieces(len(finished), ", of which ", pruned, " pruned (", share, " %)")),
        Fact("CPU hours", pieces(float(frame["cpu_hours"].sum()), ", of one core each")),
        Fact("GPU hours", pieces(float(frame["gpu_hours"].sum()))),
    ]
    if pruned and np.isfinite(saved.saved):
        text = " h of training, by an estimate: pruned trials would have gone on at their pace to the epoch at which "
        rows.append(Fact("saved by pruning", pieces(saved.saved, f"{text}the median complete trial ended")))
    headings = {
        "work": "command",
        "device": "device",
        "trials": "trainings",
        "training_hours": "hours of training",
        "cpu_hours": "CPU hours",
        "gpu_hours": "GPU hours",
    }
    note = "A training on a CPU has a core to itself. Trainings at the same time share a GPU, which counts once. "
    return Section(
        "cost",
        "Cost",
        [
            Facts(rows),
            table(frame, "cost.csv", "Hours by device", headings),
            Text(pieces(f"{note}Preparing data, evaluating and the random search of another study are not in it.")),
            *pictures("cost", drawn),
        ],
    )


def data(facts: StudyFacts, found: Frames) -> Section:
    """Which structures, by their digests."""
    digest = facts.study.user_attrs[SIGNATURE].get("data", "")
    headings = {key: key for key in ("split", "source", "structures", "atoms", "digest")}
    blocks: list[Block] = [table(found["data"], "data.csv", "Splits", headings)]
    if found["data"].empty:
        blocks = [Text(pieces("No trial has begun yet, and there is no test split."))]
    for row in found["data"].dropna(subset="elements").to_dict("records"):
        blocks.append(Text(pieces(f"Elements of the {row['split']} split: {row['elements']}.")))
    if folds := facts.results.splits.get("validation", {}).get("folds"):
        how = f"Cross-validation with {folds} folds: each structure is validated once, by a network that was trained "
        blocks.append(Text(pieces(f"{how}without its fold. The model of a trial is trained on all of them.")))
    text = f"Digest of training and validation structures together, in which all trials of the study agree: {digest}."
    return Section("data", "Data", [*blocks, Text(pieces(text))])


def environment(facts: StudyFacts, found: Frames) -> Section:
    """On what machines, with which versions, from which sources."""
    frame = found["environment"]
    if frame.empty:
        return Section("environment", "Environment", [Notice("Not known: there is no run of a worker.")])
    blocks: list[Block] = [
        Facts(_environment(row, facts.results.trials)) for row in frame.head(MOST).to_dict("records")
    ]
    if len(frame) > MOST:
        blocks.append(Text(pieces(len(frame) - MOST, " more environments are in environment.csv.")))
    return Section("environment", "Environment", blocks)


def _environment(row: Mapping[Any, Any], trials: pd.DataFrame) -> list[Fact]:
    versions = [
        f"{key.removeprefix(VERSION)} {value}" for key, value in row.items() if key.startswith(VERSION) and value
    ]
    of_host = trials[trials["host"] == row["host"]] if "host" in trials else trials.head(0)
    devices = ", ".join(of_host["device"].dropna().unique()) if "device" in of_host else ""
    dirty = {"true": ", with changes that were not committed", "false": ""}.get(row["git_dirty"], "")
    facts = {
        "work": f"{row['work']} ({row['processes']} {'process' if row['processes'] == 1 else 'processes'})",
        "host": row["host"],
        "processor": f"{row['cpu']}, {row['cores']} cores",
        "device of the trials": devices,
        "scheduler jobs": row["jobs"],
        "source": f"commit {row['git_commit']}{dirty}" if row["git_commit"] else "no git commit was found",
        "versions": ", ".join(versions),
    }
    return [Fact(name, pieces(text)) for name, text in facts.items() if text]


def repeat(facts: StudyFacts, found: Frames) -> Section:
    """The commands that make this again, and the options of the workers."""
    blocks: list[Block] = []
    if found["options"].empty:
        blocks.append(Notice("Not known: there is no run of a worker, which would have its options."))
    else:
        blocks += [Commands(_commands(facts)), Text(pieces(_luck(facts)))]
        headings = {"option": "option", "value": "value", "workers": "workers"}
        blocks.append(table(found["options"], "options.csv", "Options of the workers", headings, folded=True))
    return Section("repeat", "How to repeat it", blocks)


def _commands(facts: StudyFacts) -> list[str]:
    name, first = quote(facts.name), facts.results.runs.iloc[0]
    commits = facts.processes.loc[facts.processes["kind"] == "study", "git_commit"]
    lines = [f"git checkout {commit}" for commit in commits.iloc[:1] if commit]
    files = [f"--{key} {quote(str(first[f'data.{key}']))}" for key in ("train", "test") if _given(first, f"data.{key}")]
    trials = f"--n-trials {len(facts.results.trials)}"
    config = "--config config.yaml " if facts.config else ""
    lines.append(f"bdqm-tune tune {config}{' '.join(files)} --study {name} {trials}")
    if facts.confirmation is not None:
        frame = facts.confirmation.finalists
        best, seeds = int((frame["kind"] == "finalist").sum()), len(facts.confirmation.record["seeds"])
        lines.append(f"bdqm-tune confirm --study {name} --best {best} --seeds {seeds}")
    if facts.openings:
        lines.append(f"bdqm-tune evaluate --study {name}")
    lines.append(f"bdqm-tune report {argument(facts.name)}")
    if facts.chosen is not None:
        lines.append(
            f"bdqm-tune reproduce {facts.chosen.trained_in}    # trains that model again, and compares every epoch"
        )
    return lines


def _given(options: "pd.Series[Any]", key: str) -> bool:
    return key in options and str(options[key]) not in ("None", "", "nan")


def _luck(facts: StudyFacts) -> str:
    text = "In an empty folder, for a study of this name would be resumed. "
    if facts.config:
        text += "config.yaml lies beside this report: it is that of the first worker. "
    return text + (
        "Trials that train at the same time end in another order each time, so another search comes to somewhat other "
        "trials; with --cohort 1 and one worker the same seed gives the same study. `reproduce` needs the stores of "
        "this one."
    )
