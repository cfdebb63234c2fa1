"""GMP against the definition of its features by numerical integration."""

import math
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from bdqm_tune.descriptors import GMP, GMPGroups, maxwell
from bdqm_tune.descriptors.gmp import default_cutoff
from bdqm_tune.descriptors.pseudodensity import PseudoDensity, Table

WIDTHS = [0.4, 0.8, 1.2, 1.6, 2.0]


def test_the_default_cutoff_is_amptorchs() -> None:
    assert default_cutoff(WIDTHS) == 11.6
    assert GMP([0], WIDTHS, None).cutoff == 11.6
    # There a probe of the widest sigma has decayed to the threshold.
    probe = math.exp(-(11.6**2) / (2 * 2.0**2)) / (2.0 * math.sqrt(2 * math.pi))
    assert probe == pytest.approx(1e-8, rel=0.05)


# The definition: moments of the density with the Maxwell–Cartesian harmonics under a Gaussian, summed over the
# components of an order with their multinomial weights. Neither spherical harmonics nor the closed form of the
# integral is used: the harmonics come from derivatives of 1/r, the integrals from a grid (for Gaussians, the sum over
# an even grid converges faster than any power of its spacing).

Polynomial = dict[tuple[int, int, int], float]  # powers of x, y, z → coefficient
TABLE: Table = {
    6: PseudoDensity(np.array([2.0, -0.7]), np.array([1.3, 2.4])),
    8: PseudoDensity(np.array([3.1]), np.array([1.9])),
}
CUTOFF = 5.0
PLACES = np.array([[0.0, 0.0, 0.0], [0.9, -0.4, 0.6], [-0.3, 1.1, 0.2]])
NUMBERS = [8, 6, 8]
CENTRE = 0


def maxwell_harmonics(order: int) -> dict[tuple[int, int, int], Polynomial]:
    """P in ∂^(a+b+c)/∂x^a∂y^b∂z^c (1/r) = (-1)^n·P/r^(2n+1), for all a + b + c = n = order."""
    found: dict[tuple[int, int, int], Polynomial] = {(0, 0, 0): {(0, 0, 0): 1.0}}
    for n in range(order):
        higher: dict[tuple[int, int, int], Polynomial] = {}
        for index, polynomial in found.items():
            for axis in range(3):
                raised = add(index, axis, 1)
                higher[raised] = {}
                # ∂(P/r^(2n+1)) = (r²·∂P - (2n+1)·x·P)/r^(2n+3)
                for powers, factor in polynomial.items():
                    accumulate(higher[raised], add(powers, axis, 1), (2 * n + 1) * factor)
                    if powers[axis]:
                        for other in range(3):
                            lowered = add(add(powers, axis, -1), other, 2)
                            accumulate(higher[raised], lowered, -powers[axis] * factor)
        found = higher
    return found


def add(index: tuple[int, int, int], axis: int, by: int) -> tuple[int, int, int]:
    changed = list(index)
    changed[axis] += by
    return changed[0], changed[1], changed[2]


def accumulate(polynomial: Polynomial, powers: tuple[int, int, int], factor: float) -> None:
    polynomial[powers] = polynomial.get(powers, 0.0) + factor


def weight(place: np.ndarray) -> float:
    """With which a smooth cutoff counts an atom: Unke and Meuwly, J. Chem. Theory Comput. 15, 3678 (2019)."""
    x = float(np.linalg.norm(place)) / CUTOFF
    return 1 - 10 * x**3 + 15 * x**4 - 6 * x**5


