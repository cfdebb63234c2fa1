"""Descriptors: features of the neighbourhood of each atom, with derivatives by the positions.

In: atoms, and the options of a descriptor (GMP, symmetry functions). Out: features (n_atoms, n_features) and
sparse derivatives, 1/Å, and by a strain, computed once for a set of structures and cached (`stored_…`).
Called by: `learning`, `backends`, `amptorch_import`, `n2p2`, `models`, `tuning`, `evaluation`, `compilation`,
`testing`. To add one: a subclass of `Descriptor`, a line and a case in `descriptors.make`, and its options in
`config.descriptor_options`; from another package, see `examples/plugin`.
"""

from bdqm_tune.descriptors.base import Descriptor, SparseDerivatives
from bdqm_tune.descriptors.derivative_store import StoredDerivatives, stored_derivatives
from bdqm_tune.descriptors.gmp import GMP
from bdqm_tune.descriptors.gmp_groups import GMPGroups
from bdqm_tune.descriptors.make import descriptor_from_options, descriptor_from_settings
from bdqm_tune.descriptors.store import StoredFeatures, stored_features
from bdqm_tune.descriptors.strain_store import stored_strain_derivatives
from bdqm_tune.descriptors.symmetry_functions import SymmetryFunctions

__all__ = [
    "GMP",
    "Descriptor",
    "GMPGroups",
    "SparseDerivatives",
    "StoredDerivatives",
    "StoredFeatures",
    "SymmetryFunctions",
    "descriptor_from_options",
    "descriptor_from_settings",
    "stored_derivatives",
    "stored_features",
    "stored_strain_derivatives",
]
