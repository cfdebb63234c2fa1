"""Symmetry functions that are chosen for given structures, and those that are given one by one."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from bdqm_tune.config.descriptor_options import DescriptorOptions
from bdqm_tune.descriptors import descriptor_from_options, descriptor_from_settings
from bdqm_tune.descriptors.symmetry_functions import SymmetryFunctions
from bdqm_tune.descriptors.symmetry_selection import choose_columns, grid
from bdqm_tune.errors import BadInput


def alloys(n: int = 12) -> list[Atoms]:
    random, images = np.random.default_rng(1), []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True).repeat((2, 1, 1))
        atoms.symbols[random.integers(8)] = "Au"
        atoms.positions += random.normal(scale=0.15, size=atoms.positions.shape)
        images.append(atoms)
    return images


def chosen(n_functions: int, structures: list[Atoms], elements: list[str]) -> SymmetryFunctions:
    options = DescriptorOptions(name="symmetry_functions", cutoff=5.0, n_functions=n_functions)
    descriptor = descriptor_from_options(options, elements, structures)
    assert isinstance(descriptor, SymmetryFunctions)
    return descriptor


def test_the_chosen_functions_give_the_others() -> None:
    """A linear fit of the whole grid on those that were chosen leaves less than on as many drawn at random."""
    images = alloys()
    whole = np.concatenate([chosen(1, [], ["Cu", "Au"]).compute(atoms) for atoms in images])
    copper = np.concatenate([atoms.symbols == "Cu" for atoms in images])
    features = whole[copper]
    standard = (features - features.mean(axis=0)) / np.where(features.std(axis=0) > 0, features.std(axis=0), 1)

    def left(columns: list[int]) -> float:
        fitted = standard[:, columns] @ np.linalg.lstsq(standard[:, columns], standard, rcond=None)[0]
        return float(((standard - fitted) ** 2).mean())

    random = np.random.default_rng(0)
    drawn = [left(list(random.choice(features.shape[1], 12, replace=False))) for _ in range(20)]
    assert left(choose_columns(features, 12)) < min(drawn)


def test_each_element_has_as_many_as_asked_for_from_the_grid() -> None:
    found = chosen(10, alloys(), ["Cu", "Au"])
    assert {symbol: len(own) for symbol, own in found.functions.items()} == {"Cu": 10, "Au": 10}
    assert all(function in grid(["Cu", "Au"], 5.0) for own in found.functions.values() for function in own)
    assert found.functions["Cu"] != found.functions["Au"]
    assert chosen(10, alloys(), ["Cu", "Au"]).settings == found.settings
    again = descriptor_from_settings(found.settings)
    np.testing.assert_array_equal(again.compute(alloys()[0]), found.compute(alloys()[0]))


def test_what_says_nothing_new_is_not_chosen() -> None:
    column = np.random.default_rng(0).normal(size=(40, 1))
    other = np.random.default_rng(1).normal(size=(40, 1))
    features = np.hstack([np.ones_like(column), column, 3 * column + 1, other, other - 2 * column])
    assert len(choose_columns(features, 5)) == 2
    assert 0 not in choose_columns(features, 5)
    assert choose_columns(np.ones((5, 3)), 2) == [0]
    assert choose_columns(np.zeros((0, 3)), 2) == [0]


def test_an_element_that_the_structures_do_not_have_gets_a_function() -> None:
    found = chosen(6, [molecule("H2O"), molecule("H2")], ["H", "C", "O"])
    assert len(found.functions["C"]) == 1
    assert found.compute(molecule("CH4")).shape == (5, found.n_features)


def test_combinations_are_the_functions_one_by_one() -> None:
    g2, g4 = {"etas": [0.5, 4.0], "rs": [0.0, 1.0]}, {"etas": [0.1], "zetas": [1.0, 2.5], "gammas": [-1.0, 1.0]}
    combined = SymmetryFunctions(["H", "O"], {"H": 4.0, "O": 5.0}, g2, {"O": g4}, {"H": g4})
    given = {symbol: [function.options for function in own] for symbol, own in combined.functions.items()}
    one_by_one = SymmetryFunctions(["H", "O"], functions=given)
    water = molecule("H2O")
    np.testing.assert_array_equal(one_by_one.compute(water), combined.compute(water))
    mixed = [water, molecule("H2O2"), molecule("CH3OH")[[1, 3, 4]]]
    for atoms in mixed:
        np.testing.assert_array_equal(one_by_one.derivatives(atoms), combined.derivatives(atoms))
    shuffled = {symbol: own[::-1] for symbol, own in given.items()}
    other = SymmetryFunctions(["H", "O"], functions=shuffled).compute(water)
    for atom, symbol in enumerate(water.symbols):
        n = len(given[symbol])
        np.testing.assert_array_equal(other[atom, :n][::-1], combined.compute(water)[atom, :n])


@pytest.mark.parametrize("cutoff_function", ["cosine", "polynomial", "quintic", "tanh"])
def test_each_cutoff_function_falls_from_one_to_zero_and_its_derivative_is_that(cutoff_function: str) -> None:
    gamma = 3.0 if cutoff_function == "polynomial" else None
    function = {"kind": "G2", "neighbours": ["H"], "eta": 0.0, "rs": 0.0, "cutoff": 4.0}
    descriptor = SymmetryFunctions(["H"], cutoff_function=cutoff_function, gamma=gamma, functions={"H": [function]})  # type: ignore[arg-type]
    at = {d: descriptor.compute(Atoms("H2", [[0, 0, 0], [d, 0, 0]]))[0, 0] for d in (1e-3, 1.9, 2.0, 2.1, 3.999, 4.1)}
    start = np.tanh(1) ** 3 if cutoff_function == "tanh" else 1.0
    assert at[1e-3] == pytest.approx(start, abs=2e-3)
    assert at[1.9] > at[2.0] > at[2.1] > at[3.999] > at[4.1] == 0
    x = 0.5
    expected = {
        "cosine": (np.cos(np.pi * x) + 1) / 2,
        "polynomial": 1 + 3 * x**4 - 4 * x**3,
        "quintic": 1 - 10 * x**3 + 15 * x**4 - 6 * x**5,
        "tanh": np.tanh(1 - x) ** 3,
    }
    assert at[2.0] == pytest.approx(expected[cutoff_function], rel=1e-12)


FUNCTION = {"kind": "G4", "neighbours": ["H", "O"], "eta": 0.1, "zeta": 2.0, "gamma": 1.0, "cutoff": 5.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "G3"}, "function 1 of H: kind must be G2, G4, G5, got 'G3'"),
        ({"neighbours": ["H"]}, r"neighbours must be 2 of H, O, got \['H'\]"),
        ({"neighbours": ["H", "C"]}, "neighbours must be 2 of H, O"),
        ({"eta": -0.1}, "eta must be 0 or more, got -0.1"),
        ({"zeta": 0.5}, "zeta must be 1 or more"),
        ({"gamma": 2}, "gamma must be from -1 to 1"),
        ({"cutoff": 0}, "cutoff must be a positive distance"),
        ({"rs": 0.0}, "needs kind, neighbours, eta, zeta, gamma, cutoff, got kind"),
        ({"eta": "wide"}, "eta must be 0 or more, got 'wide'"),
    ],
)
def test_a_function_that_is_none_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        SymmetryFunctions(["H", "O"], functions={"H": [FUNCTION | changes], "O": [FUNCTION]})


def test_every_element_needs_functions() -> None:
    with pytest.raises(BadInput, match="functions must be given for each of H, O, got H"):
        SymmetryFunctions(["H", "O"], functions={"H": [FUNCTION]})
    with pytest.raises(BadInput, match="functions of O must be a list of functions, got \\[\\]"):
        SymmetryFunctions(["H", "O"], functions={"H": [FUNCTION], "O": []})
