"""Behler–Parrinello functions of angles, and dE/dR by way of them, for eight pairs of neighbours at once.

With u and v the vectors from an atom to two neighbours, w = v - u, and c the cosine between u and v, a function is

    2^(1 - zeta)·(1 + gamma·c)^zeta·exp(-eta·s)·f,   s = u² + v² [+ w²],   f = f_c(|u|)·f_c(|v|)[·f_c(|w|)]

where what is in brackets is of G4. Neighbours that coincide with the centre or with each other make no angle and are
left out. The neighbours of an atom are sorted by element, so that the second ones of a pair have the same functions.
"""

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from bdqm_tune.compiled import compiled
from bdqm_tune.descriptors.simd import WIDTH, add_to, exp, larger, load, spread, sqrt, store, where_less
from bdqm_tune.descriptors.symmetry_kernels import COINCIDENT, cut, exponents

# Numba compiles these; the types are those of the arrays in `Pairs`, `Angular` and `Near`.
# mypy: disable-error-code="no-untyped-def,call-arg,var-annotated"

# Of t·Σ (t²)^n and Σ (t²)^n, the highest power first: to rounding for |t| ≤ π/2.
SINE = tuple((-1.0) ** n / math.factorial(2 * n + 1) for n in range(11, -1, -1))
COSINE = tuple((-1.0) ** n / math.factorial(2 * n) for n in range(11, -1, -1))
# So many of its numbers from WIDTH - n on are 1 for the first n lanes.
MASKS = np.repeat([1.0, 0.0], WIDTH)


class Near(NamedTuple):
    """The neighbours of one atom within the cutoff, sorted by element, followed by zeros for a block."""

    pair: NDArray[np.int64]  # (n,) place in `Pairs`
    element: NDArray[np.int64]  # (n,)
    begin: NDArray[np.int64]  # (n_elements + 1,) where each element begins
    x: NDArray[np.float64]  # (n,) Å
    y: NDArray[np.float64]
    z: NDArray[np.float64]
    inverse: NDArray[np.float64]  # (n,) 1/Å, one over the distance
    cut: NDArray[np.float64]  # (n,) the cutoff function
    slope: NDArray[np.float64]  # (n,) 1/Å², its derivative over the distance
    gaussian: NDArray[np.float64]  # (n_etas·n,) exp(-eta·R²), eta by eta


class Block(NamedTuple):
    """What is computed for eight pairs: each WIDTH numbers, or as many for each eta or power."""

    product: NDArray[np.float64]  # f
    along_u: NDArray[np.float64]  # derivative of f by u² / 2
    along_v: NDArray[np.float64]
    across: NDArray[np.float64]  # by w² / 2
    cosine: NDArray[np.float64]
    gaussian: NDArray[np.float64]  # (n_etas·WIDTH,) exp(-eta·s)
    power: NDArray[np.float64]  # (n_powers·WIDTH,) 2^(1 - zeta)·(1 + gamma·c)^zeta
    step: NDArray[np.float64]  # (n_powers·WIDTH,) its derivative by c
    cut: NDArray[np.float64]  # (2·WIDTH,) f_c(|w|) and its derivative
    base: NDArray[np.float64]  # (WIDTH,) of a power that is no product


@compiled
def _make_near(n, n_elements, n_etas):
    most = n + WIDTH
    return Near(
        np.zeros(most, np.int64), np.zeros(most, np.int64), np.zeros(n_elements + 1, np.int64), np.zeros(most),
        np.zeros(most), np.zeros(most), np.zeros(most), np.zeros(most), np.zeros(most), np.zeros(n_etas * most),
    )  # fmt: skip


@compiled
def _make_block(n_etas, n_powers):
    return Block(
        np.zeros(WIDTH), np.zeros(WIDTH), np.zeros(WIDTH), np.zeros(WIDTH), np.zeros(WIDTH), np.zeros(n_etas * WIDTH),
        np.zeros(n_powers * WIDTH), np.zeros(n_powers * WIDTH), np.zeros(2 * WIDTH), np.zeros(WIDTH),
    )  # fmt: skip


@compiled
def _find_near(i, pairs, cutoff, etas, derive, near):
    """Write the neighbours of an atom to `near`, and give their number."""
    begin = near.begin
    begin[:] = 0
    for pair in range(pairs.start[i], pairs.start[i + 1]):
        if COINCIDENT <= pairs.distance[pair] < cutoff.radius:
            begin[pairs.species[pair] + 1] += 1
    for element in range(len(begin) - 1):
        begin[element + 1] += begin[element]
    n_near, most = begin[-1], len(near.x)
    for pair in range(pairs.start[i], pairs.start[i + 1]):
        distance, element = pairs.distance[pair], pairs.species[pair]
        if COINCIDENT <= distance < cutoff.radius:
            k = begin[element]  # for now the next free place
            begin[element] += 1
            near.pair[k], near.element[k], near.inverse[k] = pair, element, 1 / distance
            near.x[k], near.y[k], near.z[k] = pairs.vector[pair, 0], pairs.vector[pair, 1], pairs.vector[pair, 2]
            near.cut[k], slope = cut(distance, cutoff, derive)
            near.slope[k] = slope / distance
            for e in range(len(etas)):
                near.gaussian[e * most + k] = np.exp(-etas[e] * distance * distance)
    for element in range(len(begin) - 1, 0, -1):
        begin[element] = begin[element - 1]
    begin[0] = 0
    for k in range(n_near, n_near + WIDTH):
        near.x[k], near.y[k], near.z[k], near.inverse[k], near.cut[k], near.slope[k] = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    return n_near


