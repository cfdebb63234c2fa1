"""The content of `search`: ranges, choices and fixed values of hyperparameters and of the descriptor's options."""

import json
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from bdqm_tune.config.descriptor_options import OWN, DescriptorFields
from bdqm_tune.config.options import Options, takes_any
from bdqm_tune.config.problems import problems
from bdqm_tune.config.yaml_files import parse_yaml
from bdqm_tune.errors import BadInput, shown

DESCRIPTOR = "descriptor."  # before the name of a descriptor's option
KINDS = ("int", "float", "choice")


class Space(Options):
    """The range of one hyperparameter: numbers from low to high, or a list of choices."""

    kind: Literal["int", "float", "choice"]
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    choices: tuple[bool | int | float | str, ...] = ()


def parse_space(name: str, entry: Any, hyperparameters: type[Options]) -> Any:
    """One entry of `search`: a `Space`, or the value that a plain entry fixes the hyperparameter to.

    Args:
        hyperparameters: those of the backend.

    Raises:
        ValueError: the name is no hyperparameter, the range is empty or outside what the hyperparameter takes.
    """
    if not is_space(name, entry):
        return check_value(name, entry, hyperparameters)
    type_name = _type_name(name, hyperparameters)
    kinds = [kind for kind in KINDS if kind in entry]
    extra = set(entry) - {*KINDS, "log", "step"}
    if len(kinds) != 1 or extra:
        raise ValueError(f"{name}: needs one of int, float, choice, and may have log or step; got {shown(dict(entry))}")
    kind, given = kinds[0], entry[kinds[0]]
    if name == "hidden_layers":
        raise ValueError(
            "hidden_layers: takes one list of layers, not a range; search num_layers and num_nodes instead"
        )
    if not isinstance(given, list | tuple) or not given:
        raise ValueError(f"{name}: {kind} needs a list, got {shown(given)}")
    if kind == "choice":
        return Space(kind="choice", choices=tuple(plain(check_value(name, value, hyperparameters)) for value in given))
    if kind != type_name and type_name:
        raise ValueError(f"{name}: {kind} does not fit a {type_name}")
    if len(given) != 2:
        raise ValueError(f"{name}: {kind} needs [low, high], got {shown(given)}")
    low, high = (check_value(name, value, hyperparameters) for value in given)
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        raise ValueError(f"{name}: {kind} needs two numbers, got {shown(given)}")
    if bool in (type(low), type(high)) or (kind == "int" and {type(low), type(high)} != {int}):  # of any name
        raise ValueError(f"{name}: {kind} needs two {'integers' if kind == 'int' else 'numbers'}, got {shown(given)}")
    log, step = entry.get("log", False), entry.get("step")
    if not isinstance(log, bool):
        raise ValueError(f"{name}: log must be true or false, got {shown(log)}")
    if low >= high:
        raise ValueError(f"{name}: the range [{low}, {high}] is empty; give a plain value to fix it")
    if step is not None and (log or type(step) not in (int, {"int": int, "float": float}[kind]) or step <= 0):
        raise ValueError(f"{name}: step must be a positive {kind}, and not together with log; got {shown(step)}")
    if step is not None and step > high - low:
        raise ValueError(f"{name}: step must fit into the range [{low}, {high}], got {step}")
    if log and low <= 0:
        raise ValueError(f"{name}: a logarithmic range must begin above 0, got {low}")
    return Space(kind="int" if kind == "int" else "float", low=low, high=high, log=log, step=step)


def is_space(name: str, entry: Any) -> bool:
    """Whether an entry of `search` is a range or a choice; some options take a mapping as their value."""
    if not isinstance(entry, Mapping):
        return False
    return any(kind in entry for kind in KINDS) or name not in MAPPINGS


def check_value(name: str, value: Any, hyperparameters: type[Options] = DescriptorFields) -> Any:
    """The value as the type of the hyperparameter or the descriptor's option.

    Lists and mappings may be given as text, `[0, 1, 2]`, as a command line and Optuna hold them.

    Args:
        hyperparameters: those of the backend, where the name may be of one.

    Raises:
        ValueError: with what would be right.
    """
    model, field = _declared(name, hyperparameters)
    given = value
    if name.startswith(DESCRIPTOR) and isinstance(value, str) and (value == "null" or value.startswith(("[", "{"))):
        try:
            given = parse_yaml(value)
        except BadInput:
            raise ValueError(f"{name}: not a list or a mapping: {shown(value)}") from None
    if field.startswith(OWN):  # checked with the descriptor, which declares it
        return given
    try:
        return getattr(model(**{field: given}), field)
    except ValidationError as error:
        raise ValueError(f"{name}: {problems(error, model)[0].message}, got {shown(value)}") from None


def plain(value: Any) -> Any:
    """A value as Optuna and MLflow take it: a truth value, number or text; JSON of what is none of these."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def _declared(name: str, hyperparameters: type[Options]) -> tuple[type[Options], str]:
    """Where a hyperparameter or an option of the descriptor is declared, and its name there."""
    model, what, field = hyperparameters, "hyperparameter", name
    if name.startswith(DESCRIPTOR):
        model, what, field = DescriptorFields, "option of the descriptor", name.removeprefix(DESCRIPTOR)
        if field.startswith(OWN):
            return model, field
        if field == "options":
            raise ValueError(f"{name}: give the options one by one, as {DESCRIPTOR}{OWN}NAME")
    if field not in model.model_fields and not takes_any(model):
        raise ValueError(f"unknown {what} {shown(name)}; there are: {', '.join(model.model_fields)}")
    return model, field


def _type_name(name: str, hyperparameters: type[Options]) -> str:
    """Of what a hyperparameter takes: int, float or bool; list or mapping; else choice; "" where it is not declared."""
    model, field = _declared(name, hyperparameters)
    if field not in model.model_fields:
        return ""
    return kind_of(model.model_fields[field].annotation)


def kind_of(annotation: Any) -> str:
    """Of what an option takes, by its annotation: int, float or bool; list or mapping; else choice."""
    names = {int: "int", float: "float", bool: "bool", list: "list", dict: "mapping"}
    kind = _without_alternatives(annotation)
    return names.get(get_origin(kind) or kind, "choice")


def _without_alternatives(annotation: Any) -> Any:
    """The first type of a union, without what is annotated to it."""
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return _without_alternatives(get_args(annotation)[0])
    return annotation


MAPPINGS = {
    DESCRIPTOR + option
    for option in DescriptorFields.model_fields
    if option != "options" and _type_name(DESCRIPTOR + option, DescriptorFields) == "mapping"
}
