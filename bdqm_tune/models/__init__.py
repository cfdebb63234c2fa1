"""Trained potentials in MLflow: load, register, serve, predict, reproduce, archive.

In: a run's id, `runs:/…/model` or `models:/NAME@ALIAS`. Out: a `Potential` or an `Ensemble` (`load_model`), versions in
MLflow's registry (`register`), predictions of a file (`predict_file`), a training repeated and compared (`reproduce`).
Called by: `evaluation`, `confirmation`, `experiment`, `api`, `cli`.
"""
