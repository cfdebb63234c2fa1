"""The loops over neighbours and pairs of neighbours behind Behler–Parrinello symmetry functions."""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

# Numba compiles these; the types are those of the arrays in `Pairs`, `Radial` and `Angular`.
# mypy: disable-error-code="no-untyped-def"

COINCIDENT = 1e-4  # Å; two atoms closer than this have no direction from one to the other: amptorch's value


class Pairs(NamedTuple):
    """The neighbours of one structure."""

    start: NDArray[np.int64]  # (n_atoms + 1,)
    species: NDArray[np.int64]  # (n_pairs,) the neighbour's place in the elements of the descriptor
    vector: NDArray[np.float64]  # (n_pairs, 3) Å
    distance: NDArray[np.float64]  # (n_pairs,) Å
    entry: NDArray[np.int64]  # (n_pairs,) where the derivatives with respect to the neighbour stand
    own: NDArray[np.int64]  # (n_atoms,) where those with respect to the centre stand


class Cutoff(NamedTuple):
    """The cutoff function of the functions of one centre element."""

    radius: float  # Å
    power: float  # gamma of the polynomial; 0: cosine


class Radial(NamedTuple):
    """G2 of one centre element: function p of neighbours of element e stands in column `column[e] + p`."""

    eta: NDArray[np.float64]  # (n_functions,) 1/Å²
    shift: NDArray[np.float64]  # (n_functions,) Å
    column: NDArray[np.int64]  # (n_elements,)


class Angular(NamedTuple):
    """G4 or G5 of one centre element: all combinations, eta by eta, then zeta by zeta, then gamma."""

    eta: NDArray[np.float64]  # (n_etas,) 1/Å²
    zeta: NDArray[np.float64]  # (n_zetas,)
    gamma: NDArray[np.float64]  # (n_gammas,)
    column: NDArray[np.int64]  # (n_elements, n_elements) of the first one, symmetric
    closed: bool  # G4: with the distance between the two neighbours


@numba.njit(cache=True)
def cut(distance, cutoff):
    """The cutoff function and its derivative, 1/Å."""
    x = distance / cutoff.radius
    if x >= 1:
        return 0.0, 0.0
    if cutoff.power == 0:
        return 0.5 * (1 + np.cos(np.pi * x)), -0.5 * np.pi * np.sin(np.pi * x) / cutoff.radius
    power = cutoff.power
    return (
        1 + power * x ** (power + 1) - (power + 1) * x**power,
        power * (power + 1) * (x**power - x ** (power - 1)) / cutoff.radius,
    )


@numba.njit(parallel=True, cache=True)
def radial(centres, pairs, cutoff, functions, features, derivatives):
    """Add G2 to the rows `centres` of `features` (n_atoms, n_features), and to `derivatives` unless it is empty.

    `derivatives` is (n_entries, n_features, 3), 1/Å. A neighbour at no distance counts, and has no derivative.
    """
    derive = len(derivatives) > 0
    for place in numba.prange(len(centres)):
        i = centres[place]
        for pair in range(pairs.start[i], pairs.start[i + 1]):
            distance = pairs.distance[pair]
            if distance >= cutoff.radius:
                continue
            value, slope = cut(distance, cutoff)
            for p in range(len(functions.eta)):
                column = functions.column[pairs.species[pair]] + p
                beyond = distance - functions.shift[p]
                gaussian = np.exp(-functions.eta[p] * beyond * beyond)
                features[i, column] += gaussian * value
                if derive and distance >= COINCIDENT:
                    change = gaussian * (slope - 2 * functions.eta[p] * beyond * value) / distance
                    for axis in range(3):
                        derivatives[pairs.entry[pair], column, axis] += change * pairs.vector[pair, axis]
                        derivatives[pairs.own[i], column, axis] -= change * pairs.vector[pair, axis]