@compiled
def _cut_each(cutoff, derive, found):
    for s in range(WIDTH):
        found[s], found[WIDTH + s] = cut(found[s], cutoff, derive)


@numba.njit(inline="always")
def _fill_cut(distance, cutoff, derive, found):
    """The cutoff function of distances up to the cutoff, and their derivatives."""
    if cutoff.kind == 0:
        # cos(π·x) = -sin(t) and sin(π·x) = cos(t) with t = π·(x - 1/2).
        t = distance * spread(np.pi / cutoff.radius) - spread(np.pi / 2)
        t2, sine = t * t, spread(0.0)
        for factor in SINE:
            sine = sine * t2 + spread(factor)
        store(found, 0, spread(0.5) - spread(0.5) * t * sine)
        if derive:
            cosine = spread(0.0)
            for factor in COSINE:
                cosine = cosine * t2 + spread(factor)
            store(found, WIDTH, spread(-0.5 * np.pi / cutoff.radius) * cosine)
    else:
        store(found, 0, distance)
        _cut_each(cutoff, derive, found)


@compiled
def _raise(base, exponent):
    # Not within `_fill_powers`: there numba leaves this loop out, when it puts the function in its caller's place.
    for s in range(WIDTH):
        base[s] = base[s] ** exponent


@numba.njit(inline="always")
def _fill_powers(functions, scales, whole, derive, block):
    """2^(1 - zeta)·(1 + gamma·c)^zeta of each pair of zeta and gamma, and its derivative with respect to c."""
    for p in range(len(functions.zetas)):
        # Rounding can bring the cosine beyond ±1, and a power of a negative number is none.
        base = larger(spread(1.0) + spread(functions.gammas[p]) * load(block.cosine, 0), spread(0.0))
        lower = spread(scales[p])
        if whole[p] >= 0:  # by multiplications: ten times faster than by logarithms
            factor, rest = base, whole[p]
            while rest > 0:
                if rest % 2 == 1:
                    lower = lower * factor
                factor = factor * factor
                rest //= 2
        else:
            store(block.base, 0, base)
            _raise(block.base, functions.zetas[p] - 1)
            lower = lower * load(block.base, 0)
        store(block.power, p * WIDTH, lower * base)
        if derive:
            store(block.step, p * WIDTH, lower * spread(functions.zetas[p] * functions.gammas[p]))


@numba.njit(inline="always")
def _fill_block(near, cutoff, functions, scales, whole, derive, j, k, count, block):
    """All of a neighbour j and those from k on, of which the first `count` belong to the block; 0 for others."""
    mask = load(MASKS, WIDTH - count)
    x, y, z = load(near.x, k), load(near.y, k), load(near.z, k)
    wx, wy, wz = x - spread(near.x[j]), y - spread(near.y[j]), z - spread(near.z[j])
    w2 = wx * wx + wy * wy + wz * wz
    apart = larger(w2, spread(COINCIDENT * COINCIDENT))
    cosine = x * spread(near.x[j]) + y * spread(near.y[j]) + z * spread(near.z[j])
    store(block.cosine, 0, cosine * load(near.inverse, k) * spread(near.inverse[j]))
    # Nothing where the two coincide.
    mask = mask - where_less(w2, spread(COINCIDENT * COINCIDENT), mask)
    both = mask * spread(near.cut[j]) * load(near.cut, k)
    of_third = mask
    if functions.closed:
        distance = sqrt(apart)
        radius = spread(cutoff.radius)
        _fill_cut(radius - larger(radius - distance, spread(0.0)), cutoff, derive, block.cut)
        of_third = where_less(distance, radius, mask * load(block.cut, 0))
        if derive:
            across = where_less(distance, radius, both * load(block.cut, WIDTH))
            store(block.across, 0, across / distance)
        both = where_less(distance, radius, both * load(block.cut, 0))
    store(block.product, 0, both)
    if derive:
        store(block.along_u, 0, spread(near.slope[j]) * load(near.cut, k) * of_third)
        store(block.along_v, 0, spread(near.cut[j]) * load(near.slope, k) * of_third)
    _fill_powers(functions, scales, whole, derive, block)
    most = len(near.x)
    for e in range(len(functions.etas)):
        gaussian = load(near.gaussian, e * most + k) * spread(near.gaussian[e * most + j])
        if functions.closed:
            gaussian = gaussian * exp(spread(-functions.etas[e]) * w2)
        store(block.gaussian, e * WIDTH, gaussian)


