"""Services: where the stores are, and the jobs of a cluster.

In: environment variables and the servers' connection file; `jobs/site.toml`. Out: `Stores` (the study database and
the tracking store, `find_stores`), connections that follow servers when these move, locks in a database, and
submitted jobs. Called by: `storage`, `tracking`, `mlflow_server`,
the rooms above these, which hand `Stores` on, and `cli`.
"""
