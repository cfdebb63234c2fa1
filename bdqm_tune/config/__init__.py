"""Every option of a study, declared once, and the search spaces.

In: a configuration file (YAML), options of the command line, `hyperparameter: space` lines. Out: a checked `Config`
(`load_config`), and for each hyperparameter a fixed value or a `Space`. Called by: the rooms above. To add an option,
add a field in `config.config`; to add a hyperparameter, one in `config.hyperparameters`.
"""
