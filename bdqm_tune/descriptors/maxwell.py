"""Maxwell–Cartesian harmonics: derivatives of 1/r along the axes, in groups that permute the axes."""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from sphericart import SphericalHarmonics

from bdqm_tune.descriptors.moments import Channels

Powers = tuple[int, int, int]


def groups(order: int) -> list[Powers]:
    """The groups of an order, by their largest harmonic: (n, 0, 0), (n - 1, 1, 0), (n - 2, 2, 0), (n - 2, 1, 1), …

    Group 1 of amptorch is the first one.
    """
    return [powers for powers in harmonics(order) if powers[0] >= powers[1] >= powers[2]]


def harmonics(order: int) -> list[Powers]:
    """The harmonics of an order, each as its numbers of derivatives along x, y and z."""
    return [(a, b, order - a - b) for a in range(order, -1, -1) for b in range(order - a, -1, -1)]


def members(order: int, group: Powers) -> list[int]:
    """Indices in `harmonics(order)` of the members of a group: all permutations of its powers."""
    return [place for place, powers in enumerate(harmonics(order)) if tuple(sorted(powers, reverse=True)) == group]


def multinomial(powers: Powers) -> int:
    """n!/(a! b! c!), the weight of a harmonic in its order."""
    return math.factorial(sum(powers)) // math.prod(map(math.factorial, powers))


def from_moments(channels: Channels, order: int) -> NDArray[np.float64]:
    """Matrix from the moments mu_nlm to the harmonics of an order, (n_harmonics, n_moments of the order).

    Both are the coefficients of one polynomial, T_n(u) = Σ_abc n!/(a! b! c!)·S_abc·u_x^a·u_y^b·u_z^c =
    Σ_lm n!·4π/(2l + 1)·mu_nlm·Y_lm(u) on the unit sphere: solved for S on points of it. (With only l = n, as for solid
    harmonics, and with all l, as for surface harmonics, the polynomial is determined by its values there.)

    Args:
        order: index of the order in `channels.orders`.
    """
    n = channels.orders[order]
    powers = harmonics(n)
    points = _sphere()
    weights = np.array([multinomial(p) for p in powers], dtype=np.float64)
    monomials = np.stack([np.prod(points ** np.array(p), axis=1) for p in powers], axis=1)
    spherical = SphericalHarmonics(n).compute(points)
    columns = [
        math.factorial(n) * 4 * math.pi / (2 * l + 1) * spherical[:, l * l : (l + 1) ** 2]
        for l in channels.l[channels.of_order[order] : channels.of_order[order + 1]].tolist()
    ]
    # Scaled by the roots of the weights, the monomials are close to orthogonal.
    scaled = np.linalg.lstsq(monomials * np.sqrt(weights), np.concatenate(columns, axis=1))[0]
    return scaled / np.sqrt(weights)[:, None]


@cache
def _sphere(n_points: int = 200) -> NDArray[np.float64]:
    """Points spread evenly over the unit sphere, on a spiral: (n_points, 3)."""
    k = np.arange(n_points) + 0.5
    z = 1 - 2 * k / n_points
    angle = math.pi * (1 + math.sqrt(5)) * k
    return np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1)
