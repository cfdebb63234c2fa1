"""Tuning: take a trial, train it, prune it, record it, report its result.

In: a `Dataset`, a configuration and `Stores`. Out: an Optuna study with its trials logged in MLflow (`tune`). Called
by: `api`, `cli`, and `confirmation` for a random search to compare with.
"""
