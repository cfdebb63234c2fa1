"""Stored derivatives by the strain: those of the descriptor, of structures with a stress, and computed once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from bdqm_tune.descriptors import GMP, StoredDerivatives, stored_derivatives, stored_strain_derivatives
from bdqm_tune.structures import Structures

DESCRIPTOR = GMP([0, 1, 2], [0.5, 1.0], 3.0)


def structures() -> Structures:
    """Gold and copper with a stress, a molecule and a crystal without."""
    atoms = [bulk("Au"), molecule("H2O"), bulk("Ag"), bulk("Cu", cubic=True)]
    for i, image in enumerate(atoms):
        image.positions += np.random.default_rng(i).normal(scale=0.05, size=(len(image), 3))
    stress = [np.ones(6), np.ones(6), None, np.zeros(6)]  # that of a molecule is by no volume, and does not count
    return Structures("here", atoms, np.zeros(4), None, np.arange(4), stress)


def assert_is(stored: StoredDerivatives, place: int, atoms: Atoms) -> None:
    expected = DESCRIPTOR.sparse_derivatives(atoms, images=True)[1].features_by_strain(len(atoms))
    own = slice(place, place + 1)
    entries = slice(stored.first[place], stored.first[place] + stored.count[place])
    assert stored.centre[entries].tolist() == list(range(len(atoms)))
    np.testing.assert_array_equal(stored.values.read(stored.first[own], stored.count[own]), expected)


def test_what_is_stored_is_what_the_descriptor_gives_for_those_with_a_stress(tmp_path: Path) -> None:
    given = structures()
    stored = stored_strain_derivatives(given, DESCRIPTOR, tmp_path / "new")
    assert stored.count.tolist() == [1, 0, 0, 4]
    assert_is(stored, 0, given.atoms[0])
    assert_is(stored, 3, given.atoms[3])
    assert_is(stored.select(np.array([3, 1])), 0, given.atoms[3])


def test_a_second_call_reads_what_the_first_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored_derivatives(structures(), DESCRIPTOR, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    stored_strain_derivatives(structures(), DESCRIPTOR, tmp_path)
    monkeypatch.setattr(GMP, "sparse_derivatives", None)
    stored = stored_strain_derivatives(structures(), DESCRIPTOR, tmp_path)
    stored_derivatives(structures(), DESCRIPTOR, tmp_path)
    monkeypatch.undo()
    assert_is(stored, 3, structures().atoms[3])
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was stored before is good still"


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_what_was_cut_off_or_changed_is_computed_again(tmp_path: Path, damage: str) -> None:
    stored_strain_derivatives(structures(), DESCRIPTOR, tmp_path)
    (folder,) = tmp_path.iterdir()
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(whole[:-9] if damage == "cut" else bytes([whole[0] ^ 1]) + whole[1:])
    assert_is(stored_strain_derivatives(structures(), DESCRIPTOR, tmp_path), 3, structures().atoms[3])
    assert file.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [folder]


def test_the_values_of_the_stress_do_not_count(tmp_path: Path) -> None:
    given = structures()
    stored_strain_derivatives(given, DESCRIPTOR, tmp_path)
    assert given.stress is not None
    stored_strain_derivatives(replace(given, stress=[2 * np.ones(6), *given.stress[1:]]), DESCRIPTOR, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
