"""Symmetry functions as lines of `input.nn`, and the order in which n2p2 numbers them."""

from collections.abc import Sequence
from typing import Any

from ase.data import atomic_numbers

from bdqm_tune.descriptors.symmetry_parameters import CutoffFunction, Function, Kind
from bdqm_tune.errors import BadInput, shown
from bdqm_tune.n2p2.units import FileUnits

TYPES: dict[str, Kind] = {"2": "G2", "3": "G4", "9": "G5"}
NUMBERS: dict[Kind, str] = {kind: number for number, kind in TYPES.items()}
# The number of a cutoff function in n2p2, with ours and gamma. A polynomial of gamma 2 is 1 - 3 x² + 2 x³.
CUTOFFS: dict[str, tuple[CutoffFunction, float | None]] = {
    "1": ("cosine", None),
    "2": ("tanh", None),
    "5": ("polynomial", 2.0),
    "6": ("quintic", None),
}


def parse_function(words: Sequence[str], units: FileUnits) -> tuple[str, Function]:
    """The centre's symbol and the function, from what follows `symfunction_short`.

    Raises:
        BadInput: a type of function that there is not here, or another number of words.
    """
    kind = TYPES.get(words[1]) if len(words) > 1 else None
    if kind is None:
        given = words[1] if len(words) > 1 else "none"
        raise BadInput(f"symmetry functions of type {shown(given)} are not supported, only {', '.join(TYPES)}")
    n = 1 if kind == "G2" else 2
    neighbours, numbers = words[2 : 2 + n], words[2 + n :]
    if len(numbers) != (3 if kind == "G2" else 4) and not (kind != "G2" and len(numbers) == 5 and _is_zero(numbers[4])):
        raise BadInput(f"a function of type {words[1]} needs {3 if kind == 'G2' else 4} numbers after its elements")
    eta, *others = [_number(word) for word in numbers]
    eta /= units.angstrom**2
    if kind == "G2":
        rs, cutoff = (value * units.angstrom for value in others)
        return words[0], Function(kind, tuple(neighbours), eta, cutoff, rs=rs)
    gamma, zeta, cutoff = others[:3]
    return words[0], Function(kind, tuple(neighbours), eta, cutoff * units.angstrom, zeta=zeta, gamma=gamma)


def function_line(centre: str, function: Function, units: FileUnits) -> str:
    """What follows `symfunction_short` for a function."""
    return " ".join([centre, NUMBERS[function.kind], *function.neighbours, *map(repr, _numbers(function, units))])


def order(functions: Sequence[Function], units: FileUnits) -> list[int]:
    """The places of functions of one centre in the order in which n2p2 numbers them.

    By type, cutoff, eta, then R_s, or zeta and lambda, then elements: by the numbers in the file, where two may be
    equal that differ by rounding in other units.
    """

    def key(place: int) -> tuple[Any, ...]:
        function = functions[place]
        eta, *others, cutoff = _numbers(function, units)
        elements = sorted(atomic_numbers[symbol] for symbol in function.neighbours)
        # The file has lambda before zeta, n2p2 sorts by zeta first.
        return int(NUMBERS[function.kind]), cutoff, eta, others[::-1], elements

    return sorted(range(len(functions)), key=key)


def _numbers(function: Function, units: FileUnits) -> list[float]:
    """The numbers of a function in the file."""
    eta, cutoff = function.eta * units.angstrom**2, function.cutoff / units.angstrom
    return [
        eta,
        *([function.rs / units.angstrom] if function.kind == "G2" else [function.gamma, function.zeta]),
        cutoff,
    ]


def _is_zero(word: str) -> bool:
    return _number(word) == 0


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise BadInput(f"{shown(word)} is no number") from None
