"""Checkpoints of a study's trials, in files that all its workers see."""

import logging
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from bdqm_tune.backends import OutOfProcess, TrainingRun
from bdqm_tune.learning.checkpoint import NoCheckpoint, read_checkpoint, remove_checkpoint, write_checkpoint
from bdqm_tune.study.study import IDENTITY

SUFFIXES = (".checkpoint", ".files")  # of what a trial has here
EVERY = 30.0  # seconds between checkpoints: a killed worker loses at most so much training, and an epoch

_log = logging.getLogger(__name__)


def checkpoint_folder(home: Path, study: str, attributes: Mapping[str, Any]) -> Path:
    """Where the checkpoints of a study are, below `BDQM_HOME`; another database may have one of the same name."""
    readable = re.sub(r"[^\w.-]+", "_", study).strip(".")[:40]
    return home / "checkpoints" / f"{readable}-{attributes.get(IDENTITY, '')}"


def remove_ended(folder: Path, trials: Callable[[], Sequence[FrozenTrial]]) -> int:
    """Remove the checkpoints and files of finished trials; returns their number.

    A worker may be killed when its trial has just ended, and one that was declared dead may write another checkpoint
    of a trial that others have finished.

    Args:
        trials: returns those of the study; called only where there are checkpoints.
    """
    if not (there := {path.with_suffix(".checkpoint") for path in folder.glob("trial-*") if path.suffix in SUFFIXES}):
        return 0
    ended = {trial_checkpoint(folder, trial.number) for trial in trials() if trial.state.is_finished()}
    obsolete = there & ended
    for path in obsolete:
        _remove(path)
    return len(obsolete)


def trial_checkpoint(folder: Path, number: int) -> Path:
    """The checkpoint of a trial."""
    return folder / f"trial-{number:03d}.checkpoint"


def trial_files(checkpoint: Path) -> Path:
    """The folder of the files that the trial with this checkpoint has besides, where a program trains."""
    return checkpoint.with_suffix(".files")


def _remove(checkpoint: Path) -> None:
    with suppress(OSError):  # it could not be written either
        remove_checkpoint(checkpoint)
    shutil.rmtree(trial_files(checkpoint), ignore_errors=True)


class TrialCheckpoint:
    """The checkpoint of one trial and, after `restore`, the training that it is written from."""

    def __init__(self, folder: Path, number: int) -> None:
        self._path = trial_checkpoint(folder, number)
        self._lock, self._is_removed = threading.Lock(), False  # one thread trains, another one reports to the study
        self._training: TrainingRun | None = None
        self._latest, self._failed = time.monotonic(), False

    def restore(self, training: TrainingRun) -> None:
        """Write checkpoints of this new training from now on; resume it from a checkpoint if there is one that fits."""
        self._training = training
        if isinstance(training, OutOfProcess):
            training.work_in(trial_files(self._path))
        if not self._path.exists():
            return
        try:
            training.restore(read_checkpoint(self._path, training.key))
        except NoCheckpoint as error:
            _log.warning("%s; the trial starts again from its first epoch", error)

    def write_now_and_then(self) -> None:
        """Write a checkpoint if the latest is older than `EVERY`; between two epochs."""
        if time.monotonic() - self._latest >= EVERY:
            self.write()

    def write(self) -> None:
        """Write a checkpoint, if an epoch has ended. Logs a warning if it cannot be written."""
        with self._lock:
            if not self._is_removed:
                self._write()

    def _write(self) -> None:
        checkpoint = self._training.checkpoint() if self._training else None
        if self._training is not None and checkpoint is not None and checkpoint.records:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_checkpoint(self._path, checkpoint, self._training.key)
            except OSError as error:
                if not self._failed:
                    _log.warning("no checkpoint can be written to %s: %s", self._path, error.strerror)
                self._failed = True
        self._latest = time.monotonic()

    def remove(self) -> None:
        """Remove the checkpoint of a trial that has ended; none is written afterwards."""
        with self._lock:
            self._is_removed = True
            _remove(self._path)
