"""Figures of a study: a data frame in, Axes out. Nothing here reads a database."""
