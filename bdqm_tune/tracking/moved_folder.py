"""Artifacts of a folder that was moved: MLflow's embedded store records them by absolute paths."""

import sqlite3
from contextlib import closing
from pathlib import Path

from mlflow.utils.file_utils import local_file_uri_to_path

from bdqm_tune.progress import note

# Columns with places of artifacts.
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
WAIT = 60.0  # seconds for another process that writes


def follow_move(file: Path) -> None:
    """Let an embedded store name the artifacts beside it, if they are no more where it says.

    Args:
        file: the store, whose folder was moved or not.

    Raises:
        sqlite3.Error: it cannot be read or written.
    """
    with closing(sqlite3.connect(file, timeout=WAIT)) as connection, connection:
        locations = [row[0] for row in connection.execute("SELECT artifact_location FROM experiments") if row[0]]
        for root in sorted({location.rpartition("/")[0] for location in locations}):
            if not root.startswith(("/", "file:")):
                continue
            old = Path(local_file_uri_to_path(root))
            new = file.absolute().parent / old.name
            names = [location.rpartition("/")[2] for location in locations if location.rpartition("/")[0] == root]
            if old.exists() or not any((new / name).is_dir() for name in names):
                continue
            before, after = f"{root}/", f"{new.as_uri() if root.startswith('file:') else new}/"
            for table, column in COLUMNS:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # nosec B608
                    (after, len(before) + 1, len(before), before),
                )
            note(f"bdqm-tune: {old} was moved; {file.name} names the artifacts in {new} from now on")
