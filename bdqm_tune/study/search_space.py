"""The search space as Optuna sees it, and a trial's hyperparameters and descriptor from it."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from bdqm_tune.config import descriptor_options
from bdqm_tune.config.backends import Declaration, find_backend
from bdqm_tune.config.config import Config
from bdqm_tune.config.descriptor_options import OWN, DescriptorOptions
from bdqm_tune.config.descriptor_search import OPTIONS, apart, chosen_descriptor, flat
from bdqm_tune.config.options import Condition, Options, takes_any
from bdqm_tune.config.spaces import DESCRIPTOR, Space, check_value, plain
from bdqm_tune.errors import BadInput
from bdqm_tune.services.optuna_private import contains
from bdqm_tune.services.optuna_private import suggest as suggest_value

BEGUN = "begun_with"  # attribute of a trial: its `Suggestion`
NATIVE = "native"  # the backend of trials that were begun before there was another
# The grid: points of a range, steps up to which all are taken instead, and the most combinations.
GRID_POINTS, FEW_STEPS, LARGEST_GRID = 3, 10, 1_000_000


def searchable(declared: Declaration, values: Mapping[str, Any]) -> list[str]:
    """All that trials of a backend may differ in, in the order in which it is suggested.

    Args:
        values: that are searched or were tried; of a backend that takes hyperparameters of any name, these tell them.
    """
    options = [DESCRIPTOR + option for option in OPTIONS] if declared.features else []
    options += sorted(name for name in values if declared.features and name.startswith(DESCRIPTOR + OWN))
    known = [*options, *declared.hyperparameters.model_fields]
    return [*known, *(sorted(values.keys() - set(known)) if takes_any(declared.hyperparameters) else ())]


def backend_of(signature: Mapping[str, Any]) -> Declaration | None:
    """The backend of a study, by its search-space signature; None: it is not installed (any more)."""
    try:
        return find_backend(str(signature.get("backend", NATIVE)).partition(",")[0])
    except BadInput:
        return None


def searchable_in(signature: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """As `searchable`, of a study by its signature; where its backend is not installed, the values in their order."""
    declared = backend_of(signature)
    return list(values) if declared is None else searchable(declared, values)


def conditions(declared: Declaration) -> dict[str, Condition]:
    """What another hyperparameter, or option of the descriptor, must be for one of these to count."""
    of_descriptor = {
        DESCRIPTOR + option: (DESCRIPTOR + parent, needed)
        for option, (parent, needed) in descriptor_options.CONDITIONS.items()
    }
    return declared.conditions | of_descriptor


def distributions(config: Config, n_train: int) -> dict[str, BaseDistribution]:
    """The distribution of every hyperparameter that is searched, in the order in which they are suggested.

    Args:
        n_train: structures in the training split, the largest batch there can be.
    """
    spaces, defaults = config.spaces, _defaults(config)
    found: dict[str, BaseDistribution] = {}
    rules = conditions(config.declared)
    for name in searchable(config.declared, spaces):
        if name in spaces and (_counts(name, defaults, rules) or rules[name][0] in spaces):
            found[name] = _distribution(name, spaces[name], n_train)
    return found


class Suggestion(NamedTuple):
    """What a trial trains."""

    hyperparameters: Options  # of the backend
    descriptor: DescriptorOptions
    seed: int


def suggest(trial: optuna.Trial, config: Config, n_train: int) -> Suggestion:
    """Let the sampler choose what the configuration leaves open.

    A trial that another worker has begun keeps what it began with, whatever this worker's configuration says: its
    curve, its reports and its checkpoint belong to that.
    """
    if (begun := trial.user_attrs.get(BEGUN)) is not None:
        hyperparameters = config.declared.hyperparameters(**begun["search"])
        return Suggestion(hyperparameters, DescriptorOptions(**begun["descriptor"]), begun["seed"])
    values, rules = _defaults(config), conditions(config.declared)
    chosen: dict[str, Any] = {}
    for name, distribution in distributions(config, n_train).items():
        if _counts(name, values | chosen, rules):
            # Optuna has one method a kind, which all end here; the distribution holds what they would be given.
            chosen[name] = suggest_value(trial, name, distribution)
    options, searched = apart(chosen)
    descriptor = chosen_descriptor(config.descriptor, options) if options else config.descriptor
    hyperparameters = config.declared.hyperparameters(**config.fixed, **searched)
    suggestion = Suggestion(hyperparameters, descriptor, config.study.seed)
    begun = {
        "search": hyperparameters.model_dump(mode="json"),
        "descriptor": descriptor.model_dump(mode="json"),
        "seed": config.study.seed,
        "backend": config.backend,
    }
    trial.set_user_attr(BEGUN, begun)
    return suggestion


def tried_values(trial: FrozenTrial) -> dict[str, Any]:
    """What a trial trained with, searched or fixed, as Optuna holds it; without what does not count beside the others.

    Of a trial that has not begun, or that an earlier version began: what was searched.
    """
    if (begun := trial.user_attrs.get(BEGUN)) is None:
        return dict(trial.params)
    if (declared := backend_of(begun)) is None:
        return {**begun["search"], **trial.params}
    options = {DESCRIPTOR + option: value for option, value in flat(begun["descriptor"]).items()}
    names, rules = searchable(declared, options | begun["search"]), conditions(declared)
    known = dict.fromkeys(names) | options | begun["search"]
    fixed = {name: plain(known[name]) for name in names if known[name] is not None and _counts(name, known, rules)}
    return {**fixed, **trial.params}


def known_parameters(config: Config, n_train: int, existing: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """The parameters of the next trials that are not left to the sampler, in their order.

    These are the configurations to try first in a new study, or the untried points of the grid.

    Raises:
        BadInput: one of the former lies outside the search space, or fewer of the latter are left than trials wanted.
    """
    wanted = config.study.n_trials
    if config.study.sampler != "grid":
        first = enqueued(config, n_train)
        return [] if existing else first[:wanted]
    tried = {tuple(sorted(trial.system_attrs.get("fixed_params", trial.params).items())) for trial in existing}
    left = [point for point in grid(config, n_train) if tuple(sorted(point.items())) not in tried]
    if len(left) < wanted:
        raise BadInput(f"study.n_trials: the grid has {len(left)} points that were not tried, fewer than {wanted}")
    return left[:wanted]


def enqueued(config: Config, n_train: int) -> list[dict[str, Any]]:
    """The parameters of the configurations to try first.

    What an entry leaves out is taken from the defaults where these lie in the search space, else left to the sampler.

    Raises:
        BadInput: an entry gives a value outside the search space.
    """
    space, defaults, rules = distributions(config, n_train), _defaults(config), conditions(config.declared)
    if config.study.enqueue == "auto":
        first_ones = config.declared.tried_first
        entries = [{n: v for n, v in entry.items() if n in space and _contains(space[n], v)} for entry in first_ones]
    else:
        entries = [_checked(entry, config, space, defaults) for entry in config.study.enqueue]
    first: list[dict[str, Any]] = []
    for values in (defaults | entry for entry in entries):
        chosen = {
            name: values[name]
            for name in space
            if name in values and _contains(space[name], values[name]) and _counts(name, values, rules)
        }
        if config.study.enqueue != "auto" or chosen not in first:
            first.append(chosen)
    return first


def _checked(
    entry: Mapping[str, Any], config: Config, space: Mapping[str, BaseDistribution], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """An entry of `study.enqueue`. Raises BadInput where a value is outside the search space."""
    given = {name: plain(check_value(name, value, config.declared.hyperparameters)) for name, value in entry.items()}
    for name, value in given.items():
        if name in space and not _contains(space[name], value):
            raise BadInput(f"study.enqueue: {name}={value} is outside the search space {space[name]}")
        if name not in space and name not in config.spaces and name not in defaults:
            raise BadInput(f"study.enqueue: {name}={value}, but the study neither searches nor fixes it")
        if name not in space and name not in config.spaces and value != defaults[name]:
            raise BadInput(f"study.enqueue: {name}={value}, but the study fixes it to {defaults[name]}")
    return given


def grid(config: Config, n_train: int) -> list[dict[str, Any]]:
    """All combinations of a few values of each hyperparameter, in an order drawn with the study's seed.

    Raises:
        BadInput: there are more than a million.
    """
    points = {name: _points(distribution) for name, distribution in distributions(config, n_train).items()}
    size = math.prod(map(len, points.values()))
    if size > LARGEST_GRID:
        raise BadInput(f"search: the grid has {size} points, more than {LARGEST_GRID}; fix some hyperparameters")
    # Combinations that differ only in what does not count are one.
    different: dict[tuple[Any, ...], dict[str, Any]] = {}
    defaults, rules = _defaults(config), conditions(config.declared)
    for values in itertools.product(*points.values()):
        full = {**defaults, **dict(zip(points, values, strict=True))}
        chosen = {name: full[name] for name in points if _counts(name, full, rules)}
        different[tuple(chosen.items())] = chosen
    combinations = list(different.values())
    order = np.random.default_rng(config.study.seed).permutation(len(combinations))
    return [combinations[i] for i in order]


def _points(distribution: BaseDistribution) -> list[Any]:
    """The values of one hyperparameter in the grid: all choices, all steps if they are few, else evenly spaced ones."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None and not distribution.log and (high - low) / step < FEW_STEPS:
        values = low + step * np.arange(int((high - low) / step + 1e-9) + 1)
    else:
        values = (np.geomspace if distribution.log else np.linspace)(low, high, GRID_POINTS)
    if isinstance(distribution, IntDistribution):
        return sorted({round(float(value)) for value in values})
    return [float(value) for value in np.clip(values, low, high)]


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
    return not isinstance(value, str) and contains(distribution, value)


def _defaults(config: Config) -> dict[str, Any]:
    """The values of what is not searched, and of the rest those that are tried first."""
    options = {option: getattr(config.descriptor, option) for option in DescriptorOptions.model_fields}
    options = {DESCRIPTOR + option: value for option, value in flat(options).items()}
    values = {**options, **config.declared.hyperparameters().model_dump(), **config.fixed}
    return {name: plain(value) for name, value in values.items()}


def _counts(name: str, values: Mapping[str, Any], rules: Mapping[str, Condition]) -> bool:
    if name not in rules:
        return True
    parent, needed = rules[name]
    return values[parent] in needed and _counts(parent, values, rules)
