"""The loops over neighbours behind Gaussian multipole moments and the derivatives of invariants made of them."""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

# Numba compiles these; the types are those of the arrays in `Pairs`, `Radial` and `Gradient`.
# mypy: disable-error-code="no-untyped-def"


class Pairs(NamedTuple):
    """The neighbours of one structure, with the solid harmonics of the vectors to them."""

    start: NDArray[np.int64]  # (n_atoms + 1,)
    neighbour: NDArray[np.int64]  # (n_pairs,)
    species: NDArray[np.int64]  # (n_atoms,) place of each atom's element in the tables of `Radial`
    vector: NDArray[np.float64]  # (n_pairs, 3) Å
    distance2: NDArray[np.float64]  # (n_pairs,) Å²
    harmonics: NDArray[np.float64]  # (n_pairs, (l_max + 1)²)
    slopes: NDArray[np.float64]  # (n_pairs, 3, (l_max + 1)²) their gradients; (n_pairs, 3, 0) where not needed


class Radial(NamedTuple):
    """The radial functions of all channels: see `moments.Channels` and `moments.Probes`."""

    gaussians: NDArray[np.int64]  # (n_elements,) of the Gaussians of each; what stands beyond in the tables is not read
    weight: NDArray[np.float64]  # (n_elements, n_sigmas, n_gaussians, n_sources)
    decay: NDArray[np.float64]  # (n_elements, n_sigmas, n_gaussians) 1/Å²
    term_start: NDArray[np.int64]  # (n_channels + 1,)
    source: NDArray[np.int64]  # (n_terms,)
    power: NDArray[np.int64]  # (n_terms,)
    factor: NDArray[np.float64]  # (n_terms,)
    l: NDArray[np.int64]  # (n_channels,)


class Gradient(NamedTuple):
    """d feature / d moments: feature f depends on the channels `first[f]:last[f]`, its values stand from `place[f]`."""

    values: NDArray[np.float64]  # (n_atoms, n_sigmas, n_values)
    first: NDArray[np.int64]  # (n_features_a_sigma,)
    last: NDArray[np.int64]  # (n_features_a_sigma,)
    place: NDArray[np.int64]  # (n_features_a_sigma,)


@numba.njit(cache=True)
def _fill_powers(distance2, powers):
    powers[0] = 1.0
    for p in range(1, len(powers)):
        powers[p] = powers[p - 1] * distance2


@numba.njit(inline="always")
def _fill_radial(radial, element, s, powers, sums, values):
    """The radial functions `values` (n_channels,) at one distance; each exponential is computed once for all.

    `powers` are those of R², the first two at least; `sums` (n_sources,) is room to work in.
    """
    sums[:] = 0.0
    for k in range(radial.gaussians[element]):
        exponential = np.exp(-radial.decay[element, s, k] * powers[1])
        for q in range(len(sums)):
            sums[q] += radial.weight[element, s, k, q] * exponential
    for c in range(len(values)):
        value = 0.0
        for t in range(radial.term_start[c], radial.term_start[c + 1]):
            value += radial.factor[t] * sums[radial.source[t]] * powers[radial.power[t]]
        values[c] = value


@numba.njit(cache=True)
def _fill_radial_slopes(radial, element, s, powers, sums, steps, values, slopes):
    """As `_fill_radial`, with the derivatives with respect to R² in `slopes` (n_channels,)."""
    sums[:] = 0.0
    steps[:] = 0.0
    for k in range(radial.gaussians[element]):
        decay = radial.decay[element, s, k]
        exponential = np.exp(-decay * powers[1])
        for q in range(len(sums)):
            term = radial.weight[element, s, k, q] * exponential
            sums[q] += term
            steps[q] -= decay * term
    for c in range(len(values)):
        value, slope = 0.0, 0.0
        for t in range(radial.term_start[c], radial.term_start[c + 1]):
            power, factor, source = radial.power[t], radial.factor[t], radial.source[t]
            value += factor * sums[source] * powers[power]
            slope += factor * steps[source] * powers[power]
            if power > 0:
                slope += factor * sums[source] * power * powers[power - 1]
        values[c], slopes[c] = value, slope