@compiled
def angular(centres, pairs, cutoff, functions, features):
    """Add G4 or G5 to the rows `centres` of `features` (n_atoms, n_features)."""
    scales, whole = exponents(functions.zetas)
    n_elements, n_functions = len(functions.start), len(functions.column)
    near = _make_near(np.max(pairs.start[1:] - pairs.start[:-1]), n_elements, len(functions.etas))
    block, totals = _make_block(len(functions.etas), len(functions.zetas)), np.zeros(n_functions * WIDTH)
    for i in centres:
        n_near = _find_near(i, pairs, cutoff, functions.etas, False, near)
        totals[:] = 0.0
        for j in range(n_near):
            for element in range(near.element[j], n_elements):
                start = functions.start[near.element[j], element]
                end = functions.end[near.element[j], element]
                stop = near.begin[element + 1] if start < end else 0
                for k in range(max(j + 1, near.begin[element]), stop, WIDTH):
                    count = min(WIDTH, stop - k)
                    _fill_block(near, cutoff, functions, scales, whole, False, j, k, count, block)
                    product = load(block.product, 0)
                    for p in range(start, end):
                        value = load(block.power, functions.power[p] * WIDTH) * product
                        value = value * load(block.gaussian, functions.eta[p] * WIDTH)
                        store(totals, p * WIDTH, load(totals, p * WIDTH) + value)
        for p in range(n_functions):
            for s in range(WIDTH):
                features[i, functions.column[p]] += totals[p * WIDTH + s]


@compiled
def angular_pulls(centres, pairs, cutoff, functions, by_features, pulls):
    """Add dE/dR by way of G4 or G5 of the atoms `centres` to `pulls` (k, n_pairs, 3), eV/Å, see `radial_pulls`.

    The sums over all functions of dE/dG times the derivatives by c, s and f go to the vectors once.
    """
    scales, whole = exponents(functions.zetas)
    n_elements, n_energies = len(functions.start), len(pulls)
    near = _make_near(np.max(pairs.start[1:] - pairs.start[:-1]), n_elements, len(functions.etas))
    block, most = _make_block(len(functions.etas), len(functions.zetas)), len(near.x)
    of_first, of_second = np.zeros(3 * WIDTH), np.zeros(n_energies * 3 * most)
    closed = 1.0 if functions.closed else 0.0
    for i in centres:
        n_near = _find_near(i, pairs, cutoff, functions.etas, True, near)
        of_second[:] = 0.0
        for j in range(n_near):
            ux, uy, uz = near.x[j], near.y[j], near.z[j]
            for element in range(near.element[j], n_elements):
                start = functions.start[near.element[j], element]
                end = functions.end[near.element[j], element]
                stop = near.begin[element + 1] if start < end else 0
                for k in range(max(j + 1, near.begin[element]), stop, WIDTH):
                    _fill_block(
                        near, cutoff, functions, scales, whole, True, j, k, min(WIDTH, stop - k), block
                    )  # fmt: skip
                    x, y, z, inverse = load(near.x, k), load(near.y, k), load(near.z, k), load(near.inverse, k)
                    product, cosine = load(block.product, 0), load(block.cosine, 0)
                    for n in range(n_energies):
                        by_c, by_s, by_f = spread(0.0), spread(0.0), spread(0.0)
                        for p in range(start, end):
                            eta, power = functions.eta[p], functions.power[p] * WIDTH
                            felt = spread(by_features[n, i, functions.column[p]]) * load(block.gaussian, eta * WIDTH)
                            by_c += felt * load(block.step, power)
                            felt = felt * load(block.power, power)
                            by_f += felt
                            by_s += felt * spread(-functions.etas[eta])
                        by_c, by_s = by_c * product, by_s * product * spread(2.0)
                        across = by_f * load(block.across, 0) + by_s * spread(closed)
                        mixed = by_c * inverse * spread(near.inverse[j])
                        along_u = by_s + by_f * load(block.along_u, 0)
                        along_u = along_u - by_c * cosine * spread(near.inverse[j] * near.inverse[j])
                        along_v = by_s + by_f * load(block.along_v, 0) - by_c * cosine * inverse * inverse
                        # Along u, v and w for the first neighbour, and for the second the other way round.
                        by_first, by_second = mixed - across, mixed - across
                        along_u, along_v = along_u + across, along_v + across
                        store(of_first, 0, along_u * spread(ux) + by_first * x)
                        store(of_first, WIDTH, along_u * spread(uy) + by_first * y)
                        store(of_first, 2 * WIDTH, along_u * spread(uz) + by_first * z)
                        place = n * 3 * most + k
                        add_to(of_second, place, along_v * x + by_second * spread(ux))
                        add_to(of_second, place + most, along_v * y + by_second * spread(uy))
                        add_to(of_second, place + 2 * most, along_v * z + by_second * spread(uz))
                        for axis in range(3):
                            total = 0.0
                            for s in range(WIDTH):
                                total += of_first[axis * WIDTH + s]
                            pulls[n, near.pair[j], axis] += total
        for n in range(n_energies):
            for k in range(n_near):
                for axis in range(3):
                    pulls[n, near.pair[k], axis] += of_second[(n * 3 + axis) * most + k]
