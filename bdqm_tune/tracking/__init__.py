"""MLflow: runs and their metrics, parameters and files.

In: `Stores`. Out: a `Tracker` (`open_tracker`) that sends what a worker logs from a queue of its own, in order, waits
for a server that is away, and never sends anything twice; and readers of runs and metric histories. Called by:
`study`, `tuning`, and all rooms that record something.
"""
