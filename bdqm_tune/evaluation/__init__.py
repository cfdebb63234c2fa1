"""The sealed test split: opened for one model of a study, and the opening recorded.

In: a study with a selected model, or an ensemble of its best trials (`assemble`). Out: an `Evaluation`: metrics with
bootstrap intervals and baselines, tables, and the record of the opening (`evaluate_best`, `evaluate_ensemble`). Called
by: `api`, `cli`, `analysis`.
"""
