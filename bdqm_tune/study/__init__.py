"""A study: its search space, sampler, objectives, trials and results.

In: a configuration and a `Dataset`. Out: an Optuna study (`open_study`, `load_study`), hyperparameters for the next
trial (`suggest`), results as data frames (`load_results`), the Pareto front, and the model that was selected
(`chosen_model`). Called by: `tuning`, `workers`, and all rooms that read the results of a study.
"""
