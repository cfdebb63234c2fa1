"""Stored derivatives: those of the descriptor, computed once, and selected without being read."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from bdqm_tune.descriptors import GMP, StoredDerivatives, stored_derivatives
from bdqm_tune.errors import BadInput
from bdqm_tune.structures import Structures

DESCRIPTOR = GMP([0, 1, 2], [0.5, 1.0], 3.0)


def structures(*extra: Atoms) -> Structures:
    atoms = [molecule("H2O"), bulk("Cu", cubic=True), Atoms("Au"), *extra]
    for i, image in enumerate(atoms):
        image.positions += np.random.default_rng(i).normal(scale=0.05, size=(len(image), 3))
    return Structures("here", atoms, np.zeros(len(atoms)), None, 10 + np.arange(len(atoms)))


def assert_is(stored: StoredDerivatives, place: int, atoms: Atoms) -> None:
    """Compare with what the descriptor says of the structure."""
    _, expected = DESCRIPTOR.sparse_derivatives(atoms)
    entries = slice(stored.first[place], stored.first[place] + stored.count[place])
    np.testing.assert_array_equal(stored.centre[entries], expected.centre)
    np.testing.assert_array_equal(stored.atom[entries], expected.atom)
    own = slice(place, place + 1)
    np.testing.assert_array_equal(stored.values.read(stored.first[own], stored.count[own]), expected.values)


def test_what_is_stored_is_what_the_descriptor_gives(tmp_path: Path) -> None:
    given = structures()
    stored = stored_derivatives(given, DESCRIPTOR, tmp_path / "new")
    for i, atoms in enumerate(given.atoms):
        assert_is(stored, i, atoms)


def test_a_second_call_reads_what_the_first_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored_derivatives(structures(), DESCRIPTOR, tmp_path)
    monkeypatch.setattr(GMP, "sparse_derivatives", None)
    stored = stored_derivatives(structures(), DESCRIPTOR, tmp_path)
    monkeypatch.undo()
    assert_is(stored, 1, structures().atoms[1])


@pytest.mark.parametrize("name", ["centre", "atom", "values", "count"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_what_was_cut_off_or_changed_is_computed_again(tmp_path: Path, name: str, damage: str) -> None:
    stored_derivatives(structures(), DESCRIPTOR, tmp_path)
    (folder,) = tmp_path.iterdir()
    whole = (folder / name).read_bytes()
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(whole[:-9] if damage == "cut" else bytes([whole[0] ^ 1]) + whole[1:])
    for i, atoms in enumerate(structures().atoms):
        assert_is(stored_derivatives(structures(), DESCRIPTOR, tmp_path), i, atoms)
    assert (folder / name).read_bytes() == whole
    assert list(tmp_path.iterdir()) == [folder]


def test_a_selection_is_in_its_own_order(tmp_path: Path) -> None:
    given = structures()
    selected = stored_derivatives(given, DESCRIPTOR, tmp_path).select(np.array([2, 0]))
    assert len(selected.count) == 2
    assert_is(selected, 0, given.atoms[2])
    assert_is(selected, 1, given.atoms[0])


def test_a_refused_structure_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="here, image 13: .*finite"):
        stored_derivatives(structures(Atoms("Cu", [[np.nan, 0, 0]])), DESCRIPTOR, tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_structures_or_another_descriptor_have_a_place_of_their_own(tmp_path: Path) -> None:
    stored_derivatives(structures(), DESCRIPTOR, tmp_path)
    stored_derivatives(structures(Atoms("H")), DESCRIPTOR, tmp_path)
    stored_derivatives(structures(), GMP([0, 1, 2], [0.5, 1.0], 3.5), tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
