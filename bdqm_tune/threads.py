"""How many cores this process may use."""

import os


def usable_cores() -> int:
    """Cores that this process was given, by the system or a scheduler, or OMP_NUM_THREADS of them where that is set."""
    given = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(given, int(wanted)) if wanted.isdecimal() and int(wanted) > 0 else given
