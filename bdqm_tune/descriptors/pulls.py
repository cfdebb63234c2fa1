"""From the derivative of an energy by the vector to each neighbour to forces and the derivative by a strain.

With R the vector from an atom i to a neighbour j, an image of an atom or that atom, and p = dE/dR the pull of the pair,
the force on i is +p, that on j is -p, and a strain moves R by strain·R: dE/d strain_ab = Σ p_a·R_b (virial theorem).
"""

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.compiled import compiled
from bdqm_tune.descriptors.base import EnergyDerivatives
from bdqm_tune.descriptors.neighbours import Neighbours

# Numba compiles one of these; the types are those that `energy_derivatives` has.
# mypy: disable-error-code="no-untyped-def"


def energy_derivatives(neighbours: Neighbours, pulls: NDArray[np.float64]) -> EnergyDerivatives:
    """Forces and derivatives by a strain of k energies from their pulls (k, n_pairs, 3), eV/Å."""
    forces = np.zeros((len(pulls), len(neighbours.start) - 1, 3))
    by_strain = np.zeros((len(pulls), 3, 3))
    _add_up(neighbours.start, neighbours.index, neighbours.vector, pulls, forces, by_strain)
    return EnergyDerivatives(forces, by_strain)


@compiled
def _add_up(start, index, vectors, pulls, forces, by_strain):
    for k in range(len(pulls)):
        for i in range(len(start) - 1):
            for pair in range(start[i], start[i + 1]):
                for a in range(3):
                    pull = pulls[k, pair, a]
                    forces[k, i, a] += pull
                    forces[k, index[pair], a] -= pull
                    for b in range(3):
                        by_strain[k, a, b] += pull * vectors[pair, b]
