"""Where the files of a study go."""

import os
import re
from pathlib import Path

from bdqm_tune.errors import BadInput

FIGURES, REPORTS = "figures/", "reports/"


def output_folder(name: str, out: str | Path) -> Path:
    """The folder for a study's files; nothing is made yet.

    Args:
        out: as the user named it; if it ends with a slash, the study gets a folder of its own in it.

    Raises:
        BadInput: it could not be made or written to.
    """
    folder = Path(out)
    if str(out).endswith(os.sep):
        folder /= re.sub(r"[^\w.-]+", "_", name).strip(".")[:100] or "study"
    parent = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not parent.is_dir():
        raise BadInput(f"--out {out}: {parent} is a file, not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise BadInput(f"--out {out}: no permission to write in {parent}")
    return folder
