"""What plain networks contribute to the energy for each atom, and its derivative by their inputs, compiled."""

import numpy as np

from bdqm_tune.compiled import compiled_fast
from bdqm_tune.learning.compiled.backward import backward
from bdqm_tune.learning.compiled.kernel import TILE
from bdqm_tune.learning.compiled.passes import Work, forward

# Numba compiles this.
# mypy: disable-error-code="no-untyped-def"


@compiled_fast
def contribute(net, weights, running, place, x, energies, by_inputs):
    """Write energies (n_atoms,) and, unless it is empty, `by_inputs` (n_atoms, n_features), in the network's precision.

    Args:
        weights: (n_networks, n) of networks that have a layout in common.
        running: (n_networks, m) means and variances of batch normalisation.
        place: (n_atoms,) the network of each atom; another number: none, which contributes 0.
        x: (n_atoms, n_features).
    """
    derive = len(by_inputs) > 0
    most, n_features = min(TILE, len(x)), x.shape[1]
    n_hidden, widest = 0, 0
    for width in net.widths[1:-1]:
        n_hidden += width
        widest = max(widest, width)
    size, large, dtype = n_hidden * most, widest * most, x.dtype
    none = np.empty(0, dtype)
    work = Work(
        np.empty(size, dtype), np.empty(size, dtype), none, np.empty(size, dtype), none, none, none,
        np.empty(n_hidden, dtype), np.empty(n_hidden, dtype), np.empty(n_hidden, dtype), np.empty(n_hidden, dtype),
        np.empty(large, dtype), np.empty(large, dtype), np.empty(large, dtype), none,
    )  # fmt: skip
    tile, by_tile = np.empty((most, n_features), dtype), np.empty((most, n_features), dtype)
    outer, of_tile = np.ones(most, dtype), np.empty(most, dtype)
    energies[:] = 0
    by_inputs[:] = 0
    for k in range(len(weights)):
        own = np.flatnonzero(place == k)
        for first in range(0, len(own), TILE):
            atoms = own[first : first + TILE]
            n = len(atoms)
            for a in range(n):
                for f in range(n_features):
                    tile[a, f] = x[atoms[a], f]
            forward(net, weights[k], running[k], tile[:n], work, of_tile, False, False, np.uint64(0), n)
            for a in range(n):
                energies[atoms[a]] = of_tile[a]
            if derive:
                backward(net, weights[k], tile[:n], work, outer, none, False, False, by_tile[:n], n)
                for a in range(n):
                    for f in range(n_features):
                        by_inputs[atoms[a], f] = by_tile[a, f]
