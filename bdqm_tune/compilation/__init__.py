"""Compiles numba's loops once for the current code, ahead of the first trial.

In: the package's own source. Out: compiled files beside it (`cache.bring`), taken from the user's cache where a process
of the same kind of machine has made them before. Called by: `make setup`, and `api` and `cli` before data are prepared.
"""
