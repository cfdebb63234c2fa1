"""Structures with energies: read, checked, split, identified, and sealed for the test.

In: any files that ASE reads. Out: `Structures` (atoms, energies in eV, forces in eV/Å, stress in eV/Å³), their
digest, indices of a split, and `Unlabelled` test structures whose labels are stored separately. Called by: `learning`,
`descriptors`, `backends`, `study`, `models`, `evaluation`, `admin`, `cli`.
"""

from bdqm_tune.structures.builtin import builtin_structures
from bdqm_tune.structures.copies import Copies, find_copies, refuse_shared, turned_copies
from bdqm_tune.structures.digest import digest
from bdqm_tune.structures.isolated import isolated_energies, without_isolated_atoms
from bdqm_tune.structures.read import Geometries, Structures, read_structures
from bdqm_tune.structures.sealed import Unlabelled, without_labels
from bdqm_tune.structures.sources import shown_source
from bdqm_tune.structures.split import fold_indices, split_indices
from bdqm_tune.structures.trajectory import trajectory_note

__all__ = [
    "Copies",
    "Geometries",
    "Structures",
    "Unlabelled",
    "builtin_structures",
    "digest",
    "find_copies",
    "fold_indices",
    "isolated_energies",
    "read_structures",
    "refuse_shared",
    "shown_source",
    "split_indices",
    "trajectory_note",
    "turned_copies",
    "without_isolated_atoms",
    "without_labels",
]
