"""The search space as Optuna sees it, and a trial's hyperparameters from it."""

from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from bdqm_tune.config import Config, Hyperparameters, Space
from bdqm_tune.errors import BadInput

# A hyperparameter that counts only where another has the given value.
CONDITIONS: dict[str, tuple[str, Any]] = {
    "dropout_rate": ("dropout", True),
    "gamma": ("scheduler", "step"),
    "step_size": ("scheduler", "step"),
}
GRID_POINTS = 3  # of a numerical range without a step, for the grid sampler


def distributions(config: Config, n_train: int) -> dict[str, BaseDistribution]:
    """The distribution of every hyperparameter that is searched, in the order in which they are suggested.

    Args:
        n_train: structures in the training split, the largest batch there can be.
    """
    spaces = config.spaces
    found: dict[str, BaseDistribution] = {}
    for name in Hyperparameters.model_fields:
        if name in spaces and not _never_counts(name, config):
            found[name] = _distribution(name, spaces[name], n_train)
    return found


def suggest(trial: optuna.Trial, config: Config, n_train: int) -> Hyperparameters:
    """Let the sampler choose what the configuration leaves open."""
    values = dict(config.fixed)
    for name, distribution in distributions(config, n_train).items():
        if _counts(name, values):
            # Optuna has one method a kind, which all end here; the distribution holds what they would be given.
            values[name] = trial._suggest(name, distribution)
    return Hyperparameters(**values)


def enqueued(config: Config, n_train: int) -> list[dict[str, Any]]:
    """The parameters of the configurations to try first.

    What an entry leaves out is taken from the defaults where these lie in the search space, else left to the sampler.

    Raises:
        BadInput: an entry gives a value outside the search space.
    """
    space = distributions(config, n_train)
    result = []
    for entry in config.study.enqueue:
        given = {name: getattr(Hyperparameters(**entry), name) for name in entry}
        for name, value in given.items():
            fixed = config.fixed.get(name, getattr(Hyperparameters(), name))
            if name in space and not _contains(space[name], value):
                raise BadInput(f"study.enqueue: {name}={value} is outside the search space {space[name]}")
            if name not in space and name not in config.spaces and value != fixed:
                raise BadInput(f"study.enqueue: {name}={value}, but the study fixes it to {fixed}")
        values = {**Hyperparameters().model_dump(), **config.fixed, **given}
        result.append(
            {
                name: values[name]
                for name in space
                if _contains(space[name], values[name]) and _counts(name, values)
            }
        )
    return result


def grid(config: Config, n_train: int) -> dict[str, list[Any]]:
    """The values of each hyperparameter that the grid sampler combines."""
    points: dict[str, list[Any]] = {}
    for name, distribution in distributions(config, n_train).items():
        if isinstance(distribution, CategoricalDistribution):
            points[name] = list(distribution.choices)
            continue
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        low, high = distribution.low, distribution.high
        if distribution.step is not None and (high - low) / distribution.step < GRID_POINTS * 3 and not distribution.log:
            values = np.arange(low, high + distribution.step / 2, distribution.step)
        else:
            values = (np.geomspace if distribution.log else np.linspace)(low, high, GRID_POINTS)
        if isinstance(distribution, IntDistribution):
            points[name] = sorted({int(round(v)) for v in values})
        else:
            points[name] = np.clip(values, low, high).tolist()
    return points


def _distribution(name: str, space: Space, n_train: int) -> BaseDistribution:
    if space.kind == "choice":
        return CategoricalDistribution(space.choices)
    if space.kind == "float":
        return FloatDistribution(space.low, space.high, log=space.log, step=space.step)
    low, high = int(space.low), int(space.high)
    if name == "batch_size":
        low, high = min(low, n_train), min(high, n_train)
    return IntDistribution(low, high, log=space.log, step=int(space.step or 1))


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return any(value == choice and type(value) is type(choice) for choice in distribution.choices)
    return distribution._contains(distribution.to_internal_repr(value))


def _counts(name: str, values: dict[str, Any]) -> bool:
    if name not in CONDITIONS:
        return True
    parent, needed = CONDITIONS[name]
    return bool(values.get(parent, getattr(Hyperparameters(), parent)) == needed)


def _never_counts(name: str, config: Config) -> bool:
    if name not in CONDITIONS:
        return False
    parent = CONDITIONS[name][0]
    return parent not in config.spaces and not _counts(name, config.fixed)
