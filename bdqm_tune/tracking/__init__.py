"""MLflow: runs and their metrics, parameters and files.

In: `Stores`. Out: a `Tracker` (`open_tracker`) that sends what a worker logs from a queue of its own, in order, retries
while the server is away, and never logs anything twice; and readers of runs and metric histories. Called by:
`study`, `tuning`, `workers`, and all rooms that log or read runs.
"""
