"""How the loops of this folder are compiled."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function at its first call, for later processes too; threads that run it do not wait for each other."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the folder of the package nor one of the user's can be written to
        return numba.njit(nogil=True)(function)
