"""Labels in a file of their own: whole, private, and nowhere else."""

import stat
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest

from bdqm_tune.errors import BdqmError
from bdqm_tune.structures import Structures, builtin_structures, digest, without_labels
from bdqm_tune.structures.sealed import is_sealed, open_labels, read_sealed, seal


@pytest.fixture
def structures() -> Structures:
    return builtin_structures("test").select(range(6))


@pytest.mark.parametrize("forces", [True, False])
def test_what_is_sealed_is_what_is_opened(structures: Structures, tmp_path: Path, forces: bool) -> None:
    given = structures if forces else Structures("x", structures.atoms, structures.energies, None, structures.images)
    seal(given, tmp_path)
    sealed = read_sealed(tmp_path, digest(given), "the test file")
    assert sealed.digest == without_labels(given).digest == digest(given)
    opened = open_labels(sealed, tmp_path)
    assert (opened.source, digest(opened)) == ("the test file", digest(given))
    assert np.array_equal(opened.energies, given.energies)
    assert (opened.forces is None) == (not forces)


def test_a_stress_that_is_a_label_is_sealed_with_the_others(structures: Structures, tmp_path: Path) -> None:
    stress = [None, *np.random.default_rng(0).normal(size=(5, 6))]
    given = replace(structures, stress=stress)
    assert digest(given) == digest(structures), "it is no label yet"
    given = given.with_stress()
    seal(given, tmp_path)
    opened = open_labels(read_sealed(tmp_path, digest(given), "the test file"), tmp_path)
    np.testing.assert_array_equal(opened.stresses, given.stresses)
    assert np.isnan(opened.stresses).any(axis=1).tolist() == [True, *[False] * 5]
    assert opened.stress_counts
    assert without_labels(opened).digest == digest(given) != digest(structures)
    (geometries,) = (tmp_path / "test").glob("*.traj")
    assert not any(row.tobytes() in geometries.read_bytes() for row in given.stresses[1:])


def test_labels_are_in_one_file_which_its_owner_alone_may_read(structures: Structures, tmp_path: Path) -> None:
    seal(structures, tmp_path)
    (geometries,), (labels,) = ((tmp_path / "test").glob(kind) for kind in ("*.traj", "*.npz"))
    assert stat.S_IMODE(labels.stat().st_mode) == 0o600
    assert {path.name for path in (tmp_path / "test").iterdir()} == {geometries.name, labels.name}
    assert all(atoms.calc is None for atoms in ase.io.read(geometries, ":"))
    content = geometries.read_bytes()
    assert not any(energy.tobytes() in content for energy in structures.energies)


def test_it_is_sealed_once(structures: Structures, tmp_path: Path) -> None:
    assert not is_sealed(tmp_path, digest(structures))
    seal(structures, tmp_path)
    written = [path.stat().st_mtime_ns for path in sorted((tmp_path / "test").iterdir())]
    seal(structures, tmp_path)
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "test").iterdir())] == written


def test_a_folder_that_cannot_be_written_is_named(structures: Structures, tmp_path: Path) -> None:
    (tmp_path / "test").touch()
    with pytest.raises(BdqmError, match=r"test.*cannot be written"):
        seal(structures, tmp_path)
