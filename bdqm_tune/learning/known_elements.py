"""Elements that a model was trained on; of others its predictions are guesses, and are refused unless allowed."""

import warnings
from collections.abc import Collection, Sequence

from ase import Atoms
from ase.data import chemical_symbols

from bdqm_tune.errors import BadInput


class UnknownElement(UserWarning):
    """A model predicts a structure with an element that it was not trained on."""


def unknown_elements(known: Collection[int] | None, structures: Sequence[Atoms]) -> list[str]:
    """Symbols of the elements of structures that are not among the known ones, by atomic number.

    Args:
        known: atomic numbers; None: not known which, and none is unknown.
    """
    if known is None:
        return []
    present = {z for atoms in structures for z in set(atoms.numbers.tolist())}
    return [chemical_symbols[z] for z in sorted(present.difference(known))]


def check_elements(known: Collection[int] | None, structures: Sequence[Atoms], allow_unknown: bool) -> None:
    """Refuse structures with elements that are not known, or warn of them.

    Raises:
        BadInput: there are such elements, and they are not allowed.
    """
    unknown = unknown_elements(known, structures)
    if not unknown:
        return
    assert known is not None
    what = f"the model was not trained on {', '.join(unknown)}, but on {_symbols(known)}"
    if not allow_unknown:
        raise BadInput(f"{what}; allow_unknown_elements (--allow-unknown-elements) predicts all the same")
    warnings.warn(f"{what}: what it predicts of them is a guess", UnknownElement, stacklevel=3)


def _symbols(known: Collection[int]) -> str:
    return ", ".join(chemical_symbols[z] for z in sorted(known))
