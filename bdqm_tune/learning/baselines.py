"""Baselines: energies predicted without a network, which a model must improve on."""

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.learning.targets import fit_reference_energies
from bdqm_tune.structures import Geometries, Structures

MEAN, REFERENCE = "baseline_mean", "baseline_reference"  # prefixes of the names of their metrics


def baseline_energies(train: Structures, test: Geometries) -> dict[str, NDArray[np.float64]]:
    """Energies (n_structures,), eV, of the test structures, from the training split alone.

    Returns:
        `MEAN`: the mean total energy of the training split; `REFERENCE`: sums of the reference energies fitted to it.
    """
    references = fit_reference_energies(train.atoms, train.energies)
    return {MEAN: np.full(len(test), train.energies.mean()), REFERENCE: references.of(test.atoms)}
