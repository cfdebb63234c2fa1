"""The same loops as in `symmetry_kernels`, back from the functions to the neighbours: dE/dR of each, see `pulls`.

Each pair of neighbours takes the sums over all functions of dE/dG times their derivatives by c, s and f, and with these
three numbers goes to the vectors once, not for each function.
"""

import numpy as np

from bdqm_tune.compiled import compiled
from bdqm_tune.descriptors.symmetry_kernels import (
    COINCIDENT,
    cut,
    exponents,
    fill_powers,
    fill_slopes,
    find_near,
)

# Numba compiles these; the types are those of the arrays in `Pairs`, `Radial` and `Angular`.
# mypy: disable-error-code="no-untyped-def"


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
def angular_pulls(centres, pairs, cutoff, functions, by_features, pulls):
    """Add dE/dR by way of G4 or G5 of the atoms `centres` to `pulls`, as `radial_pulls`; see `angular`."""
    n_etas, n_powers, n_energies = len(functions.etas), len(functions.zetas), len(pulls)
    scales, whole = exponents(functions.zetas)
    powers, steps, of_pair = np.zeros(n_powers), np.zeros(n_powers), np.zeros(n_etas)
    most = np.max(pairs.start[1:] - pairs.start[:-1])
    near, cuts, cut_slopes = np.zeros(most, np.int64), np.zeros(most), np.zeros(most)
    gaussians = np.zeros((most, n_etas))
    w, dc, ds, df = np.zeros(3), np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3))
    by_c, by_s, by_f = np.zeros(n_energies), np.zeros(n_energies), np.zeros(n_energies)
    for i in centres:
        n_near = find_near(i, pairs, cutoff, functions.etas, True, near, cuts, cut_slopes, gaussians)
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
                fill_powers(functions.zetas, functions.gammas, scales, whole, c, powers, steps)
                along_u, along_v = cut_slopes[place_j] / a * cut_b * cut_d, cut_slopes[place_k] / b * cut_a * cut_d
                across = slope_d / d * cut_a * cut_b
                fill_slopes(u, v, w, a, b, c, functions.closed, along_u, along_v, across, dc, ds, df)
                for e in range(n_etas):
                    of_pair[e] = gaussians[place_j, e] * gaussians[place_k, e]
                    if functions.closed:
                        of_pair[e] *= np.exp(-functions.etas[e] * d2)
                by_c[:], by_s[:], by_f[:] = 0.0, 0.0, 0.0
                for p in range(start, end):
                    eta, power, column = functions.eta[p], functions.power[p], functions.column[p]
                    for n in range(n_energies):
                        felt = by_features[n, i, column] * of_pair[eta]
                        by_c[n] += felt * steps[power] * f
                        by_f[n] += felt * powers[power]
                        by_s[n] -= felt * powers[power] * functions.etas[eta] * f
                for n in range(n_energies):
                    for x in range(3):
                        pulls[n, j, x] += by_c[n] * dc[0, x] + by_f[n] * df[0, x] + by_s[n] * ds[0, x]
                        pulls[n, k, x] += by_c[n] * dc[1, x] + by_f[n] * df[1, x] + by_s[n] * ds[1, x]
