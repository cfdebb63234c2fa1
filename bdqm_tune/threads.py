"""How many cores this process may use."""

import os

MOST = 64  # threads that may call BLAS at the same time, as SciPy's is built


def usable_cores() -> int:
    """Cores that the scheduler or the operating system gives to this process, or $OMP_NUM_THREADS if it is set."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    cores = int(given) if given.isdecimal() and int(given) > 0 else len(os.sched_getaffinity(0))
    return min(cores, MOST)
