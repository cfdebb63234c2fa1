"""Signals that end a command: handled before the slow imports, and all in one way."""

import signal
import sys
from typing import NoReturn

from bdqm_tune.progress import told_to_end, walltime_is_near

INTERRUPTED = 130  # exit status, as of a shell's Ctrl-C
AFTERWARDS = {  # what becomes of a command's work when it is interrupted
    "tune": "; a trial that was running is requeued for the next tune of its study",
    "confirm": "; the same command resumes what was not trained to its end",
}


def listen() -> None:
    """Let SIGTERM, Ctrl-C and, of `tune`, the scheduler's warning SIGUSR1 raise KeyboardInterrupt."""
    # SIGTERM takes the same way as Ctrl-C, so that a running trial is requeued.
    signal.signal(signal.SIGTERM, lambda *_: _interrupt())
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # which a shell's background jobs have not
        signal.signal(signal.SIGINT, lambda *_: _interrupt())
    if "tune" in sys.argv[1:2]:  # to leave then is no failure of a worker
        signal.signal(signal.SIGUSR1, lambda *_: _leave())


def ignore_interruption(found: "sys.UnraisableHookArgs") -> None:
    """For `sys.unraisablehook`: an interruption swallowed by a callback is recorded already, and needs no traceback."""
    if not isinstance(found.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(found)


def end() -> NoReturn:
    """Say in one line that the command was interrupted, and end with the status for it."""
    # Interrupted within a string that is executed (a dataclass made by an import), Python would end by SIGINT in
    # spite of the status below, unless a later string ends well.
    exec("")  # nosec B102
    left = "the walltime is near" if walltime_is_near.is_set() else "interrupted"
    print(f"bdqm-tune: {left}{AFTERWARDS.get(''.join(sys.argv[1:2]), '')}", file=sys.stderr)
    sys.exit(0 if walltime_is_near.is_set() else INTERRUPTED)


def _interrupt() -> NoReturn:
    told_to_end.set()
    raise KeyboardInterrupt


def _leave() -> NoReturn:
    walltime_is_near.set()
    _interrupt()
