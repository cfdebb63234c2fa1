"""The command line as a test calls it."""

from collections.abc import Callable

Call = Callable[..., tuple[int, str, str]]  # exit status, standard output, standard error
