"""Behler–Parrinello functions of angles and all their derivatives, for training: for each function and neighbour."""

import numpy as np

from bdqm_tune.compiled import compiled
from bdqm_tune.descriptors.symmetry_kernels import COINCIDENT, cut, exponents

# Numba compiles these; the types are those of the arrays in `Pairs` and `Angular`.
# mypy: disable-error-code="no-untyped-def"


@compiled
def angular_derivatives(centres, pairs, cutoff, functions, features, derivatives):
    """Add G4 or G5 to the rows `centres` of `features`, and to `derivatives` (n_entries, n_features, 3), 1/Å.

    With u and v the vectors to the two neighbours, w = v - u, and c the cosine between u and v, a function is

        2^(1 - zeta)·(1 + gamma·c)^zeta·exp(-eta·s)·f,   s = u² + v² [+ w²],   f = f_c(|u|)·f_c(|v|)[·f_c(|w|)]

    and its derivatives with respect to u and v follow from those of c, s and f. Neighbours that coincide with the
    centre or with each other make no angle and are left out.
    """
    n_etas, n_powers = len(functions.etas), len(functions.zetas)
    scales, whole = exponents(functions.zetas)
    powers, steps, of_pair = np.zeros(n_powers), np.zeros(n_powers), np.zeros(n_etas)
    most = np.max(pairs.start[1:] - pairs.start[:-1])
    near, cuts, cut_slopes = np.zeros(most, np.int64), np.zeros(most), np.zeros(most)
    gaussians = np.zeros((most, n_etas))
    w, dc, ds, df = np.zeros(3), np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3))
    for i in centres:
        n_near = _find_near(i, pairs, cutoff, functions.etas, near, cuts, cut_slopes, gaussians)
        for place_j in range(n_near):
            j = near[place_j]
            a, u = pairs.distance[j], pairs.vector[j]
            for place_k in range(place_j + 1, n_near):
                k = near[place_k]
                start = functions.start[pairs.species[j], pairs.species[k]]
                end = functions.end[pairs.species[j], pairs.species[k]]
                if start == end:
                    continue
                b, v = pairs.distance[k], pairs.vector[k]
                d2 = 0.0
                for x in range(3):
                    w[x] = v[x] - u[x]
                    d2 += w[x] * w[x]
                d = np.sqrt(d2)
                if d < COINCIDENT or (functions.closed and d >= cutoff.radius):
                    continue
                cut_a, cut_b, cut_d, slope_d = cuts[place_j], cuts[place_k], 1.0, 0.0
                if functions.closed:
                    cut_d, slope_d = cut(d, cutoff, True)
                c = (u[0] * v[0] + u[1] * v[1] + u[2] * v[2]) / (a * b)
                f = cut_a * cut_b * cut_d
                _fill_powers(functions.zetas, functions.gammas, scales, whole, c, powers, steps)
                along_u, along_v = cut_slopes[place_j] / a * cut_b * cut_d, cut_slopes[place_k] / b * cut_a * cut_d
                across = slope_d / d * cut_a * cut_b
                _fill_slopes(u, v, w, a, b, c, functions.closed, along_u, along_v, across, dc, ds, df)
                for e in range(n_etas):
                    of_pair[e] = gaussians[place_j, e] * gaussians[place_k, e]
                    if functions.closed:
                        of_pair[e] *= np.exp(-functions.etas[e] * d2)
                for p in range(start, end):
                    gaussian, power, column = of_pair[functions.eta[p]], functions.power[p], functions.column[p]
                    features[i, column] += powers[power] * gaussian * f
                    by_c, by_f = steps[power] * gaussian * f, powers[power] * gaussian
                    by_s = -functions.etas[functions.eta[p]] * f * by_f
                    for x in range(3):
                        by_u = by_c * dc[0, x] + by_f * df[0, x] + by_s * ds[0, x]
                        by_v = by_c * dc[1, x] + by_f * df[1, x] + by_s * ds[1, x]
                        derivatives[pairs.entry[j], column, x] += by_u
                        derivatives[pairs.entry[k], column, x] += by_v
                        derivatives[pairs.own[i], column, x] -= by_u + by_v


@compiled
def _find_near(i, pairs, cutoff, etas, near, cuts, cut_slopes, gaussians):
    """Count the neighbours of an atom within the cutoff, and write what depends on one of them only.

    It is computed once, not for each pair: its place in `near`, its cutoff function and the derivative of that, and
    exp(-eta·R²) for each eta (n_neighbours, n_etas).
    """
    n_near = 0
    for pair in range(pairs.start[i], pairs.start[i + 1]):
        a = pairs.distance[pair]
        if COINCIDENT <= a < cutoff.radius:
            near[n_near] = pair
            cuts[n_near], cut_slopes[n_near] = cut(a, cutoff, True)
            for e in range(len(etas)):
                gaussians[n_near, e] = np.exp(-etas[e] * a * a)
            n_near += 1
    return n_near


@compiled
def _fill_slopes(u, v, w, a, b, c, closed, along_u, along_v, across, dc, ds, df):
    """Write the derivatives of c, s and f of `angular` with respect to u (row 0) and v (row 1), (2, 3) each."""
    apart = 1.0 if closed else 0.0
    for x in range(3):
        dc[0, x] = v[x] / (a * b) - c * u[x] / (a * a)
        dc[1, x] = u[x] / (a * b) - c * v[x] / (b * b)
        ds[0, x] = 2 * (u[x] - apart * w[x])
        ds[1, x] = 2 * (v[x] + apart * w[x])
        df[0, x] = along_u * u[x] - across * w[x]
        df[1, x] = along_v * v[x] + across * w[x]


@compiled
def _fill_powers(zetas, gammas, scales, whole, c, powers, steps):
    """2^(1 - zeta)·(1 + gamma·c)^zeta of each pair of zeta and gamma, and its derivative with respect to c."""
    for p in range(len(zetas)):
        # Rounding can bring the cosine beyond ±1, and a power of a negative number is none.
        base = max(1 + gammas[p] * c, 0.0)
        # By multiplications, where they do: ten times faster than by logarithms.
        lower = scales[p] * (base ** whole[p] if whole[p] >= 0 else base ** (zetas[p] - 1))
        powers[p] = lower * base
        steps[p] = lower * zetas[p] * gammas[p]
