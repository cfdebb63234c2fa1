"""Where the stores are: given by the environment, else embedded in the folder one works in."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stores:
    """The places that a command reads and writes."""

    home: Path  # feature store, test splits, embedded study database
    storage_url: str  # SQLAlchemy URL of Optuna's storage
    tracking_uri: str | None  # of MLflow; None: MLflow's own default, a SQLite file in the working folder


def find_stores(environ: Mapping[str, str] = os.environ) -> Stores:
    """The stores that `BDQM_HOME`, `BDQM_STORAGE` and `MLFLOW_TRACKING_URI` name, or the embedded ones."""
    home = Path(environ.get("BDQM_HOME") or ".bdqm").absolute()
    return Stores(
        home=home,
        storage_url=environ.get("BDQM_STORAGE") or f"sqlite:///{home / 'optuna.db'}",
        tracking_uri=environ.get("MLFLOW_TRACKING_URI") or None,
    )
