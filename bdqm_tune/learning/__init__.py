"""Learning: from features to a potential.

In: structures and their features (`learning.dataset.prepare`), and hyperparameters. Out: a `Fit` that trains epoch by
epoch, the trained `Potential` with its ASE calculator, ensembles, metrics and their intervals. Called by: `backends`,
`tuning`, and the rooms that evaluate models. Nothing here knows of Optuna or MLflow.
"""
