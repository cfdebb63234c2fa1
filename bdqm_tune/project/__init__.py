"""The files of a project: `MLproject` and the job scripts of `jobs/`, as they lie in the repository.

In: nothing. Out: the files, which travel with the package. Called by: `cli.init`, which lays them into a user's folder;
nothing here is imported.
"""
