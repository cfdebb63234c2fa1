"""The command line `bdqm-tune`: parse, call, print.

In: arguments. Out: lines or JSON on standard output, progress and warnings on standard error, and an exit status: 0, 1
for a failure, 2 for bad input. A command's own module imports what is heavy inside its function, so that `--help` is
quick. Called by: `__main__`, and the scripts in the repository's `analysis/` and `mlflow_server/`.
"""
