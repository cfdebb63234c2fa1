"""Figures, tables and reports of studies, for the scripts in the repository's `analysis/` and for one's own.

In: a study's results (`bdqm_tune.load_results`). Out: figures, each a function from a data frame to Axes
(`analysis.figures`), all of them in a folder (`analysis.drawings`), comparisons of studies, and the report
(`analysis.reporting`). Called by: `cli`.
"""
