"""The parameters of symmetry functions, given for all elements of the centre or for each, in one form."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from bdqm_tune.errors import BadInput

Parameters = dict[str, list[float]]
RANGES = {
    "etas": (0.0, math.inf, "0 or more"),
    "rs": (-math.inf, math.inf, "distances in Å"),
    "zetas": (1.0, math.inf, "1 or more"),
    "gammas": (-1.0, 1.0, "from -1 to 1"),
}


def cutoffs(given: float | Mapping[str, float], elements: Sequence[str]) -> dict[str, float]:
    """The cutoff of each element, Å. Raises BadInput if one is missing, unknown or not positive."""
    radii = dict(given) if isinstance(given, Mapping) else dict.fromkeys(elements, given)
    if "default" in radii:
        default = radii.pop("default")
        radii = {element: radii.pop(element, default) for element in elements} | radii
    if set(radii) != set(elements):
        raise BadInput(f"descriptor cutoff must be given for each of {', '.join(elements)}, got {', '.join(radii)}")
    for radius in radii.values():
        if not _is_number(radius) or not 0 < radius < math.inf:
            raise BadInput(f"descriptor cutoff must be a positive distance in Å, got {radius}")
    return {element: float(radii[element]) for element in elements}


def by_element(
    name: str, given: Mapping[str, Any] | None, elements: Sequence[str], keys: Sequence[str]
) -> dict[str, Parameters]:
    """The parameters of one kind of functions for each element that has such functions, each list ascending.

    Args:
        given: the lists named `keys`, for all elements; or a mapping of such for elements and `default`.

    Raises:
        BadInput: an unknown key, a missing list, or a value outside its range.
    """
    if given is None:
        return {}
    if not set(given) & {*elements, "default"}:
        given = {"default": given}
    unknown = [key for key in given if key not in (*elements, "default")]
    if unknown:
        raise BadInput(f"descriptor {name}: unknown element {', '.join(unknown)}; there are: {', '.join(elements)}")
    parameters = {}
    for element in elements:
        lists = given.get(element, given.get("default"))
        if lists:
            parameters[element] = _checked(f"descriptor {name}", lists, keys)
    return parameters


def _checked(where: str, lists: Any, keys: Sequence[str]) -> Parameters:
    if not isinstance(lists, Mapping) or set(lists) != set(keys):
        shown = ", ".join(map(str, lists)) if isinstance(lists, Mapping) else repr(lists)
        raise BadInput(f"{where} needs the lists {', '.join(keys)}, got {shown}")
    for key in keys:
        low, high, meaning = RANGES[key]
        values = lists[key].tolist() if isinstance(lists[key], np.ndarray) else lists[key]
        if not isinstance(values, list | tuple) or not values or any(values.count(value) > 1 for value in values):
            raise BadInput(f"{where}: {key} must be a list of different numbers, got {values!r}")
        if not all(_is_number(value) and math.isfinite(value) and low <= value <= high for value in values):
            raise BadInput(f"{where}: {key} must be {meaning}, got {values!r}")
    return {key: sorted(float(value) for value in lists[key]) for key in keys}


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
