"""Backends: trainers behind one protocol.

In: a configuration and a `Dataset`. Out: a `Backend`, whose `start(hyperparameters, seed, dataset)` gives a
`TrainingRun`: one epoch at a time, with a state that can be saved and restored. Called by: `tuning`,
`confirmation`, `models`, `study`, `compilation`, `cli`. To add one: the protocols of `backends.base` and
`learning.potential`, and a declaration (`config.backends`); `examples/plugin` has one from outside.
"""

from bdqm_tune.backends.base import Backend, OutOfProcess, TrainingRun, tags_of
from bdqm_tune.config.backends import named
from bdqm_tune.config.config import Config
from bdqm_tune.learning.dataset import Dataset

__all__ = ["Backend", "OutOfProcess", "TrainingRun", "make_backend", "tags_of"]


def make_backend(config: Config, dataset: Dataset) -> Backend:
    """The backend that the configuration names, with the data on its device.

    Raises:
        BadInput: the backend is not installed, or does not support the configuration.
    """
    backend: Backend = named(config.declared.make)(config, dataset)
    return backend
