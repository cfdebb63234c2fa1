"""Real solid harmonics R_lm = |r|^l·Y_lm(r/|r|), orthonormal on the unit sphere, and their gradients.

Bigi, Fraux, Browning and Ceriotti, "Fast evaluation of spherical harmonics with sphericart", J. Chem. Phys. 159, 064802
(2023), whose library starts threads of its own and cannot be called from several: R_lm = F_lm·Q_lm(r², z)·c_m(x, y), or
s_|m| for m < 0, where c_m + i·s_m = (x + i·y)^m, and Q_lm is the associated Legendre polynomial without its
powers of sin θ, times |r|^(l - m).
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.compiled import compiled
from bdqm_tune.descriptors.simd import WIDTH, load, spread, store

# Numba compiles one of these; the types are those that `solid_harmonics` has.
# mypy: disable-error-code="no-untyped-def,call-arg,var-annotated"


def solid_harmonics(
    vectors: NDArray[np.float64], l_max: int, with_slopes: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """R_lm, Å^l, at vectors (n, 3), Å, for l = 0 to `l_max` and in each m = -l to l, and their gradients, Å^(l - 1).

    Returns:
        (n, (l_max + 1)²) and (n, 3, (l_max + 1)²), or (n, 3, 0) without slopes.
    """
    count = (l_max + 1) ** 2
    harmonics = np.empty((len(vectors), count))
    slopes = np.empty((len(vectors), 3, count if with_slopes else 0))
    _fill(vectors, factors(l_max), harmonics, slopes)
    return harmonics, slopes


@cache
def factors(l_max: int) -> NDArray[np.float64]:
    """F_lm for m ≥ 0, (l_max + 1, l_max + 1)."""
    found = np.zeros((l_max + 1, l_max + 1))
    for l in range(l_max + 1):
        for m in range(l + 1):
            ratio = math.factorial(l - m) / math.factorial(l + m)
            found[l, m] = math.sqrt((2 * l + 1) / (2 * math.pi if m else 4 * math.pi) * ratio)
    return found


@compiled
def _fill(vectors, norms, harmonics, slopes):
    n, n_vectors = len(norms), len(vectors)
    # One row and column more than needed, of zeros that gradients read.
    columns = n + 2
    q = np.zeros((n + 1) * columns * WIDTH)
    c, s = np.zeros(n * WIDTH), np.zeros(n * WIDTH)
    store(c, 0, spread(1.0))
    double_factorial = 1.0
    for m in range(n):
        double_factorial *= max(2 * m - 1, 1)
        store(q, (m * columns + m) * WIDTH, spread(double_factorial))
    here, found = np.zeros(3 * WIDTH), np.zeros(4 * n * n * WIDTH)
    for first in range(0, n_vectors, WIDTH):
        count = min(WIDTH, n_vectors - first)
        for k in range(count):
            for axis in range(3):
                here[axis * WIDTH + k] = vectors[first + k, axis]
        x, y, z = load(here, 0), load(here, WIDTH), load(here, 2 * WIDTH)
        r2 = x * x + y * y + z * z
        for m in range(n - 1):
            below, here_c, here_s = (m * columns + m) * WIDTH, load(c, m * WIDTH), load(s, m * WIDTH)
            store(c, (m + 1) * WIDTH, x * here_c - y * here_s)
            store(s, (m + 1) * WIDTH, x * here_s + y * here_c)
            store(q, below + columns * WIDTH, spread(2 * m + 1.0) * z * load(q, below))
            for l in range(m + 2, n):
                place = (l * columns + m) * WIDTH
                before, twice_before = load(q, place - columns * WIDTH), load(q, place - 2 * columns * WIDTH)
                up, down = spread((2 * l - 1) / (l - m)) * z, spread((l + m - 1) / (l - m)) * r2
                store(q, place, up * before - down * twice_before)
        for l in range(n):
            for m in range(l + 1):
                radial = spread(norms[l, m]) * load(q, (l * columns + m) * WIDTH)
                store(found, (l * l + l - m) * WIDTH, radial * load(s, m * WIDTH))
                store(found, (l * l + l + m) * WIDTH, radial * load(c, m * WIDTH))
        for k in range(count):
            for lm in range(n * n):
                harmonics[first + k, lm] = found[lm * WIDTH + k]
        if slopes.shape[2] == 0:
            continue
        # dQ_lm/dz = (l + m)·Q_(l-1)m, and dQ_lm/dx = -x·Q_(l-1)(m+1). For l = 0 all are zero.
        for l in range(1, n):
            for m in range(l + 1):
                norm, place = spread(norms[l, m]), (l * columns + m) * WIDTH
                by_z = norm * spread(l + m + 0.0) * load(q, place - columns * WIDTH)
                across = norm * spread(-1.0) * load(q, place + (1 - columns) * WIDTH)
                around = norm * spread(m + 0.0) * load(q, place)
                before = max(m - 1, 0) * WIDTH
                cosine, sine = load(c, before), load(s, before)
                here_c, here_s = load(c, m * WIDTH), load(s, m * WIDTH)
                minus, plus = (l * l + l - m) * WIDTH, (l * l + l + m) * WIDTH
                block = n * n * WIDTH
                store(found, block + minus, around * sine + across * x * here_s)
                store(found, 2 * block + minus, around * cosine + across * y * here_s)
                store(found, 3 * block + minus, by_z * here_s)
                store(found, block + plus, around * cosine + across * x * here_c)
                store(found, 2 * block + plus, across * y * here_c - around * sine)
                store(found, 3 * block + plus, by_z * here_c)
        for k in range(count):
            for axis in range(3):
                for lm in range(n * n):
                    slopes[first + k, axis, lm] = found[((axis + 1) * n * n + lm) * WIDTH + k]
