"""Structures as mace's graphs: atoms, edges within the cutoff, and labels with weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.backends.mace_import import import_mace
from bdqm_tune.learning.potential import periodic_volume
from bdqm_tune.learning.targets import ReferenceEnergies
from bdqm_tune.structures import Structures

HEAD = "Default"  # mace's name of the only one


def bare_graph(atoms: Atoms, numbers: Sequence[int], r_max: float) -> Any:
    """The graph of a structure without labels, in torch's default type.

    Args:
        numbers: atomic numbers of the elements of the model.
        r_max: Å.
    """
    return _graph(atoms, numbers, r_max, {})


def labelled_graphs(
    structures: Structures, references: ReferenceEnergies, numbers: Sequence[int], r_max: float
) -> list[Any]:
    """The graphs of structures, with energies less their reference energies, eV, and what else is trained.

    A label that a structure has not is 0 there, with weight 0.

    Args:
        numbers, r_max: as in `bare_graph`.
    """
    energies = structures.energies - references.of(structures.atoms)
    forces: Sequence[NDArray[np.float64] | None] = structures.forces or [None] * len(structures)
    stresses = structures.stresses if structures.stress_counts else np.full((len(structures), 6), np.nan)
    found = []
    for atoms, energy, pulls, stress in zip(structures.atoms, energies, forces, stresses, strict=True):
        labels = {
            "energy": float(energy),
            "forces": None if pulls is None or np.isnan(pulls).any() else pulls,
            "stress": None if np.isnan(stress).any() else stress,
        }
        found.append(_graph(atoms, numbers, r_max, labels))
    return found


def _graph(atoms: Atoms, numbers: Sequence[int], r_max: float, labels: dict[str, Any]) -> Any:
    mace = import_mace()
    configuration = mace.data.Configuration(
        atomic_numbers=atoms.get_atomic_numbers(),
        positions=atoms.get_positions(),
        cell=np.array(atoms.cell),  # a copy, which mace changes
        pbc=tuple(bool(periodic) for periodic in atoms.pbc),
        properties=labels,  # the stress in Voigt's order, as here
        property_weights={name: float(label is not None) for name, label in labels.items()},
        head=HEAD,
    )
    table = mace.tools.AtomicNumberTable(list(numbers))
    graph = mace.data.AtomicData.from_config(configuration, z_table=table, cutoff=r_max, heads=[HEAD])
    graph.stretch = torch.tensor(1.0)
    if labels.get("stress") is not None and not atoms.pbc.all():
        # Where a structure is not periodic mace makes the cell longer, and its stress as much smaller: so is the label
        # made, and its weight larger.
        stretch = abs(float(np.linalg.det(graph.cell.numpy()))) / periodic_volume(atoms)
        graph.stretch = torch.tensor(stretch)
        graph.stress = graph.stress / stretch
        graph.stress_weight = graph.stress_weight * stretch**2
    return graph


def elements_of(*parts: Structures) -> list[int]:
    """Atomic numbers of the elements of structures, ascending."""
    numbers: list[NDArray[np.int64]] = [atoms.numbers for part in parts for atoms in part.atoms]
    return [int(z) for z in np.unique(np.concatenate(numbers))]
