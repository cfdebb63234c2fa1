"""Isolated atoms: frames of one atom whose energies are the reference energies of the elements."""

from typing import Any

from ase import Atoms
from ase.data import chemical_symbols

from bdqm_tune.errors import BadInput
from bdqm_tune.structures.read import Structures

TOLERANCE = 1e-6  # eV, between frames of the same element
HOW = "an isolated atom is a frame of one atom with config_type=IsolatedAtom"


def without_isolated_atoms(structures: Structures) -> Structures:
    """The structures that are no isolated atoms. Raises BadInput if none is left."""
    rest = [i for i, atoms in enumerate(structures.atoms) if not is_isolated(atoms)]
    if not rest:
        raise BadInput(f"{structures.source}: all its structures are isolated atoms, which are not trained on")
    return structures if len(rest) == len(structures) else structures.select(rest)


def isolated_energies(structures: Structures) -> dict[int, float]:
    """The energies of the isolated atoms among the structures, eV, by atomic number.

    Raises:
        BadInput: there is none, one has several atoms, or two of an element have different energies.
    """
    energies: dict[int, float] = {}
    first: dict[int, int] = {}
    for atoms, energy, image in zip(structures.atoms, structures.energies, structures.images.tolist(), strict=True):
        if not is_isolated(atoms):
            continue
        if len(atoms) != 1:
            raise BadInput(
                f"{structures.source}, image {image}: has config_type=IsolatedAtom and {len(atoms)} atoms; {HOW}"
            )
        z = int(atoms.numbers[0])
        if abs(energies.setdefault(z, float(energy)) - energy) > TOLERANCE:
            raise BadInput(
                f"{structures.source}: the isolated atoms of {chemical_symbols[z]} in images {first[z]} and {image} "
                f"have different energies, {energies[z]} and {energy} eV; leave one"
            )
        first.setdefault(z, image)
    if not energies:
        raise BadInput(
            f"{structures.source}: target.reference_energies: isolated_atoms needs a frame of each element with "
            f"config_type=IsolatedAtom, and there is none; or give the energies, as {{Cu: -3.7}}, or fit"
        )
    return energies


def is_isolated(atoms: Atoms) -> bool:
    """Whether a frame is marked as an isolated atom, as MACE (`IsolatedAtom`) and GAP (`isolated_atom`) do."""
    return _mark(atoms.info.get("config_type")) == "isolatedatom"


def _mark(config_type: Any) -> str:
    return str(config_type).replace("_", "").replace("-", "").replace(" ", "").lower()
