"""Gaussian multipole moments of the density around each atom, and invariants quadratic in them.

The density is the sum over the neighbours j (the atom itself included) of B·exp(-beta·|r - R_j|²), one term for every
Gaussian of the pseudo-density. The probe is A·exp(-alpha·r²), alpha = 1/(2 sigma²), times a Maxwell–Cartesian harmonic
of order n. Their integral has a closed form: with gamma = alpha + beta and lambda = beta/gamma, the product of the two
Gaussians is a Gaussian at lambda·R_j of variance 1/(2 gamma) along each axis, over which the harmonic is averaged.

All harmonics of an order at once are the polynomial in a unit vector u

    T_n(u; x) = n!·|x|^n·P_n(u·x/|x|)      solid, homogeneous in x
    T_n(u; x) = n!·P_n(u·x/r_s)            surface: r_s = 1 Å in the place of |x| in the harmonic

whose coefficients at u_x^a·u_y^b·u_z^c, divided by n!/(a! b! c!), are the harmonics (a, b, c) of the order: derivatives
of 1/|x| along the axes, without the sign and the power of |x|. P_n is the Legendre polynomial. Taken apart by

    P_n(|x|/r_s·cos) = Σ_l h_nl(x²)·|x|^l·P_l(cos),   l = n, n - 2, …   (solid: l = n only)

the moments are mu_nlm = Σ_j Σ_k A·B_k·(π/gamma)^1.5·exp(-alpha·beta/gamma·R_j²)·h(R_j²)·R_lm(R_j) with the real solid
harmonics R_lm, orthonormal on the unit sphere, and h averaged over the Gaussian: see `_averaged_legendre`.

Lei and Medford, "A universal framework for featurization of atomistic systems", J. Phys. Chem. Lett. 13, 7911 (2022);
Applequist, "Maxwell-Cartesian spherical harmonics in multipole potentials", Theor. Chem. Acc. 107, 103 (2002).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from bdqm_tune.descriptors.pseudodensity import PseudoDensity


@dataclass(frozen=True)
class Channels:
    """The pairs (n, l) of the moments of some orders; those of order k are at `of_order[k]:of_order[k + 1]`.

    The radial function of a channel is a polynomial in R²: Σ_t factor_t·a_source·R^(2·power_t) with the terms t at
    `term_start[c]:term_start[c + 1]`, where the sums a over the Gaussians are those of `Probes.weight`.
    """

    orders: tuple[int, ...]
    surface: bool
    n: NDArray[np.int64]  # (n_channels,)
    l: NDArray[np.int64]  # (n_channels,)
    of_order: NDArray[np.int64]  # (n_orders + 1,)
    term_start: NDArray[np.int64]  # (n_channels + 1,)
    term_source: NDArray[np.int64]  # (n_terms,)
    term_power: NDArray[np.int64]  # (n_terms,)
    term_factor: NDArray[np.float64]  # (n_terms,)
    sources: tuple[tuple[int, int], ...]  # (n, m) of each sum: the power m of u·x in the polynomial of order n

    def moments(self, order: int) -> slice:
        """Slice of the moments of `orders[order]`: channel by channel, 2l + 1 each."""
        first = np.concatenate([[0], np.cumsum(2 * self.l + 1)])[self.of_order]
        return slice(int(first[order]), int(first[order + 1]))


@dataclass(frozen=True)
class Probes:
    """Products of probes and Gaussians, for some elements."""

    gaussians: NDArray[
        np.int64
    ]  # (n_elements,) number of Gaussians of each element; the tables are padded to the largest
    weight: NDArray[np.float64]  # (n_elements, n_sigmas, n_gaussians, n_sources)
    decay: NDArray[np.float64]  # (n_elements, n_sigmas, n_gaussians) 1/Å²


def channels(orders: Sequence[int], surface: bool) -> Channels:
    """The channels of these orders, order by order and in each from l = n downwards; with `surface`, also l < n."""
    pairs: list[tuple[int, int]] = []
    sources: list[tuple[int, int]] = []
    terms: list[list[tuple[int, int, float]]] = []
    of_order = [0]
    for n in orders:
        first = len(sources)
        powers = range(n, -1, -2) if surface else [n]
        sources += [(n, m) for m in powers]
        for l in powers:
            pairs.append((n, l))
            # cos^m holds P_l with the factor that legendre.poly2leg gives.
            terms.append(
                [
                    (first + k, (m - l) // 2, legendre.poly2leg([0.0] * m + [1.0])[l] if surface else 1.0)
                    for k, m in enumerate(powers)
                    if m >= l
                ]
            )
        of_order.append(len(pairs))
    flat = [term for channel in terms for term in channel]
    return Channels(
        orders=tuple(orders),
        surface=surface,
        n=np.array([n for n, _ in pairs]),
        l=np.array([l for _, l in pairs]),
        of_order=np.array(of_order),
        term_start=np.cumsum([0, *map(len, terms)]),
        term_source=np.array([source for source, _, _ in flat]),
        term_power=np.array([power for _, power, _ in flat]),
        term_factor=np.array([factor for _, _, factor in flat]),
        sources=tuple(sources),
    )


def probes(
    channels: Channels, densities: Sequence[PseudoDensity], sigmas: Sequence[float], amplitudes: Sequence[float]
) -> Probes:
    """The products of probes and densities.

    Args:
        densities: of each element, in the order of the tables.
        sigmas: widths of the probes, Å.
        amplitudes: A of each probe, in its order.
    """
    count = np.array([len(density.amplitude) for density in densities])
    b = np.zeros((len(densities), 1, max(count)))
    beta = np.ones((len(densities), 1, max(count)))
    for k, density in enumerate(densities):
        b[k, 0, : len(density.amplitude)] = density.amplitude
        beta[k, 0, : len(density.exponent)] = density.exponent
    alpha = 1 / (2 * np.array(sigmas)[None, :, None] ** 2)
    gamma = alpha + beta
    weight = np.array(amplitudes)[None, :, None] * b * (math.pi / gamma) ** 1.5
    shrink = beta / gamma
    averaged = [
        _averaged_legendre(n, m, shrink, 1 / (2 * gamma)) if channels.surface else shrink**n
        for n, m in channels.sources
    ]
    return Probes(count, weight[..., None] * np.stack(averaged, axis=-1), alpha * beta / gamma)


def _averaged_legendre(
    n: int, m: int, shrink: NDArray[np.float64], variance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The factor at (u·R)^m in the average of P_n(u·x/1 Å) over a Gaussian at shrink·R of this variance, Å².

    u·x is itself a Gaussian variable of this variance, with the mean t = shrink·(u·R), and the average of its power q
    is Σ_j q!/((q - 2j)! j!)·(variance/2)^j·t^(q - 2j).
    """
    coefficients = legendre.leg2poly([0.0] * n + [1.0])
    total = np.zeros_like(shrink)
    for q in range(m, n + 1, 2):
        j = (q - m) // 2
        ways = math.factorial(q) / (math.factorial(m) * math.factorial(j))
        total += coefficients[q] * ways * (variance / 2) ** j
    return total * shrink**m


def norms(channels: Channels) -> NDArray[np.float64]:
    """c_nl (n_channels,), with which Σ_l c_nl·Σ_m mu_nlm² is the norm of the Cartesian tensor of order n.

    c_nl = 4π·n!·(n - l)!!·(n + l + 1)!!/(2l + 1)², so that the sum is the one over the harmonics of the order, each
    squared and with its multinomial weight n!/(a! b! c!): T_n(u) = Σ n!·4π/(2l + 1)·mu_nlm·Y_lm(u), and in the scalar
    product of polynomials with those weights |u|^(n - l)·Y_lm(u) has the square (n - l)!!·(n + l + 1)!!/(4π·n!).
    """
    return np.array(
        [
            4 * math.pi * math.factorial(n) * _double(n - l) * _double(n + l + 1) / (2 * l + 1) ** 2
            for n, l in zip(channels.n.tolist(), channels.l.tolist(), strict=True)
        ]
    )


def _double(n: int) -> int:
    """n!!"""
    return math.prod(range(n, 0, -2))
