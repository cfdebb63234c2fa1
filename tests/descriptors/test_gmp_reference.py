"""GMP against amptorch's numbers, and against the definition of its features by numerical integration."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.descriptors import GMP
from bdqm_tune.descriptors.gmp import default_cutoff
from bdqm_tune.descriptors.pseudodensity import PseudoDensity, Table

WIDTHS = [0.4, 0.8, 1.2, 1.6, 2.0]
SETTINGS = {
    "gmpordernorm_solid_square": {"orders": [0, 1, 2, 3, 4], "cutoff": 6.0, "square": True},
    "gmpordernorm_solid": {"orders": [0, 1, 2, 3, 4], "cutoff": 6.0, "square": False},
    "gmpordernorm_default_cutoff": {"orders": [0, 1, 2, 3], "cutoff": None, "square": True},
}
IMAGES = [
    *(f"oc20_300_test[{i}]" for i in (0, 7, 33, 120, 250)),
    *(f"water_2d[{i}]" for i in (0, 100, 399)),
    *(f"cuco[{d}]" for d in (2.0, 3.4)),
]


@pytest.fixture(scope="module")
def reference(shared: Path) -> Iterator[dict[str, NDArray[np.float64]]]:
    with np.load(shared / "reference" / "gmp.npz") as arrays:
        yield arrays


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_features_agree_with_amptorch(
    reference: dict[str, NDArray[np.float64]], shared: Path, setting: str, image: str
) -> None:
    numbers, positions, cell, pbc, expected = (
        reference[f"{setting}/{image}/{name}"] for name in ("numbers", "positions", "cell", "pbc", "features")
    )
    # amptorch cuts roots below 1e-2 off where it also computes derivatives.
    cut = not SETTINGS[setting]["square"] and f"{setting}/{image}/derivatives" in reference
    descriptor = GMP(
        **SETTINGS[setting],
        sigmas=WIDTHS,
        pseudodensities=shared / "data" / "GMP" / "valence_gaussians",
        root_floor=1e-2 if cut else 0.0,
    )
    features = descriptor.compute(Atoms(numbers, positions, cell=cell, pbc=pbc))
    assert features.shape == expected.shape
    largest = np.abs(expected).max(axis=0)
    error = np.abs(features - expected).max(axis=0)
    assert (error <= np.where(largest > 0, 1e-6 * largest, 1e-12)).all()


def test_every_image_of_the_reference_is_compared(reference: dict[str, NDArray[np.float64]]) -> None:
    assert {key.split("/")[1] for key in reference if key.split("/")[0] in SETTINGS} == set(IMAGES)


def test_the_default_cutoff_is_amptorchs() -> None:
    assert default_cutoff(WIDTHS) == 11.6
    assert GMP(sigmas=WIDTHS).cutoff == 11.6
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


def integrated_feature(order: int, sigma: float) -> float:
    """The squared feature of atom CENTRE of the structure at PLACES."""
    axis = np.arange(-7.0, 7.0, 0.2)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    density = np.zeros_like(x)
    for place, number in zip(PLACES - PLACES[CENTRE], NUMBERS, strict=True):
        distance2 = (x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2
        for amplitude, exponent in zip(TABLE[number].amplitude, TABLE[number].exponent, strict=True):
            density += amplitude * np.exp(-exponent * distance2)
    probe = np.exp(-(x**2 + y**2 + z**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi)) ** 3
    weighted = density * probe * 0.2**3
    powers = axis[None, :] ** np.arange(order + 1)[:, None]
    monomials = np.einsum("xyz,ax,by,cz->abc", weighted, powers, powers, powers, optimize=True)
    total = 0.0
    for (a, b, c), polynomial in maxwell_harmonics(order).items():
        moment = sum(factor * monomials[exponents] for exponents, factor in polynomial.items())
        total += math.factorial(order) / (math.factorial(a) * math.factorial(b) * math.factorial(c)) * moment**2
    return total


@pytest.mark.parametrize("sigma", [0.5, 1.2])
@pytest.mark.parametrize("order", range(10))
def test_a_feature_is_the_norm_of_the_integrated_moments(order: int, sigma: float) -> None:
    structure = Atoms(NUMBERS, positions=PLACES)
    feature = GMP(orders=[order], sigmas=[sigma], cutoff=5.0, pseudodensities=TABLE).compute(structure)[CENTRE, 0]
    assert feature == pytest.approx(integrated_feature(order, sigma), rel=1e-9)
    assert feature > 0


def test_the_moments_of_one_atom_alone_have_a_closed_form() -> None:
    sigma, (amplitude, exponent) = 0.8, (3.1, 1.9)
    lone = GMP(orders=list(range(10)), sigmas=[sigma], cutoff=5.0, pseudodensities=TABLE).compute(Atoms("O"))[0]
    overlap = amplitude * (math.pi / (exponent + 1 / (2 * sigma**2))) ** 1.5 / (sigma * math.sqrt(2 * math.pi)) ** 3
    assert lone[0] == pytest.approx(overlap**2, rel=1e-12)
    assert (lone[1:] == 0.0).all()
