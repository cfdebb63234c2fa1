"""The problems that a validation found: each option once, by its own name, with what would be right."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from bdqm_tune.errors import shown

Place = tuple[int | str, ...]
WORDS = {bool: "true or false", str: "text", int: "a whole number", float: "a number", NoneType: "null"}


@dataclass(frozen=True)
class Problem:
    """An option that is not as it must be."""

    place: Place  # groups, option, and the place within it
    kind: str  # pydantic's
    message: str
    value: Any  # that was given


def problems(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """The problems of a validation of `model`; of an option that may be of several types, one.

    Pydantic reports a problem for each of these types, and puts the type's name into the place.
    """
    found: dict[Place, list[Problem]] = {}
    unions: dict[Place, Any] = {}
    for each in error.errors():
        place, depth, union = _located(model, each["loc"])
        option = place if union is None else place[:depth]
        unions[option] = union
        message = each["msg"].removeprefix("Value error, ")
        found.setdefault(option, []).append(Problem(place, each["type"], message, each["input"]))
    return [_one_of(option, several, unions[option]) for option, several in found.items()]


def _one_of(option: Place, several: list[Problem], union: Any) -> Problem:
    deepest = max(several, key=lambda problem: len(problem.place))
    if union is None or len(deepest.place) > len(option):  # an entry of a list, as one of the types is
        return deepest
    return Problem(option, "union", f"must be {valid_forms(union)}", deepest.value)


def _located(model: type[BaseModel], location: Place) -> tuple[Place, int, Any]:
    """The place without names of types; how long it is where the type is the first of several; and these."""
    place: list[int | str] = []
    depth = 0
    union: Any = None
    annotation: Any = model
    for key in location:
        types = [kind for kind in _types(annotation) if kind is not NoneType]
        if len(types) > 1:
            if union is None:
                depth, union = len(place), annotation
            annotation = next((kind for kind in types if str(key).startswith(_container(kind))), None)
        elif key != "[key]":  # of a mapping, not its value
            place.append(key)
            annotation = _within(types[0], key) if types else None
    return tuple(place), depth, union


def _types(annotation: Any) -> Iterator[Any]:
    """What an annotation consists of: the types of a union, else the one."""
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if get_origin(bare) in (Union, UnionType):
        for each in get_args(bare):
            yield from _types(each)
    elif bare is not None:
        yield annotation


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _container(annotation: Any) -> str:
    """How pydantic begins the name of a type that has entries."""
    origin = get_origin(_bare(annotation))
    return f"{origin.__name__}[" if origin in (list, dict) else "no container"


def _within(annotation: Any, key: int | str) -> Any:
    """The annotation of what an option of this annotation has under a key."""
    bare = _bare(annotation)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        return bare.model_fields[str(key)].annotation if key in bare.model_fields else None
    return get_args(bare)[-1] if get_origin(bare) in (list, dict) else None


def valid_forms(annotation: Any) -> str:
    """The values of an annotation in words: `'auto', a whole number from 1 to 1000 or null`."""
    words = [word for each in _types(annotation) for word in _words(each)]
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _words(annotation: Any) -> list[str]:
    bare = _bare(annotation)
    if get_origin(bare) is Literal:
        return [shown(value) for value in get_args(bare)]
    if get_origin(bare) is list:
        return [f"a list of {_plural(get_args(bare)[0])}"]
    return [f"{WORDS.get(bare, 'a mapping')}{_limits(annotation)}"]


def _plural(annotation: Any) -> str:
    names = {int: "whole numbers", float: "numbers", str: "texts"}
    return f"{names.get(_bare(annotation), 'values')}{_limits(annotation)}"


def _limits(annotation: Any) -> str:
    """` from 1 to 1000`, where the annotation has such limits."""
    given = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    limits: dict[str, Any] = {}
    for each in given:
        for limit in getattr(each, "metadata", [each]):
            limits |= {name: getattr(limit, name) for name in ("ge", "gt", "le", "lt") if hasattr(limit, name)}
    text = {"ge": " from {}", "gt": " above {}", "le": " to {}", "lt": " below {}"}
    if "le" in limits and "ge" not in limits:
        text["le"] = " and at most {}" if "gt" in limits else " of at most {}"
    return "".join(text[name].format(limits[name]) for name in text if name in limits)
