"""The loops over neighbours and pairs of neighbours behind Behler–Parrinello symmetry functions."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bdqm_tune.compiled import compiled

# Numba compiles these; the types are those of the arrays in `Pairs`, `Radial` and `Angular`.
# mypy: disable-error-code="no-untyped-def"

CUTOFF_FUNCTIONS = ("cosine", "polynomial", "quintic", "tanh")
COINCIDENT = 1e-4  # Å; two atoms closer than this have no direction from one to the other: amptorch's value


class Pairs(NamedTuple):
    """The neighbours of the atoms of some structures."""

    start: NDArray[np.int64]  # (n_atoms + 1,)
    species: NDArray[np.int64]  # (n_pairs,) index of the neighbour's element in the descriptor's elements
    vector: NDArray[np.float64]  # (n_pairs, 3) Å
    distance: NDArray[np.float64]  # (n_pairs,) Å
    entry: NDArray[np.int64]  # (n_pairs,) entry of the derivatives with respect to the neighbour
    own: NDArray[np.int64]  # (n_atoms,) entry of those with respect to the centre


class Cutoff(NamedTuple):
    """A cutoff function."""

    radius: float  # Å
    kind: int  # place in CUTOFF_FUNCTIONS
    power: float  # gamma of the polynomial


class Radial(NamedTuple):
    """G2 of one centre element and one cutoff: those of neighbours of element e are `start[e]` to `start[e + 1]`."""

    eta: NDArray[np.float64]  # (n_functions,) 1/Å²
    shift: NDArray[np.float64]  # (n_functions,) Å
    column: NDArray[np.int64]  # (n_functions,) of the features
    start: NDArray[np.int64]  # (n_elements + 1,)


class Angular(NamedTuple):
    """G4 or G5 of one centre element and one cutoff: those of elements j and k are `start[j, k]` to `end[j, k]`.

    Many functions have an eta, or a zeta and a gamma, in common: each is computed once for a pair of neighbours.
    """

    etas: NDArray[np.float64]  # (n_etas,) 1/Å², different ones
    zetas: NDArray[np.float64]  # (n_powers,)
    gammas: NDArray[np.float64]  # (n_powers,) pairs of the two that differ
    eta: NDArray[np.int64]  # (n_functions,) place of its eta
    power: NDArray[np.int64]  # (n_functions,) place of its zeta and gamma
    column: NDArray[np.int64]  # (n_functions,) of the features
    start: NDArray[np.int64]  # (n_elements, n_elements), symmetric
    end: NDArray[np.int64]  # (n_elements, n_elements), symmetric
    closed: bool  # G4: with the distance between the two neighbours


@compiled
def cut(distance, cutoff, derive):
    """The cutoff function and its derivative, 1/Å, or 0 without `derive`."""
    x, power = distance / cutoff.radius, cutoff.power
    if x >= 1:
        return 0.0, 0.0
    slope = 0.0  # by x
    if cutoff.kind == 0:
        value = 0.5 * (1 + np.cos(np.pi * x))
        if derive:
            slope = -0.5 * np.pi * np.sin(np.pi * x)
    elif cutoff.kind == 1:
        value = 1 + power * x ** (power + 1) - (power + 1) * x**power
        if derive:
            slope = power * (power + 1) * (x**power - x ** (power - 1))
    elif cutoff.kind == 2:
        value = 1 - x * x * x * (10 - x * (15 - 6 * x))
        if derive:
            slope = -30 * x * x * (1 - x) * (1 - x)
    else:
        tanh = np.tanh(1 - x)
        value = tanh * tanh * tanh
        if derive:
            slope = -3 * tanh * tanh * (1 - tanh * tanh)
    return value, slope / cutoff.radius


@compiled
def radial(centres, pairs, cutoff, functions, features, derivatives):
    """Add G2 to the rows `centres` of `features` (n_atoms, n_features), and to `derivatives` unless it is empty.

    `derivatives` is (n_entries, n_features, 3), 1/Å. A neighbour at no distance counts, and has no derivative.
    """
    derive = len(derivatives) > 0
    for i in centres:
        for pair in range(pairs.start[i], pairs.start[i + 1]):
            distance = pairs.distance[pair]
            if distance >= cutoff.radius:
                continue
            value, slope = cut(distance, cutoff, derive)
            species = pairs.species[pair]
            for p in range(functions.start[species], functions.start[species + 1]):
                column = functions.column[p]
                beyond = distance - functions.shift[p]
                gaussian = np.exp(-functions.eta[p] * beyond * beyond)
                features[i, column] += gaussian * value
                if derive and distance >= COINCIDENT:
                    change = gaussian * (slope - 2 * functions.eta[p] * beyond * value) / distance
                    for axis in range(3):
                        derivatives[pairs.entry[pair], column, axis] += change * pairs.vector[pair, axis]
                        derivatives[pairs.own[i], column, axis] -= change * pairs.vector[pair, axis]


@compiled
def radial_pulls(centres, pairs, cutoff, functions, by_features, pulls):
    """Add dE/dR by way of G2 of the atoms `centres` to `pulls` (k, n_pairs, 3), eV/Å.

    `by_features` (k, n_atoms, n_features) has dE/dG of k energies, eV.
    """
    for i in centres:
        for pair in range(pairs.start[i], pairs.start[i + 1]):
            distance = pairs.distance[pair]
            if not COINCIDENT <= distance < cutoff.radius:
                continue
            value, slope = cut(distance, cutoff, True)
            species = pairs.species[pair]
            for p in range(functions.start[species], functions.start[species + 1]):
                beyond = distance - functions.shift[p]
                gaussian = np.exp(-functions.eta[p] * beyond * beyond)
                change = gaussian * (slope - 2 * functions.eta[p] * beyond * value) / distance
                for n in range(len(pulls)):
                    pull = by_features[n, i, functions.column[p]] * change
                    for axis in range(3):
                        pulls[n, pair, axis] += pull * pairs.vector[pair, axis]


@compiled
def exponents(zetas):
    """2^(1 - zeta) of each, and zeta - 1 where that is a small whole number, else -1."""
    scales, whole = np.zeros(len(zetas)), np.full(len(zetas), -1)
    for place, zeta in enumerate(zetas):
        scales[place] = 2 ** (1 - zeta)
        if zeta == np.floor(zeta) and zeta <= 64:
            whole[place] = int(zeta) - 1
    return scales, whole
