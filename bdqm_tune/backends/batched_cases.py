"""What of a study the batched trainer may be given, to be checked before the first trial."""

from typing import Any

from bdqm_tune.config.config import Config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batched.verdict import Case
from bdqm_tune.learning.batched.verification import some_cases


def cases_of(config: Config) -> list[Case]:
    """Every activation and option of the search space; empty if nothing of it can be batched, see `can_batch`.

    Args:
        config: with forces and stress decided.
    """
    optimizers = [name for name in _values(config, "optimizer") if name in ("adam", "adamw")]
    if config.training.forces or config.training.stress or "single" not in _values(config, "network") or not optimizers:
        return []
    activation, batchnorm, dropout = (_values(config, name) for name in ("activation", "batchnorm", "dropout"))
    return some_cases(activation, batchnorm, dropout, optimizers, [config.training.loss], [config.training.energy_loss])


def _values(config: Config, name: str) -> list[Any]:
    """The values that a hyperparameter can have, which is no number."""
    if name in config.spaces:
        return list(config.spaces[name].choices)
    return [config.fixed.get(name, Hyperparameters.model_fields[name].default)]
