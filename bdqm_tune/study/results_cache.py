"""What was read of a study's finished trials, kept as a Parquet file: they never change."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bdqm_tune.files import written_whole

COLUMNS = ("trial_id", "ended", "row", "epochs", "values")


def cache_file(home: Path, *identity: object) -> Path:
    """The file of a study: what tells it from all others, its name first."""
    name = re.sub(r"[^\w.-]+", "_", str(identity[0])).strip(".")[:80]
    digest = hashlib.sha256(json.dumps([str(part) for part in identity]).encode()).hexdigest()[:12]
    return home / "analysis" / f"{name}-{digest}.parquet"


def read_cache(file: Path, endings: Mapping[int, str]) -> tuple[dict[int, dict[str, Any]], pd.DataFrame]:
    """The rows by trial id and the curves of those trials that are still as they were.

    Args:
        endings: when each finished trial of the study ended, by its id.

    Returns:
        rows, and a frame of trial, epoch, value; both empty where there is no file or one that cannot be read.
    """
    empty = pd.DataFrame({"trial": np.zeros(0, int), "epoch": np.zeros(0, int), "value": np.zeros(0)})
    try:
        table = pd.read_parquet(file, columns=list(COLUMNS))
    except (OSError, ValueError, KeyError):  # of another version, or cut off: read anew
        return {}, empty
    table = table[[endings.get(key) == ended for key, ended in zip(table["trial_id"], table["ended"], strict=True)]]
    if table.empty:
        return {}, empty
    rows = [json.loads(row) for row in table["row"]]
    lengths = table["epochs"].map(len)
    curves = pd.DataFrame(
        {
            "trial": np.repeat([row["number"] for row in rows], lengths),
            "epoch": np.concatenate(table["epochs"].to_list()),
            "value": np.concatenate(table["values"].to_list()),
        }
    )
    return dict(zip(table["trial_id"].tolist(), rows, strict=True)), curves


def write_cache(
    file: Path, rows: Mapping[int, dict[str, Any]], endings: Mapping[int, str], curves: pd.DataFrame
) -> None:
    """Keep rows by trial id and their curves; a process that reads meanwhile finds what was there before."""
    groups = {number: (part["epoch"].to_numpy(), part["value"].to_numpy()) for number, part in curves.groupby("trial")}
    none = np.zeros(0, int), np.zeros(0)
    table = pd.DataFrame(
        [
            (key, endings[key], json.dumps(row), *groups.get(row["number"], none))
            for key, row in rows.items()
            if key in endings
        ],
        columns=list(COLUMNS),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file) as whole:
        table.to_parquet(whole, index=False)
