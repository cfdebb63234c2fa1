"""How loops are compiled."""

from collections.abc import Callable
from typing import Any

import numba

# Sums in any order, but infinities and NaN stay what they are: a training that diverges must show it.
FAST = {"reassoc", "contract", "arcp", "nsz"}


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile a function at its first call, for later processes too; threads that run it do not wait for each other."""
    try:
        return numba.njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # neither the folder of the package nor one of the user's can be written to
        return numba.njit(nogil=True, **options)(function)


def compiled_fast(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with freedom to round otherwise, so that loops become vector instructions."""
    return compiled(function, fastmath=FAST, error_model="numpy")
