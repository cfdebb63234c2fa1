"""Symmetry functions against their definition, written out plainly, and how they are asked for."""

import math
from itertools import combinations, combinations_with_replacement, product
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.neighborlist import primitive_neighbor_list

from bdqm_tune.descriptors import SymmetryFunctions
from bdqm_tune.errors import BadInput
from tests.descriptors.cases import crystal, free

ELEMENTS = ["Cu", "H", "O", "C"]  # columns go by atomic number, whatever the order here
NUMBERS = [1, 6, 8, 29]
CUTOFF = 4.3
G2 = {"etas": [4.0, 0.05], "rs": [1.5, 0.0]}
G4 = {"etas": [0.01, 1.0], "zetas": [2.5, 1.0], "gammas": [1.0, -1.0]}
G5 = {"etas": [0.02], "zetas": [1.0, 4.0], "gammas": [-0.5]}


def cut(distance: float, gamma: float | None) -> float:
    x = distance / CUTOFF
    if x >= 1:
        return 0.0
    return (1 + math.cos(math.pi * x)) / 2 if gamma is None else 1 + gamma * x ** (gamma + 1) - (gamma + 1) * x**gamma


def expected(atoms: Atoms, gamma: float | None) -> np.ndarray:
    """G2, G4 and G5 of all atoms (n_atoms, n_features), with ASE's neighbours."""
    i, j, vectors = primitive_neighbor_list("ijD", atoms.pbc, np.asarray(atoms.cell), atoms.positions, CUTOFF)
    rows = []
    for centre in range(len(atoms)):
        near = [(atoms.numbers[k], vector) for k, vector in zip(j[i == centre], vectors[i == centre], strict=True)]
        row = [g2(near, z, eta, rs, gamma) for z, eta, rs in product(NUMBERS, sorted(G2["etas"]), sorted(G2["rs"]))]
        for given, closed in ((G4, True), (G5, False)):
            grid = product(*(sorted(given[key]) for key in ("etas", "zetas", "gammas")))
            for pair, (eta, zeta, sign) in product(combinations_with_replacement(NUMBERS, 2), list(grid)):
                row.append(angular(near, pair, eta / CUTOFF**2 if closed else eta, zeta, sign, closed, gamma))
        rows.append(row)
    return np.array(rows)


def g2(near: list[Any], z: int, eta: float, rs: float, gamma: float | None) -> float:
    distances = [float(np.linalg.norm(vector)) for number, vector in near if number == z]
    return sum(math.exp(-eta / CUTOFF**2 * (r - rs) ** 2) * cut(r, gamma) for r in distances)


def angular(
    near: list[Any], pair: tuple[int, int], eta: float, zeta: float, sign: float, closed: bool, gamma: float | None
) -> float:
    total = 0.0
    for (z_j, u), (z_k, v) in combinations(near, 2):
        if sorted((z_j, z_k)) == sorted(pair):
            a, b, d = (float(np.linalg.norm(w)) for w in (u, v, v - u))
            exponent, cutoff = (a * a + b * b, cut(a, gamma) * cut(b, gamma))
            if closed:
                exponent, cutoff = exponent + d * d, cutoff * cut(d, gamma)
            total += (1 + sign * float(u @ v) / (a * b)) ** zeta * math.exp(-eta * exponent) * cutoff
    return 2 ** (1 - zeta) * total


@pytest.mark.parametrize("gamma", [None, 2.0, 4.5])
@pytest.mark.parametrize("periodic", [True, False])
def test_features_are_those_of_the_definition(gamma: float | None, periodic: bool) -> None:
    random = np.random.default_rng(3)
    atoms = crystal(random) if periodic else free(random)
    descriptor = SymmetryFunctions(
        ELEMENTS, CUTOFF, G2, G4, G5, "cosine" if gamma is None else "polynomial", gamma=gamma
    )
    wanted = expected(atoms, gamma)
    assert descriptor.n_features == wanted.shape[1] == 4 * 4 + 10 * 8 + 10 * 2
    np.testing.assert_allclose(descriptor.compute(atoms), wanted, rtol=1e-9, atol=1e-13)


def test_each_element_of_the_centre_has_its_own_functions_and_rows_end_in_zeros() -> None:
    water = molecule("H2O")
    hydrogen, oxygen = {"etas": [1.0, 2.0], "rs": [0.0]}, {"etas": [0.5], "rs": [0.7]}
    both = SymmetryFunctions(["H", "O"], {"H": 4.0, "O": 5.0}, g2={"H": hydrogen, "O": oxygen}, g4={"O": G4})
    only_hydrogen = SymmetryFunctions(["H", "O"], 4.0, g2=hydrogen).compute(water)
    only_oxygen = SymmetryFunctions(["H", "O"], 5.0, g2=oxygen, g4=G4).compute(water)
    features = both.compute(water)
    assert both.n_features == only_oxygen.shape[1] == 2 + 3 * 8
    assert np.array_equal(features[0], only_oxygen[0])
    assert np.array_equal(features[1:, :4], only_hydrogen[1:])
    assert (features[1:, 4:] == 0).all()


