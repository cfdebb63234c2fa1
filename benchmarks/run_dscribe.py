"""Symmetry functions of dscribe, for `symmetry_functions`; importing this imports dscribe, or raises ImportError.

dscribe's ACSF (Himanen et al., Comput. Phys. Commun. 247, 106949 (2020)) has the cosine cutoff alone, G2 and G4 as
here, etas in 1/Å² where ours are divided by the cutoff squared, and every pair of neighbours once. Before the G2 of
each neighbouring element it has a G1, the sum of the cutoff function, which cannot be left out: one more column for
each. Its pairs of elements are in another order. A descriptor knows periodic structures or molecules, not both.
Derivatives are dense, and differences of features, six of them for each atom; it has no analytical ones.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations_with_replacement, product
from typing import Any

import numpy as np
from ase import Atoms
from dscribe.descriptors import ACSF
from numpy.typing import NDArray

from bdqm_tune.descriptors import SymmetryFunctions


def descriptor(elements: Sequence[str], setting: Mapping[str, Any], periodic: bool) -> ACSF:
    """The functions that our options of `g2` and `g4`, with one cutoff, mean."""
    scale = setting["cutoff"] ** 2
    combined = {name: list(product(*(sorted(given) for given in setting[name].values()))) for name in ("g2", "g4")}
    combined = {name: [(eta / scale, *others) for eta, *others in given] for name, given in combined.items()}
    return ACSF(
        r_cut=setting["cutoff"],
        g2_params=combined["g2"],
        g4_params=combined["g4"],
        species=list(elements),
        periodic=periodic,
    )


def worker(of_structure: Callable[[Atoms], ACSF], derivatives: bool) -> Callable[[Atoms], object]:
    """What computes the features of one structure, or their derivatives besides, on one thread."""

    def work(atoms: Atoms) -> object:
        own = of_structure(atoms)
        return own.derivatives(atoms, method="numerical", attach=True) if derivatives else own.create(atoms)

    return work


def difference(ours: SymmetryFunctions, theirs: ACSF, atoms: Atoms) -> float:
    """The largest difference of the features that both have, as a share of the largest value."""
    found, expected = _in_our_order(theirs.create(atoms), theirs, len(ours.elements)), ours.compute(atoms)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _in_our_order(features: NDArray[np.float64], theirs: ACSF, n_elements: int) -> NDArray[np.float64]:
    """Features (n_atoms, n_features) without G1; dscribe orders pairs (second, first), second not before first."""
    n_g2, n_g4 = len(theirs.g2_params), len(theirs.g4_params)
    radial = features[:, : n_elements * (1 + n_g2)].reshape(len(features), n_elements, 1 + n_g2)[:, :, 1:]
    angular = features[:, n_elements * (1 + n_g2) :].reshape(len(features), -1, n_g4)
    pairs = [j * (j + 1) // 2 + i for i, j in combinations_with_replacement(range(n_elements), 2)]
    return np.hstack([radial.reshape(len(features), -1), angular[:, pairs].reshape(len(features), -1)])
