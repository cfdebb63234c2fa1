"""Structures with energies: read, check, split, identify, make."""

from bdqm_tune.structures.builtin import builtin_structures
from bdqm_tune.structures.digest import digest, refuse_shared
from bdqm_tune.structures.read import Geometries, Structures, read_structures
from bdqm_tune.structures.sealed import Unlabelled, without_labels
from bdqm_tune.structures.split import split_indices

__all__ = [
    "Geometries",
    "Structures",
    "Unlabelled",
    "builtin_structures",
    "digest",
    "read_structures",
    "refuse_shared",
    "split_indices",
    "without_labels",
]
