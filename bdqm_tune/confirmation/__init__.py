"""Finalists trained again with several seeds, ranked, and the champion among them.

In: a study with complete trials. Out: a `Confirmation` (`confirm`): means over seeds with intervals, the comparison
with the default configuration and a random search, and the champion, which `evaluate` and `register` take from then
on. Called by: `api`, `cli`, `admin`, `analysis`.
"""
