"""The tables of a report as data frames, each of which becomes a CSV file beside it."""

from typing import Any

import pandas as pd

from bdqm_tune.admin.runs import PLACE, VERSION
from bdqm_tune.analysis.metrics_table import metrics_table
from bdqm_tune.analysis.reporting.cost import costs
from bdqm_tune.analysis.reporting.facts import StudyFacts
from bdqm_tune.evaluation.lockbox import Opening, headline
from bdqm_tune.study.study import TEST


def frames(facts: StudyFacts) -> dict[str, pd.DataFrame]:
    """Every table by the name of its file, without suffix; those of what has not been done are not there."""
    results = facts.results
    found = {
        "trials": results.trials,
        "curves": results.curves,
        "data": _data(facts),
        "options": _options(results.runs),
        "environment": environments(facts.processes),
        "cost": pd.concat([costs("tune", facts.finished), costs("confirm", facts.retrainings)], ignore_index=True),
    }
    if facts.confirmation is not None:
        found |= {"finalists": facts.confirmation.finalists, "retrainings": facts.confirmation.retrainings}
    if facts.openings:
        names = headline({name: 0.0 for one in facts.openings for name in one.metrics}, results.objective)
        found["openings"] = pd.DataFrame([_opening(one, names) for one in facts.openings])
    if facts.evaluation is not None:
        found |= {
            "metrics": metrics_table(facts.evaluation.metrics, facts.results.objective),
            **facts.evaluation.tables,
        }
    return found


def _opening(opening: Opening, names: list[str]) -> dict[str, Any]:
    """Args: names: of the metrics to show, each with its interval."""
    errors = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    return {
        "number": opening.number,
        "time": opening.time,
        "model": opening.model,
        "reason": opening.reason,
        **{name: opening.metrics.get(name, float("nan")) for name in errors},
        "model_run_id": opening.model_run_id,
        "run_id": opening.run_id,
        "test_digest": opening.test_digest,
    }


def _data(facts: StudyFacts) -> pd.DataFrame:
    """One row a split: split, source, structures, atoms, elements, digest."""
    runs = facts.results.runs
    source = ", ".join(runs["data.train"].dropna().unique()) if "data.train" in runs else ""
    rows = [
        {
            "split": name,
            "source": source,
            "structures": split["structures"],
            "atoms": split["atoms"],
            "elements": " ".join(split["elements"]),
            "digest": split["digest"],
        }
        for name, split in facts.results.splits.items()
    ]
    if test := facts.study.user_attrs.get(TEST):
        errors = facts.evaluation.errors if facts.evaluation is not None else None
        counts = {} if errors is None else {"structures": len(errors), "atoms": int(errors["n_atoms"].sum())}
        rows.append({"split": "test", "source": test["source"], **counts, "digest": test["digest"]})
    frame = pd.DataFrame(rows, columns=["split", "source", "structures", "atoms", "elements", "digest"])
    return frame.astype({"structures": "Int64", "atoms": "Int64"})


def _options(runs: pd.DataFrame) -> pd.DataFrame:
    """The options of the study's workers: option, value; where they had different ones, a row each, and how many."""
    rows = []
    for option in runs:
        for value, count in runs[option].dropna().value_counts(sort=False).items():
            rows.append((option, value, int(count)))
    return pd.DataFrame(rows, columns=["option", "value", "workers"])


def environments(processes: pd.DataFrame) -> pd.DataFrame:
    """Each environment once: kinds of work, how many processes, host, processor, cores, commit, versions."""
    versions = [str(key) for key in processes if str(key).startswith(VERSION)]
    keys = [key for key in (*PLACE, *versions) if key != "scheduler_job_id"]
    if processes.empty:
        return pd.DataFrame(columns=["work", "processes", "jobs", *keys])
    groups = processes.groupby(keys, sort=False)
    found = groups.agg(
        work=("kind", lambda kinds: ", ".join(dict.fromkeys(kinds))),
        processes=("kind", "size"),
        jobs=("scheduler_job_id", lambda jobs: ", ".join(job for job in dict.fromkeys(jobs) if job)),
    ).reset_index()
    return found[["work", "processes", "jobs", *keys]]
