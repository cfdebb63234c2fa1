"""Typical and largest trials of a study, for estimates before its first trial."""

import math
from typing import Any, Literal

from bdqm_tune.config.config import Config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.config.spaces import Space

SIZES = ("num_layers", "num_nodes", "batch_size")


def trial_of(config: Config, which: Literal["middle", "largest"]) -> Hyperparameters:
    """A trial whose layers, nodes and batches are in the middle or at the end of their ranges.

    If they are searched, the largest uses batch normalisation and dropout, which take memory; other searched
    hyperparameters have their default, or the first choice.
    """
    values: dict[str, Any] = dict(config.fixed)
    for name, space in config.spaces.items():
        if name in SIZES:
            values[name] = _size(space, which)
        elif name in ("batchnorm", "dropout"):
            values[name] = which == "largest"
        elif space.kind == "choice" and name in Hyperparameters.model_fields:
            values[name] = space.choices[0]
    return Hyperparameters(**values)


def _size(space: Space, which: Literal["middle", "largest"]) -> int:
    if space.kind == "choice":
        numbers = sorted(int(choice) for choice in space.choices)
        return numbers[-1 if which == "largest" else len(numbers) // 2]
    if which == "largest":
        return int(space.high)
    return round(math.sqrt(space.low * space.high) if space.log else (space.low + space.high) / 2)
