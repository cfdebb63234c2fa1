"""What all processes of a test session share: made by the first that needs it, while the others wait."""

import fcntl
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the session that `make` fills once, whatever the number of processes."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            if (failed := folder.with_suffix(".failed")).exists():
                pytest.fail(failed.read_text(), pytrace=False)
            unfinished = folder.with_suffix(".unfinished")
            unfinished.mkdir()
            try:
                make(unfinished)
            except BaseException:
                failed.write_text(traceback.format_exc())
                raise
            unfinished.rename(folder)
    return folder
