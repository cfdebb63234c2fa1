"""Processes and machines by names that no others have, before or after."""

import os
from functools import cache
from pathlib import Path
from uuid import uuid4


def process_identity() -> str:
    """This process among all there ever were: MACHINE/PID@START."""
    return f"{machine()}/{os.getpid()}@{_started(os.getpid())}"


def is_here(identity: str) -> bool:
    """Whether a process ran on this machine since its boot, as far as is known."""
    return identity.rpartition("/")[0] == machine()


def is_gone(identity: str) -> bool:
    """Whether a process of this machine, since its boot, is known to have ended."""
    pid, _, started = identity.rpartition("/")[2].partition("@")
    return is_here(identity) and pid.isdecimal() and started != _started(int(pid))


@cache
def machine() -> str:
    """This machine since its boot, as far as this user sees its processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        boot, space = "unknown", str(uuid4())
    return f"{boot} {space} {os.getuid()}"


def _started(pid: int) -> str:
    """When a process of this machine started, in ticks since its boot, for the clock may jump; "" if there is none."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]
