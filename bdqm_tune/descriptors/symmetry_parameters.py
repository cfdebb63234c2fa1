"""The parameters of symmetry functions: all combinations of some lists, or one by one; in one form."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement, product
from numbers import Real
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from bdqm_tune.errors import BadInput

Kind = Literal["G2", "G4", "G5"]
CutoffFunction = Literal["cosine", "polynomial", "quintic", "tanh"]
Parameters = dict[str, list[float]]
# What a single function needs beside its kind and the elements of its neighbours, with the range of each.
OF_FUNCTION: dict[Kind, tuple[str, ...]] = {
    "G2": ("eta", "rs", "cutoff"),
    "G4": ("eta", "zeta", "gamma", "cutoff"),
    "G5": ("eta", "zeta", "gamma", "cutoff"),
}
RANGES = {
    "etas": (0.0, math.inf, "0 or more"),
    "rs": (-math.inf, math.inf, "in Å"),
    "zetas": (1.0, math.inf, "1 or more"),
    "gammas": (-1.0, 1.0, "from -1 to 1"),
    "cutoff": (5e-324, math.inf, "a positive distance in Å"),
}
RANGES |= {"eta": RANGES["etas"], "zeta": RANGES["zetas"], "gamma": RANGES["gammas"]}


class Function(NamedTuple):
    """One symmetry function."""

    kind: Kind
    neighbours: tuple[str, ...]  # symbols: of one element for G2, of two for G4 and G5
    eta: float  # 1/Å²
    cutoff: float  # Å
    rs: float = 0.0  # Å, of G2
    zeta: float = 1.0  # of G4 and G5
    gamma: float = 1.0  # of G4 and G5

    @property
    def options(self) -> dict[str, Any]:
        """As one gives it, see `listed`."""
        values = self._asdict()
        return {"kind": self.kind, "neighbours": list(self.neighbours)} | {
            name: values[name] for name in OF_FUNCTION[self.kind]
        }


def combined(
    elements: Sequence[str], cutoff: float, g2: Parameters | None, g4: Parameters | None, g5: Parameters | None
) -> list[Function]:
    """The functions of one element of the centre, all combinations: see `SymmetryFunctions` for their order."""
    pairs = list(combinations_with_replacement(elements, 2))
    functions = [
        Function("G2", (element,), eta * (1 / cutoff**2), cutoff, rs=rs)
        for element in elements
        for eta, rs in product(*_lists(g2, "etas", "rs"))
    ]
    for kind, given, scale in (("G4", g4, 1 / cutoff**2), ("G5", g5, 1.0)):
        functions += [
            Function(cast(Kind, kind), pair, eta * scale, cutoff, zeta=zeta, gamma=gamma)
            for pair in pairs
            for eta, zeta, gamma in product(*_lists(given, "etas", "zetas", "gammas"))
        ]
    return functions


def _lists(given: Parameters | None, *names: str) -> Iterator[list[float]]:
    return (given[name] if given else [] for name in names)


def listed(given: Mapping[str, Any], elements: Sequence[str]) -> dict[str, list[Function]]:
    """Functions that are given one by one, for each element of the centre, in the order given.

    Args:
        given: by the centre's symbol a list of mappings, as {"kind": "G2", "neighbours": ["O"], "eta": 0.5, "rs": 0.0,
            "cutoff": 6.0} or {"kind": "G4", "neighbours": ["H", "O"], "eta": 0.5, "zeta": 2.0, "gamma": -1.0,
            "cutoff": 6.0}: eta in 1/Å², rs and cutoff in Å.

    Raises:
        BadInput: an element without functions or without a name among `elements`, or a function that is none.
    """
    if not isinstance(given, Mapping) or set(given) != set(elements):
        shown = ", ".join(map(str, given)) if isinstance(given, Mapping) else repr(given)
        raise BadInput(f"descriptor functions must be given for each of {', '.join(elements)}, got {shown}")
    functions = {}
    for element in elements:
        if not isinstance(given[element], list | tuple) or not given[element]:
            raise BadInput(f"descriptor functions of {element} must be a list of functions, got {given[element]!r}")
        functions[element] = [
            _function(f"function {n} of {element}", one, elements) for n, one in enumerate(given[element], 1)
        ]
    return functions


def _function(where: str, given: Any, elements: Sequence[str]) -> Function:
    kind = given.get("kind") if isinstance(given, Mapping) else None
    if kind not in OF_FUNCTION:
        raise BadInput(f"descriptor {where}: kind must be {', '.join(OF_FUNCTION)}, got {kind if kind else given!r}")
    names = OF_FUNCTION[cast(Kind, kind)]
    if set(given) != {"kind", "neighbours", *names}:
        raise BadInput(
            f"descriptor {where} needs kind, neighbours, {', '.join(names)}, got {', '.join(map(str, given))}"
        )
    neighbours, n = given["neighbours"], 1 if kind == "G2" else 2
    if not isinstance(neighbours, list | tuple) or len(neighbours) != n or not set(neighbours) <= set(elements):
        raise BadInput(f"descriptor {where}: neighbours must be {n} of {', '.join(elements)}, got {neighbours!r}")
    for name in names:
        low, high, meaning = RANGES[name]
        if not _is_number(given[name]) or not (math.isfinite(given[name]) and low <= given[name] <= high):
            raise BadInput(f"descriptor {where}: {name} must be {meaning}, got {given[name]!r}")
    first_last = sorted(neighbours, key=list(elements).index)
    return Function(cast(Kind, kind), tuple(first_last), **{name: float(given[name]) for name in names})


def cutoffs(given: float | Mapping[str, float] | None, elements: Sequence[str]) -> dict[str, float]:
    """The cutoff of each element, Å. Raises BadInput if one is missing, unknown or not positive."""
    radii = dict(given) if isinstance(given, Mapping) else dict.fromkeys(elements, cast(float, given))
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
