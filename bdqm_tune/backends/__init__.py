"""Backends: what trains a network for a configuration."""

from bdqm_tune.backends.base import Backend, TrainingRun
from bdqm_tune.backends.native import NativeBackend
from bdqm_tune.config import Config
from bdqm_tune.learning.dataset import Dataset

__all__ = ["Backend", "NativeBackend", "TrainingRun", "make_backend"]


def make_backend(config: Config, dataset: Dataset) -> Backend:
    """The backend that the configuration names, with the data where it trains."""
    return {"native": NativeBackend}[config.backend](config, dataset)
