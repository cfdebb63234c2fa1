"""A confirmation as its run has it."""

import json
import tempfile
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from mlflow.tracking import MlflowClient

from bdqm_tune.errors import BdqmError
from bdqm_tune.study.selection import Champion
from bdqm_tune.tracking.result_runs import run_file

FINALISTS, RETRAININGS, RECORD = "finalists.csv", "retrainings.csv", "confirmation.json"


@dataclass(frozen=True)
class RecordedConfirmation:
    """The multi-seed re-evaluation of a study's finalists."""

    finalists: pd.DataFrame  # see `verdict.table`
    retrainings: pd.DataFrame  # one row a training: name, seed, value, state, seconds, run_id
    record: dict[str, Any]  # see `Confirmation.record`


def read_confirmation(client: MlflowClient, champion: Champion) -> RecordedConfirmation:
    """The confirmation that chose a champion; nothing is changed.

    Raises:
        BdqmError: its files are not there any more.
        MlflowException, OSError: the tracking store failed.
    """
    run_id = champion.confirmation_run_id
    missing = {FINALISTS, RETRAININGS, RECORD} - {file.path for file in client.list_artifacts(run_id)}
    if missing:
        raise BdqmError(f"{', '.join(sorted(missing))} are not in the confirmation's run {run_id} any more")
    with tempfile.TemporaryDirectory(prefix="bdqm-") as folder:
        fetched = partial(run_file, client, run_id, folder=folder)
        whole = dict.fromkeys(("trial", "n_parameters", "best_seed", "seeds_needed"), "Int64")
        return RecordedConfirmation(
            pd.read_csv(fetched(FINALISTS), dtype=whole),
            pd.read_csv(fetched(RETRAININGS), dtype={"n_parameters": "Int64"}),
            json.loads(fetched(RECORD).read_text(encoding="utf-8")),
        )
