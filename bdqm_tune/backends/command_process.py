"""A program in a process group of its own, which ends with it: by itself, when it is stopped, or with this process."""

import math
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bdqm_tune.errors import BadInput

PAUSE = 0.05  # seconds between two looks at a group that is to end
MOST_TAIL = 20_000  # bytes of the output from which the last lines are taken
# Waits for the end of its input. That comes with the end of this process, however it ends, and the program is stopped;
# a line before it says that the program has ended.
GUARD = """
trap '' INT TERM HUP
read -r line && exit
kill -s "$2" -- "-$1" 2>/dev/null || exit
n=$3
while [ "$n" -gt 0 ] && kill -s 0 -- "-$1" 2>/dev/null; do sleep 1; n=$((n - 1)); done
kill -s KILL -- "-$1" 2>/dev/null
"""


class Program:
    """A running program, whose output goes to a file."""

    def __init__(self, words: Sequence[str], output: Path, stop_signal: signal.Signals, grace: float) -> None:
        """
        Args:
            words: program and arguments, which no shell sees.
            output: is appended to, standard output and standard error together.
            stop_signal: asks the program to end.
            grace: seconds after which it is killed.

        Raises:
            BadInput: there is no such program, or it cannot be run.
        """
        self._signal, self._grace = stop_signal, grace
        with output.open("ab") as file:
            try:
                self._process = subprocess.Popen(  # nosec B603 (what it runs is the user's own configuration)
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    # Python programs would otherwise keep lines back, and an epoch would be seen when many have ended.
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                    start_new_session=True,  # a terminal's Ctrl-C goes to this process alone, which stops the group
                )
            except (OSError, ValueError) as error:
                raise BadInput(f"{words[0]}: cannot be run ({getattr(error, 'strerror', None) or error})") from None
        self._group = self._process.pid
        self._is_over = False
        arguments = [str(self._group), stop_signal.name.removeprefix("SIG"), str(math.ceil(grace))]
        try:
            self._guard = subprocess.Popen(  # nosec B603
                ["/bin/sh", "-c", GUARD, "guard", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            self._kill()
            self._process.wait()
            raise

    def poll(self) -> int | None:
        """Its exit status, negative by a signal; None: it is running."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to end, wait, and kill what is left of its group; what has ended by itself leaves nothing either."""
        if self._is_over:
            return
        try:
            if self._process.poll() is None:
                self._send(self._signal)
                until = time.monotonic() + self._grace
                while self._is_there() and time.monotonic() < until:
                    time.sleep(PAUSE)
        finally:
            self._kill()
            self._process.wait()
            with suppress(OSError):
                self._guard.communicate(b"\n")
            self._is_over = True

    def _is_there(self) -> bool:
        """Whether anything of the group runs."""
        self._process.poll()  # or what has ended would count
        try:
            os.killpg(self._group, 0)
        except ProcessLookupError:
            return False
        return True

    def _kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        # Once the group is empty, its number may become that of another one; not within the moment that passes here.
        with suppress(ProcessLookupError):
            os.killpg(self._group, number)


def status_text(status: int) -> str:
    """An exit status in words: `with status 2`, `by SIGSEGV`."""
    if status >= 0:
        return f"with status {status}"
    with suppress(ValueError):
        return f"by {signal.Signals(-status).name}"
    return f"by signal {-status}"


def last_lines(output: Path, n: int) -> list[str]:
    """The last lines of a file that are not empty, at most `n`; none where it cannot be read."""
    try:
        with output.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MOST_TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines if line.strip()][-n:]
