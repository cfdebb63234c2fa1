"""Errors by element and by composition, by hand."""

import numpy as np
import pytest
from ase import Atoms

from bdqm_tune.learning.breakdown import by_class, by_element, composition_classes, deviations
from bdqm_tune.structures import Structures

FORMULAS = ["CuO", "Cu2", "OCu", "OH2", "Au"]
ERRORS = np.array([1.0, -2.0, 4.0, 8.0, 0.5])


def structures(formulas: list[str]) -> Structures:
    atoms = [Atoms(formula, positions=np.arange(3 * len(Atoms(formula))).reshape(-1, 3)) for formula in formulas]
    forces = [np.zeros((len(one), 3)) for one in atoms]
    return Structures("here", atoms, np.arange(len(atoms)) * 10.0, forces, np.arange(len(atoms)))


def test_energies_are_of_structures_with_the_element_and_forces_of_its_atoms() -> None:
    given = structures(FORMULAS)
    forces = [np.zeros((len(one), 3)) for one in given.atoms]
    forces[0][1, 0] = 3.0  # O of CuO
    forces[2][1, 2] = -1.0  # Cu of OCu
    frame = by_element(given, given.energies + ERRORS, forces).set_index("element")
    assert list(frame.index) == ["H", "O", "Cu", "Au"]
    assert frame["structures"].to_dict() == {"H": 1, "O": 3, "Cu": 3, "Au": 1}
    assert frame["atoms"].to_dict() == {"H": 2, "O": 3, "Cu": 4, "Au": 1}
    assert frame["energy_mae"].to_dict() == pytest.approx({"H": 8, "O": 13 / 3, "Cu": 7 / 3, "Au": 0.5})
    assert frame["energy_mae_per_atom"]["Cu"] == pytest.approx((0.5 + 1 + 2) / 3)
    assert frame["energy_max_error"].to_dict() == {"H": 8, "O": 8, "Cu": 4, "Au": 0.5}
    assert frame["forces_mae"].to_dict() == pytest.approx({"H": 0, "O": 3 / 9, "Cu": 1 / 12, "Au": 0})
    assert "forces_mae" not in by_element(given, given.energies + ERRORS, None)


def test_classes_are_sets_of_elements_and_small_ones_are_put_together() -> None:
    given = structures(FORMULAS)
    assert composition_classes(given, least=1).tolist() == ["O-Cu", "Cu", "O-Cu", "H-O", "Au"]
    expected = ["O-Cu", "others of 1 element", "O-Cu", "others of 2 elements", "others of 1 element"]
    assert composition_classes(given, least=2).tolist() == expected


def test_errors_of_classes_are_those_of_their_structures() -> None:
    given = structures(["CuO", "OCu"] * 6 + ["Cu"] * 3)
    errors = np.arange(15.0)
    frame = by_class(given, deviations(given, given.energies + errors, None))
    assert frame["composition"].tolist() == ["O-Cu", "others of 1 element"]
    assert frame["structures"].tolist() == [12, 3]
    assert frame["atoms"].tolist() == [24, 3]
    assert frame["energy_mae"].tolist() == pytest.approx([np.arange(12).mean(), 13])
    assert frame["energy_mae_low"].notna().tolist() == [True, False], "three structures are too few for an interval"
