"""The workers of a study: registry, heartbeats, failure detection, and clean-up after a dead worker.

In: a storage and a study's id. Out: a `Heartbeat`, the thread that sends this worker's heartbeats and requeues the
trials of dead ones. Called by: `tuning`, `admin`.
"""
