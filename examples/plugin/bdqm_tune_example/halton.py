"""A sampler: points of Halton's sequence, which fill the search space more evenly than random ones."""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)


class HaltonSampler(BaseSampler):
    """Takes the point with the trial's number, so that several workers do not draw the same one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        base = PRIMES[len(trial.params) % len(PRIMES)]  # a dimension for each hyperparameter, in their order
        return value_at(radical_inverse(trial.number + 1 + self.seed, base), param_distribution)


def radical_inverse(n: int, base: int) -> float:
    """The digits of n mirrored at the point, in [0, 1)."""
    value, share = 0.0, 1.0
    while n:
        share /= base
        n, digit = divmod(n, base)
        value += digit * share
    return value


def value_at(share: float, distribution: BaseDistribution) -> Any:
    """The value of a hyperparameter at this share, in [0, 1), of its range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = distribution.low, distribution.high
    value = low * (high / low) ** share if distribution.log else low + share * (high - low)
    if distribution.step:
        value = low + round((value - low) / distribution.step) * distribution.step
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def make_sampler(seed: int, n_existing: int) -> HaltonSampler:  # noqa: ARG001
    """What the entry point names.

    Args:
        seed: `study.seed`.
        n_existing: trials that the study has already; a sampler that draws goes on with other numbers by it.
    """
    return HaltonSampler(seed)
