"""Samplers, which choose the next configuration, and pruners, which stop a trial early."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial

from bdqm_tune.config.config import OBJECT
from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.plugins import load_plugin

REDUCTION_FACTOR = 3  # of hyperband and successive halving: one trial in three is promoted at a rung
LAST_RUNG = 2 / 3  # of a trial
MEDIAN_REPORTS = 10  # times in a trial that the median pruner is queried
POPULATION = 20  # of a generation; of Optuna's 50, most studies would not see a second one


class _Hyperband(BasePruner):
    """Optuna's hyperband, of which the sampler does not know.

    Where a study's pruner is a `HyperbandPruner`, Optuna shows a sampler the trials of one bracket only; TPE then needs
    ten trials a bracket before it begins to learn, and every suggestion costs two more transactions.
    """

    def __init__(self, **options: Any) -> None:
        self._pruner = HyperbandPruner(**options)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        return self._pruner.prune(study, trial)


def object_name(given: BaseSampler | BasePruner) -> str:
    """What a configuration records of an object that Python code gave."""
    return f"{OBJECT}{type(given).__name__}"


def make_sampler(name: str, seed: int, n_existing: int) -> BaseSampler:
    """The sampler of a name.

    Args:
        n_existing: trials that the study already has; a study that is resumed draws other numbers than before.

    Raises:
        BadInput: it is of another package, and cannot be made; or it was an object.
    """
    _refuse_object("sampler", name)
    drawn = int(np.random.SeedSequence([seed, n_existing]).generate_state(1)[0]) if n_existing else seed
    match name:
        case "tpe":
            # What others are running counts as bad, so that trials at the same time do not try the same.
            return TPESampler(seed=drawn, constant_liar=True)
        case "cmaes":
            return CmaEsSampler(seed=drawn, warn_independent_sampling=False)
        case "random" | "grid":  # the trials of a grid wait with their parameters fixed
            return RandomSampler(seed=drawn)
        case "gp":
            return GPSampler(seed=drawn)
        case "nsgaii":
            return NSGAIISampler(seed=drawn, population_size=POPULATION)
        case "qmc":
            # Its position in the sequence is in the study; another seed would start another sequence.
            return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
    make = load_plugin("sampler", name)
    try:
        sampler = make(seed, n_existing)
    except (Exception, SystemExit) as error:  # whatever a package of others does
        raise BadInput(f"sampler {name!r}: it cannot be made: {one_line(error)}") from None
    if not isinstance(sampler, BaseSampler):
        raise BadInput(f"sampler {name!r}: made a {type(sampler).__name__}, not a sampler of Optuna")
    return sampler


def make_pruner(name: str, epochs: int) -> BasePruner:
    """The pruner of a name for trials of at most `epochs` epochs. Raises BadInput if it was an object."""
    _refuse_object("pruner", name)
    first = first_rung(epochs)
    match name:
        case "hyperband":
            return _Hyperband(min_resource=first, max_resource=epochs, reduction_factor=REDUCTION_FACTOR)
        case "halving":
            return SuccessiveHalvingPruner(min_resource=first, reduction_factor=REDUCTION_FACTOR)
        case "median":
            return MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs // MEDIAN_REPORTS))
    return NopPruner()


def _refuse_object(option: str, name: str) -> None:
    if name.startswith(OBJECT):
        kind = name.removeprefix(OBJECT)
        raise BadInput(
            f"study.{option}: {name} was an object, a {kind}, in Python; give `tune` such an object again, or a name "
            f"(--{option} NAME)"
        )


def rungs(name: str, epochs: int) -> Sequence[int]:
    """The epochs at which the pruner compares trials; reporting others costs a transaction and changes nothing."""
    if name in ("hyperband", "halving"):
        steps = [first_rung(epochs)]
        # At a rung close to its end, a trial that is pruned has cost as much as a complete one.
        while steps[-1] * REDUCTION_FACTOR <= LAST_RUNG * epochs:
            steps.append(steps[-1] * REDUCTION_FACTOR)
        return steps
    if name == "median":
        every = max(1, epochs // MEDIAN_REPORTS)
        return range(every, epochs, every)
    if name.startswith(OBJECT) and name != f"{OBJECT}{NopPruner.__name__}":  # nobody knows when it compares
        return range(1, epochs)
    return []


def first_rung(epochs: int) -> int:
    """Epochs before the first comparison: a ninth of a trial, two factors of 3 from its end."""
    return max(1, epochs // REDUCTION_FACTOR**2)