@numba.njit(parallel=True, cache=True)
def moments(pairs, radial):
    """mu (n_atoms, n_sigmas, n_moments), channel by channel, in each from m = -l to l."""
    n_atoms, n_sigmas = len(pairs.species), radial.weight.shape[1]
    n_powers = max(2, np.max(radial.power) + 1)
    found = np.zeros((n_atoms, n_sigmas, np.sum(2 * radial.l + 1)))
    for i in numba.prange(n_atoms):
        powers = np.zeros(n_powers)
        sums = np.zeros(radial.weight.shape[3])
        values = np.zeros(len(radial.l))
        # The atom itself is at distance 0, where R_00 = 1/sqrt(4π) and all other harmonics vanish.
        _fill_powers(0.0, powers)
        for s in range(n_sigmas):
            _fill_radial(radial, pairs.species[i], s, powers, sums, values)
            q = 0
            for c in range(len(values)):
                if radial.l[c] == 0:
                    found[i, s, q] += values[c] / np.sqrt(4 * np.pi)
                q += 2 * radial.l[c] + 1
        for pair in range(pairs.start[i], pairs.start[i + 1]):
            element = pairs.species[pairs.neighbour[pair]]
            _fill_powers(pairs.distance2[pair], powers)
            for s in range(n_sigmas):
                _fill_radial(radial, element, s, powers, sums, values)
                mine = found[i, s]
                row = pairs.harmonics[pair]
                q = 0
                for c in range(len(values)):
                    value = values[c]
                    for lm in range(radial.l[c] * radial.l[c], (radial.l[c] + 1) * (radial.l[c] + 1)):
                        mine[q] += value * row[lm]
                        q += 1
    return found


@numba.njit(parallel=True, cache=True)
def derivatives(pairs, radial, gradient, of_pair, own, n_entries):
    """d features / d positions (n_entries, n_features, 3), features by their kind and then sigma.

    The neighbours of a centre have entries of that centre only, so that no two threads write to one.
    """
    n_atoms, n_sigmas = len(pairs.species), radial.weight.shape[1]
    n_kinds = len(gradient.first)
    n_powers = max(2, np.max(radial.power) + 1)
    found = np.zeros((n_entries, n_kinds * n_sigmas, 3))
    for i in numba.prange(n_atoms):
        powers = np.zeros(n_powers)
        sums, steps = np.zeros(radial.weight.shape[3]), np.zeros(radial.weight.shape[3])
        values, slopes = np.zeros(len(radial.l)), np.zeros(len(radial.l))
        for pair in range(pairs.start[i], pairs.start[i + 1]):
            element = pairs.species[pairs.neighbour[pair]]
            _fill_powers(pairs.distance2[pair], powers)
            for s in range(n_sigmas):
                _fill_radial_slopes(radial, element, s, powers, sums, steps, values, slopes)
                for f in range(n_kinds):
                    x, y, z, along = 0.0, 0.0, 0.0, 0.0
                    place = gradient.place[f]
                    for c in range(gradient.first[f], gradient.last[f]):
                        dot = 0.0
                        for lm in range(radial.l[c] ** 2, (radial.l[c] + 1) ** 2):
                            by_moment = gradient.values[i, s, place]
                            dot += by_moment * pairs.harmonics[pair, lm]
                            x += values[c] * by_moment * pairs.slopes[pair, 0, lm]
                            y += values[c] * by_moment * pairs.slopes[pair, 1, lm]
                            z += values[c] * by_moment * pairs.slopes[pair, 2, lm]
                            place += 1
                        along += 2 * slopes[c] * dot
                    x += along * pairs.vector[pair, 0]
                    y += along * pairs.vector[pair, 1]
                    z += along * pairs.vector[pair, 2]
                    column = f * n_sigmas + s
                    found[of_pair[pair], column, 0] += x
                    found[of_pair[pair], column, 1] += y
                    found[of_pair[pair], column, 2] += z
                    found[own[i], column, 0] -= x
                    found[own[i], column, 1] -= y
                    found[own[i], column, 2] -= z
    return found
