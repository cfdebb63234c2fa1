"""Backends as they declare themselves: all that the platform knows of one before it trains.

Search space, `--set`, MLflow's parameters, tables and figures follow from the declaration. One file here for each
backend of this package; others declare theirs under the entry point `bdqm_tune.backends`. Importing a declaration
imports nothing that trains: `make` and `load` are named, and imported when they are used.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from operator import attrgetter
from typing import Any

from bdqm_tune.config.options import Condition, Label, Options, conditions_of, search_of, weights_of
from bdqm_tune.errors import BadInput, one_line, shown
from bdqm_tune.plugins import load_plugin, plugin_names

BUILT_IN: Mapping[str, str] = {
    "native": "bdqm_tune.config.backends.native:NATIVE",
    "amptorch": "bdqm_tune.config.backends.amptorch:AMPTORCH",
    "mace": "bdqm_tune.config.backends.mace:MACE",
    "command": "bdqm_tune.config.backends.command:COMMAND",
}
ALLOW = "BDQM_ALLOW_COMMANDS"  # variable: 1 lets code run that a stored model or configuration names


class NoOptions(Options):
    """Of a backend without options of its own."""


@dataclass(frozen=True)
class Declaration:
    """What a backend is: declared once, with no import of what trains.

    Attributes:
        name: in configurations, as `backend: NAME`.
        meaning: one line for the table of backends.
        hyperparameters: of a trial, each a `config.options.hyperparameter`.
        make: `module:callable` of a configuration and a dataset; returns a `bdqm_tune.backends.Backend`.
        load: `module:callable` of the folder of a saved model; returns a `bdqm_tune.learning.potential.Potential`.
        options: `backend_options` in a configuration, the same for all trials.
        features: whether it trains on the features of `descriptor`; else these are not computed and not searched.
        folds: whether it trains the networks of `data.validation.folds`.
        parallel: whether several trials may train in one process at the same time.
        forces, stress: values of `training.forces` and `training.stress` that it can do.
        packages: names, as on the package index, of what reading one of its models needs beside this package.
        unused: options of `training` that it does not follow, which are refused unless they have their defaults.
        searches: other search spaces, by the name that `search` may have.
        tried_first: configurations of `study.enqueue: auto`; what one leaves out has its default.
        complete: gives a configuration's content with what the backend sets where nothing is given.
        complete_search: merges the default search space with what a configuration gives; raises ValueError.
        check: raises ValueError for a configuration that it cannot do.
        compared: gives those of `backend_options` in which trials of one study must agree.
        runs_code: what `backend_options` would have run, as a command or a pickle; "": nothing. A configuration that
            comes from a store, which others may write to, then needs the user's consent, see `refuse_foreign_code`.
    """

    name: str
    meaning: str
    hyperparameters: type[Options]
    make: str
    load: str
    options: type[Options] = NoOptions
    features: bool = False
    folds: bool = False
    parallel: bool = False
    forces: tuple[Any, ...] = (True, False, "auto")
    stress: tuple[Any, ...] = (True, False, "auto")
    packages: tuple[str, ...] = ()
    unused: frozenset[str] = frozenset()
    searches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tried_first: tuple[Mapping[str, Any], ...] = ({},)
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda content: content
    complete_search: Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]] = lambda default, given: {
        **default,
        **given,
    }
    check: Callable[[Any], None] = lambda config: None
    compared: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda options: options
    runs_code: Callable[[Mapping[str, Any]], str] = lambda options: ""

    @cached_property
    def search(self) -> dict[str, Any]:
        """The default search space."""
        return search_of(self.hyperparameters)

    @cached_property
    def conditions(self) -> dict[str, Condition]:
        """What has to be so for a hyperparameter to count."""
        return conditions_of(self.hyperparameters)

    @cached_property
    def weights(self) -> dict[str, Label]:
        """The hyperparameters that weigh a label, which has to be trained."""
        return weights_of(self.hyperparameters)


def refuse_foreign_code(code: str, where: str) -> None:
    """Refuse code that a store names, unless the user allows it.

    Args:
        code: what would be run.
        where: what names it, in the message.

    Raises:
        BadInput: `BDQM_ALLOW_COMMANDS` is not 1.
    """
    if os.environ.get(ALLOW) != "1":
        raise BadInput(
            f"{where}: would run {shown(code)}, which is not from your configuration but stored with it; where you "
            f"trust it, set {ALLOW}=1 for this command"
        )


@cache
def find_backend(name: str) -> Declaration:
    """The declaration of a backend.

    Raises:
        BadInput: there is none of this name, or its package does not load.
    """
    if (where := BUILT_IN.get(name)) is not None:
        found: Declaration = named(where)
        return found
    others = plugin_names("backend")
    if name not in others:
        raise BadInput(f"unknown backend {name!r}; there are: {', '.join([*BUILT_IN, *others])}")
    declared = load_plugin("backend", name)
    if not isinstance(declared, Declaration):
        raise BadInput(f"backend {name!r}: declares a {type(declared).__name__}, not a Declaration")
    return declared


def named(where: str) -> Any:
    """What `module:name` names.

    Raises:
        BadInput: it cannot be imported; the message has the reason.
    """
    module, _, name = where.partition(":")
    try:
        return attrgetter(name)(import_module(module))
    except BadInput:  # of a module that says itself what it needs
        raise
    except (Exception, SystemExit) as error:  # whatever a package of others does when it is imported
        raise BadInput(f"{where} does not load: {type(error).__name__}: {one_line(error)}") from None