def integrated_moments(
    order: int, sigma: float, solid: bool, smooth: bool = False
) -> dict[tuple[int, int, int], float]:
    """The moments of each harmonic for atom CENTRE of the structure at PLACES, with a probe of integral 1."""
    axis = np.arange(-7.0, 7.0, 0.2)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    density = np.zeros_like(x)
    for place, number in zip(PLACES - PLACES[CENTRE], NUMBERS, strict=True):
        distance2 = (x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2
        for amplitude, exponent in zip(TABLE[number].amplitude, TABLE[number].exponent, strict=True):
            density += (weight(place) if smooth else 1.0) * amplitude * np.exp(-exponent * distance2)
    probe = np.exp(-(x**2 + y**2 + z**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi)) ** 3
    weighted = density * probe * 0.2**3
    powers = axis[None, :] ** np.arange(order + 1)[:, None]
    monomials = np.einsum("xyz,ax,by,cz->abc", weighted, powers, powers, powers, optimize=True)
    harmonics = maxwell_harmonics(order) if solid else {abc: surface_harmonic(abc) for abc in maxwell_harmonics(order)}
    return {
        abc: sum(factor * monomials[exponents] for exponents, factor in polynomial.items())
        for abc, polynomial in harmonics.items()
    }


def surface_harmonic(abc: tuple[int, int, int]) -> Polynomial:
    """The harmonic with r² = 1 Å² wherever r stands in it.

    It is Σ_ijk (-1)^m·(2n - 2m - 1)!!·Π_a a!/(i!·2^i·(a - 2i)!)·x^(a - 2i)·… r^(2m) with m = i + j + k (Applequist,
    Theor. Chem. Acc. 107, 103 (2002), equation 8).
    """
    n = sum(abc)
    polynomial: Polynomial = {}
    for halves in np.ndindex(*(a // 2 + 1 for a in abc)):
        m = sum(halves)
        factor = (-1.0) ** m * math.prod(range(1, 2 * (n - m), 2))
        for a, i in zip(abc, halves, strict=True):
            factor *= math.factorial(a) / (math.factorial(i) * 2**i * math.factorial(a - 2 * i))
        a, b, c = (a - 2 * i for a, i in zip(abc, halves, strict=True))
        accumulate(polynomial, (a, b, c), factor)
    return polynomial


def multinomial(abc: tuple[int, int, int]) -> float:
    return math.factorial(sum(abc)) / math.prod(map(math.factorial, abc))


STRUCTURE = Atoms(NUMBERS, positions=PLACES)


@pytest.mark.parametrize(("sigma", "smooth"), [(0.5, True), (1.2, False)])
@pytest.mark.parametrize("solid", [True, False])
@pytest.mark.parametrize("order", range(10))
def test_a_feature_is_the_norm_of_the_integrated_moments(order: int, sigma: float, solid: bool, smooth: bool) -> None:
    gmp = GMP([order], [sigma], CUTOFF, solid=solid, pseudodensities=TABLE, smooth_cutoff=smooth)
    expected = sum(multinomial(abc) * mu**2 for abc, mu in integrated_moments(order, sigma, solid, smooth).items())
    assert gmp.compute(STRUCTURE)[CENTRE, 0] == pytest.approx(expected, rel=1e-9)
    assert expected > 0


@pytest.mark.parametrize(("sigma", "smooth"), [(0.5, False), (1.2, True)])
@pytest.mark.parametrize("order", range(10))
def test_the_feature_of_a_group_is_the_sum_over_its_harmonics(order: int, sigma: float, smooth: bool) -> None:
    options: dict[str, Any] = {"cutoff": CUTOFF, "pseudodensities": TABLE, "smooth_cutoff": smooth}
    numbers = range(1, len(maxwell.groups(order)) + 1)
    groups = GMPGroups({order: numbers}, [sigma], square=True, **options)
    # The amplitude of its probe is not the one of a probe of integral 1.
    amplitude = (sigma * math.sqrt(2 * math.pi)) ** 2
    expected = dict.fromkeys(maxwell.groups(order), 0.0)
    for abc, mu in integrated_moments(order, sigma, False, smooth).items():
        a, b, c = sorted(abc, reverse=True)
        expected[a, b, c] += (amplitude * mu) ** 2
    np.testing.assert_allclose(groups.compute(STRUCTURE)[CENTRE], list(expected.values()), rtol=1e-8)
    roots = GMPGroups({order: numbers}, [sigma], square=False, **options)
    np.testing.assert_allclose(roots.compute(STRUCTURE)[CENTRE] ** 2, list(expected.values()), rtol=1e-8)


def test_a_group_of_one_harmonic_keeps_the_sign_of_its_moment() -> None:
    groups = GMPGroups({3: [3]}, [0.8], CUTOFF, square=False, pseudodensities=TABLE, smooth_cutoff=False)
    moment = integrated_moments(3, 0.8, solid=False)[1, 1, 1] * (0.8 * math.sqrt(2 * math.pi)) ** 2
    assert groups.compute(STRUCTURE)[CENTRE, 0] == pytest.approx(moment, rel=1e-9)
    mirrored = STRUCTURE.copy()
    mirrored.positions[:, 0] *= -1
    assert groups.compute(mirrored)[CENTRE, 0] == pytest.approx(-moment, rel=1e-9)


def test_the_moments_of_one_atom_alone_have_a_closed_form() -> None:
    sigma, (amplitude, exponent) = 0.8, (3.1, 1.9)
    lone = GMP(orders=list(range(10)), sigmas=[sigma], cutoff=CUTOFF, pseudodensities=TABLE).compute(Atoms("O"))[0]
    overlap = amplitude * (math.pi / (exponent + 1 / (2 * sigma**2))) ** 1.5 / (sigma * math.sqrt(2 * math.pi)) ** 3
    assert lone[0] == pytest.approx(overlap**2, rel=1e-12)
    assert (lone[1:] == 0.0).all()
