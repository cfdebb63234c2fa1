"""Structures with energies: read, check, split, identify, make."""

from bdqm_tune.structures.builtin import builtin_structures
from bdqm_tune.structures.digest import digest, refuse_shared
from bdqm_tune.structures.read import Structures, read_structures
from bdqm_tune.structures.split import split_indices

__all__ = ["Structures", "builtin_structures", "digest", "read_structures", "refuse_shared", "split_indices"]
