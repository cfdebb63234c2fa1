"""The option `target.reference_energies`: how to come by the energies of the elements, or the energies themselves."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from bdqm_tune.config.yaml_files import parse_yaml
from bdqm_tune.errors import BadInput, shown

Word = Literal["fit", "isolated_atoms", "none"]
ReferenceOption = Word | dict[str, float | Literal["fit"]]  # by symbol, eV
FORMS = "fit, isolated_atoms, none, or energies in eV as {Cu: -3.7, O: fit}"


def parse_reference_energies(value: Any) -> ReferenceOption:
    """The option as it is kept: a word, or energies (eV) by symbol, in the order of atomic numbers.

    Args:
        value: may be text, as a command line gives it; elements may be atomic numbers, and the word MACE's.

    Raises:
        ValueError: it is none of these; the message says what is.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = parse_yaml(value)
        except BadInput as error:
            raise ValueError(f"{error}; it is {FORMS}") from None
    if isinstance(value, str) and value in ("fit", "isolated_atoms", "none", "IsolatedAtom"):
        return "isolated_atoms" if value == "IsolatedAtom" else value  # type: ignore[return-value]
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"must be {FORMS}; got {shown(value)}")
    from ase.data import chemical_symbols  # what reads a configuration alone need not import it

    energies: dict[int, float | Literal["fit"]] = {}
    for name, energy in value.items():
        z = _atomic_number(name)
        if z in energies:
            raise ValueError(f"{chemical_symbols[z]} is given twice, by its symbol and its atomic number")
        energies[z] = _energy(chemical_symbols[z], energy)
    return {chemical_symbols[z]: energies[z] for z in sorted(energies)}


def _atomic_number(name: Any) -> int:
    from ase.data import atomic_numbers, chemical_symbols

    if isinstance(name, bool):  # as YAML reads the symbol No
        raise ValueError(f"an element is a symbol, as Cu, or an atomic number; got {shown(name)}")
    text = str(name).strip()
    z = int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else atomic_numbers.get(text, 0)
    if not 1 <= z < len(chemical_symbols):
        raise ValueError(f"an element is a symbol, as Cu, or an atomic number; got {shown(name)}")
    return int(z)


def _energy(symbol: str, value: Any) -> float | Literal["fit"]:
    if value == "fit":
        return "fit"
    try:
        if isinstance(value, bool):
            raise ValueError
        energy = float(value)  # text, too: YAML takes -1.6e3 for one
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{symbol}: must be an energy in eV, or fit; got {shown(value)}") from None
    if not math.isfinite(energy):
        raise ValueError(f"{symbol}: must be finite, got {energy}")
    return energy
