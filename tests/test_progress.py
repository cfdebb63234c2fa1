"""What a terminal shows of long work, and what other places do."""

import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bdqm_tune import progress
from bdqm_tune.progress import check, interruptible

NESTED = """
import time
from bdqm_tune.progress import Bar, note, track
with Bar("Trials", 2) as bar:
    for number in range(2):
        for i in track(range(3), "Features", 3):
            time.sleep(0.1)
            if i == 1:
                note(f"note {number}")
        bar.advance(f"trial {number} complete")
"""


def shown(terminal: bool) -> str:
    """The standard error of bars within a bar."""
    there, here = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen([sys.executable, "-c", NESTED], cwd=Path(__file__).parents[1], stderr=here)
    os.close(here)
    text = b""
    try:
        while piece := os.read(there, 65536):
            text += piece
    except OSError:  # how a terminal says that its other end is closed
        pass
    assert process.wait() == 0, text
    return text.decode()


def test_a_terminal_shows_a_bar_within_a_bar() -> None:
    text = shown(terminal=True)
    for part in ("Trials", "Features", "note 0", "note 1", "trial 1 complete"):
        assert part in text


def test_elsewhere_there_are_the_messages_alone() -> None:
    assert shown(terminal=False).split("\n") == ["note 0", "trial 0 complete", "note 1", "trial 1 complete", ""]


@pytest.mark.parametrize("whole_process", [True, False])
def test_work_that_is_to_end_has_its_grace(monkeypatch: pytest.MonkeyPatch, whole_process: bool) -> None:
    monkeypatch.setattr(progress, "told_to_end", told := threading.Event())
    stopped = threading.Event()
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with interruptible(stopped.is_set):
        check()
        check(grace=5.0)
        now += 50
        (told if whole_process else stopped).set()
        for _ in range(3):
            check(grace=5.0)
            now += 1.6
        check(grace=5.0)
        with pytest.raises(KeyboardInterrupt):  # who has nothing to finish ends at once
            check()
        now += 0.3
        with pytest.raises(KeyboardInterrupt):
            check(grace=5.0)


def test_each_time_that_work_is_to_end_has_its_own_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(progress, "told_to_end", threading.Event())
    for _ in range(2):
        with interruptible(lambda: True):
            check(grace=5.0)
            now += 5
            with pytest.raises(KeyboardInterrupt):
                check(grace=5.0)
        check()
