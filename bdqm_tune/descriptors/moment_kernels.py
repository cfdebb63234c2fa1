"""The loops over neighbours behind Gaussian multipole moments and the derivatives of invariants made of them.

Widths are worked on in blocks of `simd.WIDTH`, the last one filled up with zeros.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from bdqm_tune.compiled import compiled
from bdqm_tune.descriptors.simd import WIDTH, add_to, exp, load, spread, store

# Numba compiles these; the types are those of the arrays in `Pairs`, `Radial` and `Invariants`.
# mypy: disable-error-code="no-untyped-def,call-arg,var-annotated"


class Pairs(NamedTuple):
    """The neighbours of the atoms of some structures, with the solid harmonics of the vectors to them."""

    start: NDArray[np.int64]  # (n_atoms + 1,)
    neighbour: NDArray[np.int64]  # (n_pairs,)
    species: NDArray[np.int64]  # (n_atoms,) index of each atom's element in the tables of `Radial`
    vector: NDArray[np.float64]  # (n_pairs, 3) Å
    harmonics: NDArray[np.float64]  # (n_pairs, (l_max + 1)²)
    slopes: NDArray[np.float64]  # (n_pairs, 3, (l_max + 1)²) their gradients; (n_pairs, 3, 0) where not needed
    weight: NDArray[np.float64]  # (n_pairs,) with which a neighbour counts: see `smooth_cutoff`
    weight_slope: NDArray[np.float64]  # (n_pairs,) its derivative by R², 1/Å²


class Radial(NamedTuple):
    """The radial functions of all channels: see `moments.Channels` and `moments.Probes`."""

    gaussians: NDArray[
        np.int64
    ]  # (n_elements,) number of Gaussians of each; entries of the tables beyond it are not read
    weight: NDArray[np.float64]  # (n_elements, n_blocks, n_gaussians, n_sources, WIDTH)
    decay: NDArray[np.float64]  # (n_elements, n_blocks, n_gaussians, WIDTH) 1/Å²
    term_start: NDArray[np.int64]  # (n_channels + 1,)
    source: NDArray[np.int64]  # (n_terms,)
    power: NDArray[np.int64]  # (n_terms,)
    factor: NDArray[np.float64]  # (n_terms,)
    l: NDArray[np.int64]  # (n_channels,)


@numba.njit(inline="always")
def _fill_sums(radial, weights, decays, element, block, distance2, sums):
    """Σ_k weight·exp(-decay·R²) of each source; each exponential is computed once for all sources."""
    n_gaussians, n_sources = radial.weight.shape[2], radial.weight.shape[3]
    first = (element * radial.weight.shape[1] + block) * n_gaussians
    for q in range(n_sources):
        store(sums, q * WIDTH, spread(0.0))
    for k in range(first, first + radial.gaussians[element]):
        gaussian = exp(load(decays, k * WIDTH) * spread(-distance2))
        for q in range(n_sources):
            store(sums, q * WIDTH, load(sums, q * WIDTH) + load(weights, (k * n_sources + q) * WIDTH) * gaussian)


@numba.njit(inline="always")
def _add_moments(radial, distance2, sums, harmonics, row, weight, mine):
    """Add the moments of one neighbour, whose harmonics begin at `row`, with its weight."""
    place = 0
    for c in range(len(radial.l)):
        value = spread(0.0)
        for t in range(radial.term_start[c], radial.term_start[c + 1]):
            value += spread(radial.factor[t] * distance2 ** radial.power[t]) * load(sums, radial.source[t] * WIDTH)
        value = value * spread(weight)
        for lm in range(radial.l[c] * radial.l[c], (radial.l[c] + 1) * (radial.l[c] + 1)):
            add_to(mine, place, spread(harmonics[row + lm]) * value)
            place += WIDTH


@compiled
def fill_moments(pairs, radial, found):
    """Write mu of the atoms to `found` (n_moments, n_atoms, n_blocks·WIDTH).

    The moments run channel by channel, in each from m = -l to l.
    """
    weights, decays, harmonics = radial.weight.ravel(), radial.decay.ravel(), pairs.harmonics.ravel()
    n_harmonics = pairs.harmonics.shape[1]
    sums, mine = np.zeros(radial.weight.shape[3] * WIDTH), np.zeros(len(found) * WIDTH)
    # The atom itself is at distance 0, where R_00 = 1/sqrt(4π) and all other harmonics vanish.
    own = np.zeros(n_harmonics)
    own[0] = 1 / np.sqrt(4 * np.pi)
    for i in range(len(pairs.species)):
        for block in range(radial.weight.shape[1]):
            mine[:] = 0.0
            _fill_sums(radial, weights, decays, pairs.species[i], block, 0.0, sums)
            _add_moments(radial, 0.0, sums, own, 0, 1.0, mine)
            for pair in range(pairs.start[i], pairs.start[i + 1]):
                x, y, z = pairs.vector[pair]
                distance2 = x * x + y * y + z * z
                _fill_sums(radial, weights, decays, pairs.species[pairs.neighbour[pair]], block, distance2, sums)
                _add_moments(radial, distance2, sums, harmonics, pair * n_harmonics, pairs.weight[pair], mine)
            for m in range(len(found)):
                for s in range(WIDTH):
                    found[m, i, block * WIDTH + s] = mine[m * WIDTH + s]


@numba.njit(inline="always")
def _fill_steps(radial, weights, decays, element, block, distance2, sums, steps):
    """As `_fill_sums`, with the derivatives with respect to R² in `steps`."""
    n_gaussians, n_sources = radial.weight.shape[2], radial.weight.shape[3]
    first = (element * radial.weight.shape[1] + block) * n_gaussians
    for q in range(n_sources):
        store(sums, q * WIDTH, spread(0.0))
        store(steps, q * WIDTH, spread(0.0))
    for k in range(first, first + radial.gaussians[element]):
        decay = load(decays, k * WIDTH)
        gaussian = exp(decay * spread(-distance2))
        for q in range(n_sources):
            term = load(weights, (k * n_sources + q) * WIDTH) * gaussian
            store(sums, q * WIDTH, load(sums, q * WIDTH) + term)
            store(steps, q * WIDTH, load(steps, q * WIDTH) - decay * term)


@numba.njit(inline="always")
def _fill_values(radial, distance2, sums, steps, weight, weight_slope, values, slopes):
    """The radial functions of the channels times the weight, and their derivatives with respect to R²."""
    for c in range(len(radial.l)):
        value, slope = spread(0.0), spread(0.0)
        for t in range(radial.term_start[c], radial.term_start[c + 1]):
            power, factor, source = radial.power[t], radial.factor[t], radial.source[t] * WIDTH
            value += spread(factor * distance2**power) * load(sums, source)
            slope += spread(factor * distance2**power) * load(steps, source)
            if power > 0:
                slope += spread(factor * power * distance2 ** (power - 1)) * load(sums, source)
        store(values, c * WIDTH, value * spread(weight))
        store(slopes, c * WIDTH, slope * spread(weight) + value * spread(weight_slope))


@numba.njit(inline="always")
def _fill_moved(radial, values, slopes, by_moment, place, first, last, harmonics, gradients, row, n, vector, moved):
    """Derivative by the vector to a neighbour, x, y and z, of what depends on the moments of channels first to last.

    Its derivatives by these moments begin at `place` of `by_moment`, the n harmonics of the neighbour at `row`.
    """
    x, y, z, along = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
    for c in range(first, last):
        value = load(values, c * WIDTH)
        dot = spread(0.0)
        for lm in range(radial.l[c] * radial.l[c], (radial.l[c] + 1) * (radial.l[c] + 1)):
            change = load(by_moment, place)
            dot += change * spread(harmonics[row + lm])
            change = change * value
            x += change * spread(gradients[3 * row + lm])
            y += change * spread(gradients[3 * row + n + lm])
            z += change * spread(gradients[3 * row + 2 * n + lm])
            place += WIDTH
        along += load(slopes, c * WIDTH) * dot
    store(moved, 0, x + along * spread(2 * vector[0]))
    store(moved, WIDTH, y + along * spread(2 * vector[1]))
    store(moved, 2 * WIDTH, z + along * spread(2 * vector[2]))


@compiled
def fill_derivatives(pairs, radial, invariants, gradient, of_pair, own, found):
    """Add d features / d positions to `found` (n_entries, n_kinds·n_sigmas, 3), with `gradient` by the moments."""
    weights, decays, by_moment = radial.weight.ravel(), radial.decay.ravel(), np.zeros(len(gradient) * WIDTH)
    harmonics, gradients = pairs.harmonics.ravel(), pairs.slopes.ravel()
    n_harmonics, n_sources, n_channels = pairs.harmonics.shape[1], radial.weight.shape[3], len(radial.l)
    sums, steps = np.zeros(n_sources * WIDTH), np.zeros(n_sources * WIDTH)
    values, slopes = np.zeros(n_channels * WIDTH), np.zeros(n_channels * WIDTH)
    moved = np.zeros(3 * WIDTH)
    n_kinds = len(invariants.first)
    n_sigmas = found.shape[1] // n_kinds
    for i in range(len(pairs.species)):
        for block in range(radial.weight.shape[1]):
            n_lanes = min(WIDTH, n_sigmas - block * WIDTH)
            for v in range(len(gradient)):
                for s in range(WIDTH):
                    by_moment[v * WIDTH + s] = gradient[v, i, block * WIDTH + s]
            for pair in range(pairs.start[i], pairs.start[i + 1]):
                vector, row = pairs.vector[pair], pair * n_harmonics
                distance2 = vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2]
                element = pairs.species[pairs.neighbour[pair]]
                _fill_steps(radial, weights, decays, element, block, distance2, sums, steps)
                weight, weight_slope = pairs.weight[pair], pairs.weight_slope[pair]
                _fill_values(radial, distance2, sums, steps, weight, weight_slope, values, slopes)
                for f in range(n_kinds):
                    place, first, last = invariants.place[f] * WIDTH, invariants.first[f], invariants.last[f]
                    _fill_moved(
                        radial, values, slopes, by_moment, place, first, last, harmonics, gradients, row, n_harmonics,
                        vector, moved,
                    )  # fmt: skip
                    column = f * n_sigmas + block * WIDTH
                    for s in range(n_lanes):
                        for axis in range(3):
                            found[of_pair[pair], column + s, axis] += moved[axis * WIDTH + s]
                            found[own[i], column + s, axis] -= moved[axis * WIDTH + s]


@compiled
def fill_pulls(pairs, radial, invariants, gradient, by_features, found):
    """Write dE/dR of every neighbour to `found` (k, n_pairs, 3), of k energies, from `by_features`, dE/d features.

    `by_features` is (k, n_atoms, n_kinds·n_sigmas).
    """
    weights, decays = radial.weight.ravel(), radial.decay.ravel()
    harmonics, gradients = pairs.harmonics.ravel(), pairs.slopes.ravel()
    n_harmonics, n_sources, n_channels = pairs.harmonics.shape[1], radial.weight.shape[3], len(radial.l)
    sums, steps = np.zeros(n_sources * WIDTH), np.zeros(n_sources * WIDTH)
    values, slopes = np.zeros(n_channels * WIDTH), np.zeros(n_channels * WIDTH)
    n_energies, n_moments = len(by_features), np.sum(2 * radial.l + 1)
    by_moment, moved = np.zeros(n_energies * n_moments * WIDTH), np.zeros(3 * WIDTH)
    n_sigmas = by_features.shape[2] // len(invariants.moment)
    found[:] = 0.0
    for i in range(len(pairs.species)):
        for block in range(radial.weight.shape[1]):
            by_moment[:] = 0.0
            for k in range(n_energies):
                for f in range(len(invariants.moment)):
                    for v in range(invariants.place[f], invariants.place[f + 1]):
                        moment = k * n_moments + invariants.moment[f] + v - invariants.place[f]
                        for s in range(min(WIDTH, n_sigmas - block * WIDTH)):
                            felt = by_features[k, i, f * n_sigmas + block * WIDTH + s]
                            by_moment[moment * WIDTH + s] += felt * gradient[v, i, block * WIDTH + s]
            for pair in range(pairs.start[i], pairs.start[i + 1]):
                vector, row = pairs.vector[pair], pair * n_harmonics
                distance2 = vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2]
                element = pairs.species[pairs.neighbour[pair]]
                _fill_steps(radial, weights, decays, element, block, distance2, sums, steps)
                weight, weight_slope = pairs.weight[pair], pairs.weight_slope[pair]
                _fill_values(radial, distance2, sums, steps, weight, weight_slope, values, slopes)
                for k in range(n_energies):
                    place = k * n_moments * WIDTH
                    _fill_moved(
                        radial, values, slopes, by_moment, place, 0, n_channels, harmonics, gradients, row, n_harmonics,
                        vector, moved,
                    )  # fmt: skip
                    for axis in range(3):
                        total = 0.0
                        for s in range(WIDTH):
                            total += moved[axis * WIDTH + s]
                        found[k, pair, axis] += total