@numba.njit(parallel=True, cache=True)
def angular(centres, pairs, cutoff, functions, features, derivatives):
    """Add G4 or G5 to the rows `centres` of `features`, and to `derivatives` unless it is empty: see `radial`.

    With u and v the vectors to the two neighbours, w = v - u, and c the cosine between u and v, a function is

        2^(1 - zeta)·(1 + gamma·c)^zeta·exp(-eta·s)·f,   s = u² + v² [+ w²],   f = f_c(|u|)·f_c(|v|)[·f_c(|w|)]

    and its derivatives with respect to u and v follow from those of c, s and f. Neighbours that coincide with the
    centre or with each other make no angle and are left out.
    """
    derive = len(derivatives) > 0
    n_powers = len(functions.zeta) * len(functions.gamma)
    for place in numba.prange(len(centres)):
        i = centres[place]
        powers, steps = np.zeros(n_powers), np.zeros(n_powers)
        w = np.zeros(3)
        dc, ds, df = np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3))
        for j in range(pairs.start[i], pairs.start[i + 1]):
            a = pairs.distance[j]
            if a >= cutoff.radius or a < COINCIDENT:
                continue
            cut_a, slope_a = cut(a, cutoff)
            u = pairs.vector[j]
            for k in range(j + 1, pairs.start[i + 1]):
                b = pairs.distance[k]
                if b >= cutoff.radius or b < COINCIDENT:
                    continue
                v = pairs.vector[k]
                w[:] = v - u
                d = np.sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2])
                if d < COINCIDENT or (functions.closed and d >= cutoff.radius):
                    continue
                cut_b, slope_b = cut(b, cutoff)
                cut_d, slope_d = cut(d, cutoff) if functions.closed else (1.0, 0.0)
                c = (u[0] * v[0] + u[1] * v[1] + u[2] * v[2]) / (a * b)
                s = a * a + b * b + (d * d if functions.closed else 0.0)
                f = cut_a * cut_b * cut_d
                _fill_powers(functions.zeta, functions.gamma, c, powers, steps)
                if derive:
                    across = slope_d / d * cut_a * cut_b
                    closed = 1.0 if functions.closed else 0.0
                    for x in range(3):
                        dc[0, x] = v[x] / (a * b) - c * u[x] / (a * a)
                        dc[1, x] = u[x] / (a * b) - c * v[x] / (b * b)
                        ds[0, x] = 2 * (u[x] - closed * w[x])
                        ds[1, x] = 2 * (v[x] + closed * w[x])
                        df[0, x] = slope_a / a * u[x] * cut_b * cut_d - across * w[x]
                        df[1, x] = slope_b / b * v[x] * cut_a * cut_d + across * w[x]
                first = functions.column[pairs.species[j], pairs.species[k]]
                for e in range(len(functions.eta)):
                    eta = functions.eta[e]
                    gaussian = np.exp(-eta * s)
                    for p in range(n_powers):
                        column = first + e * n_powers + p
                        features[i, column] += powers[p] * gaussian * f
                        if derive:
                            for x in range(3):
                                by_u = gaussian * (
                                    steps[p] * f * dc[0, x] + powers[p] * (df[0, x] - eta * f * ds[0, x])
                                )
                                by_v = gaussian * (
                                    steps[p] * f * dc[1, x] + powers[p] * (df[1, x] - eta * f * ds[1, x])
                                )
                                derivatives[pairs.entry[j], column, x] += by_u
                                derivatives[pairs.entry[k], column, x] += by_v
                                derivatives[pairs.own[i], column, x] -= by_u + by_v


@numba.njit(cache=True)
def _fill_powers(zetas, gammas, c, powers, steps):
    """2^(1 - zeta)·(1 + gamma·c)^zeta, zeta by zeta, and its derivative with respect to c."""
    p = 0
    for zeta in zetas:
        for gamma in gammas:
            # Rounding can bring the cosine beyond ±1, and a power of a negative number is none.
            base = max(1 + gamma * c, 0.0)
            lower = 2 ** (1 - zeta) * base ** (zeta - 1)
            powers[p] = lower * base
            steps[p] = lower * zeta * gamma
            p += 1
