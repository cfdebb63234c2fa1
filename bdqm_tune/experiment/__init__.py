"""Module path that models registered before version 0.2 name; forwards to `models`.

In: the name under which MLflow loads such a model. Out: what `models` has of that name. Called by: MLflow.
"""
