"""Optuna's studies in a database (SQLite, MySQL, MariaDB, PostgreSQL): open, retry, claim.

In: `Stores`. Out: an Optuna storage (`open_storage`, `opened`) that retries while the database is away, and claims
trials so that only one worker runs each; locks (`study_lock`). Called by: `study`, `workers`, `tracking`, `tuning`,
`models`, `evaluation`, `confirmation`, `admin`. What it uses
of Optuna's private names is listed in `services.optuna_private`.
"""
