"""What energies are predicted without a network: what a model must be better than."""

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.learning.targets import fit_reference_energies
from bdqm_tune.structures import Geometries, Structures

MEAN, REFERENCE = "baseline_mean", "baseline_reference"  # before the names of their metrics


def baseline_energies(train: Structures, test: Geometries) -> dict[str, NDArray[np.float64]]:
    """Energies (n_structures,), eV, of the test structures by what the training split alone says.

    Returns:
        the mean total energy of the training split, and the sums of reference energies that are fitted to it.
    """
    references = fit_reference_energies(train.atoms, train.energies)
    return {MEAN: np.full(len(test), train.energies.mean()), REFERENCE: references.of(test.atoms)}