def test_default_stands_for_the_elements_that_are_not_named() -> None:
    named = {"H": {"etas": [1.0], "rs": [0.0]}, "default": {"etas": [2.0], "rs": [0.0]}}
    descriptor = SymmetryFunctions(["H", "C", "O"], {"default": 5.0, "O": 4.0}, g2=named)
    settings = descriptor.settings
    assert settings["cutoff"] == {"H": 5.0, "C": 5.0, "O": 4.0}
    assert [settings["g2"][element]["etas"] for element in ("H", "C", "O")] == [[1.0], [2.0], [2.0]]
    assert settings["g4"] == {}


def test_the_order_in_which_values_are_given_does_not_count() -> None:
    water = molecule("H2O")
    one = SymmetryFunctions(["H", "O"], 5.0, g2=G2, g4=G4)
    other = SymmetryFunctions(
        ["O", "H"],
        5.0,
        g2={key: values[::-1] for key, values in G2.items()},
        g4={key: np.array(values[::-1]) for key, values in G4.items()},
    )
    assert one.settings == other.settings
    assert np.array_equal(one.compute(water), other.compute(water))


def test_neighbours_at_one_place_make_no_angle() -> None:
    descriptor = SymmetryFunctions(["H", "C"], 5.0, g2=G2, g4=G4, g5=G5)
    atoms = Atoms("CHHC", positions=[[0, 0, 0], [0, 0, 1.1], [0, 0, 1.1], [0, 0, 0]])
    features, derivatives = descriptor.compute(atoms), descriptor.derivatives(atoms)
    assert np.isfinite(features).all()
    assert np.isfinite(derivatives).all()


def test_features_come_smoothly_to_zero_at_the_cutoff() -> None:
    for arguments in ({}, {"cutoff_function": "polynomial", "gamma": 2.0}):
        descriptor = SymmetryFunctions(["H"], 4.0, g2={"etas": [0.1], "rs": [0.0]}, **arguments)
        pair = [Atoms("H2", positions=[[0, 0, 0], [0, 0, 4.0 + by]]) for by in (-1e-4, 1e-4)]
        before, after = (descriptor.compute(atoms)[0, 0] for atoms in pair)
        assert 0 < before < 1e-7
        assert after == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"elements": []}, "elements must be different chemical symbols"),
        ({"elements": ["H", "H"]}, "elements must be different"),
        ({"elements": ["H", "Xx"]}, r"chemical symbols, got \['H', 'Xx'\]"),
        ({"elements": ["X"]}, "chemical symbols"),
        ({"g2": None}, "no functions: give g2, g4 or g5"),
        ({"g2": {"etas": [1.0]}}, "g2 needs the lists etas, rs, got etas"),
        ({"g2": {"etas": [1.0], "rs_s": [0.0]}}, "g2 needs the lists etas, rs, got etas, rs_s"),
        ({"g2": {"etas": [], "rs": [0.0]}}, r"g2: etas must be a list of different numbers, got \[\]"),
        ({"g2": {"etas": [1.0, 1.0], "rs": [0.0]}}, "etas must be a list of different numbers"),
        ({"g2": {"etas": 1.0, "rs": [0.0]}}, "etas must be a list"),
        ({"g2": {"etas": "1.0", "rs": [0.0]}}, "etas must be a list"),
        ({"g2": {"etas": ["1.0"], "rs": [0.0]}}, "etas must be 0 or more"),
        ({"g2": {"etas": [[1.0]], "rs": [0.0]}}, "etas must be"),
        ({"g2": {"etas": [-1.0], "rs": [0.0]}}, "etas must be 0 or more"),
        ({"g2": {"etas": [math.nan], "rs": [0.0]}}, "etas must be"),
        ({"g2": {"etas": [1.0], "rs": [math.inf]}}, "rs must be in Å"),
        ({"g2": {"O": {"etas": [1.0], "rs": [0.0]}, "N": {"etas": [1.0], "rs": [0.0]}}}, "unknown element N; .* H, O"),
        ({"g2": {"H": [1.0]}}, r"g2 needs the lists etas, rs, got \[1.0\]"),
        ({"g4": {"etas": [1.0], "zetas": [0.5], "gammas": [1.0]}}, "g4: zetas must be 1 or more"),
        ({"g5": {"etas": [1.0], "zetas": [1.0], "gammas": [-2.0]}}, "g5: gammas must be from -1 to 1"),
        ({"cutoff": 0.0}, "cutoff must be a positive distance in Å, got 0.0"),
        ({"cutoff": math.nan}, "cutoff must be a positive"),
        ({"cutoff": None}, "cutoff must be a positive"),
        ({"cutoff": {"H": 4.0}}, "cutoff must be given for each of H, O, got H"),
        ({"cutoff": {"H": 4.0, "N": 4.0, "default": 3.0}}, "cutoff must be given for each of H, O"),
        ({"cutoff_function": "cubic"}, "cutoff_function must be one of cosine, polynomial, quintic, tanh, got 'cubic'"),
        ({"cutoff_function": "polynomial"}, "gamma belongs to the polynomial"),
        ({"gamma": 2.0}, "gamma belongs to the polynomial"),
        ({"cutoff_function": "polynomial", "gamma": 0.0}, "gamma must be positive, got 0.0"),
        ({"cutoff_function": "polynomial", "gamma": math.inf}, "gamma must be positive"),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        SymmetryFunctions(**{"elements": ["H", "O"], "cutoff": 6.0, "g2": {"etas": [1.0], "rs": [0.0]}, **arguments})
