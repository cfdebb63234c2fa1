"""A smooth cutoff: a neighbour counts with a weight that falls from 1 at no distance to 0 at the cutoff.

Without one, features and energies jump where a neighbour passes the cutoff. The weight is the polynomial of Unke and
Meuwly, "PhysNet", J. Chem. Theory Comput. 15, 3678 (2019), with x = R/R_c,

    f(x) = 1 - 10·x³ + 15·x⁴ - 6·x⁵ = (1 - x)³·(1 + 3·x + 6·x²),   f'(x) = -30·x²·(1 - x)².

At x = 1 it vanishes with its first and second derivative: energies, forces and force constants are continuous there.
One that falls later, as x⁶ does in "DimeNet", conserves energy less well: of the moments of wide probes, which nearly
cancel in a crystal, it leaves more that varies fast with the positions.
"""

import numpy as np

from bdqm_tune.compiled import compiled

# Numba compiles these, and torch calls one of them with tensors.
# mypy: disable-error-code="no-untyped-def"


def polynomial(x):
    """f(x) of numbers or tensors from 0 to 1; the second form, in which nothing cancels."""
    return (1 - x) ** 3 * (1 + x * (3 + 6 * x))


_value = compiled(polynomial)


@compiled
def weights(vectors, cutoff):
    """The weight of each neighbour, (n_pairs,), and its derivative by R², 1/Å², which is f'(x)/(2 x·R_c²).

    Args:
        vectors: (n_pairs, 3) Å, to the neighbours.
        cutoff: R_c, Å.
    """
    weight, slope = np.empty(len(vectors)), np.empty(len(vectors))
    for pair in range(len(vectors)):
        dx, dy, dz = vectors[pair]
        x = min(np.sqrt(dx * dx + dy * dy + dz * dz) / cutoff, 1.0)
        weight[pair] = _value(x)
        slope[pair] = -15 * x * (1 - x) ** 2 / cutoff**2
    return weight, slope
