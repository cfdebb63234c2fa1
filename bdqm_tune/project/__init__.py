"""The files of a project: `MLproject` and the job scripts of `jobs/`, as they lie in the repository.

They travel with the package, and `bdqm-tune init` lays them into a user's folder. Nothing here is imported.
"""
