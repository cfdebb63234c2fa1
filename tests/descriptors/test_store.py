"""The feature cache: computed once for a pair of structures and descriptor, whole or not at all."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from bdqm_tune.descriptors import GMP, Descriptor, SparseDerivatives, stored_features
from bdqm_tune.descriptors.pseudodensity import PseudoDensity
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.structures import Structures
from bdqm_tune.structures.read import from_atoms


class Distances(Descriptor):
    """Distance from the origin in two units, for as many structures as it is let to."""

    def __init__(self, scale: float = 10.0, allowed: float = np.inf, error: type[Exception] = BadInput) -> None:
        self.scale, self.allowed, self.error = scale, allowed, error
        self.computed = 0

    @property
    def n_features(self) -> int:
        return 2

    @property
    def settings(self) -> dict[str, Any]:
        return {"name": "distances", "scale": self.scale}

    def compute(self, atoms: Atoms) -> NDArray[np.float64]:
        if self.computed >= self.allowed:
            raise self.error("will not")
        self.computed += 1
        distance = np.linalg.norm(atoms.positions, axis=1)
        return np.stack([distance, self.scale * distance], axis=1)

    def sparse_derivatives(self, atoms: Atoms) -> tuple[NDArray[np.float64], SparseDerivatives]:
        raise NotImplementedError


def structures(n: int = 5, shift: float = 0.0) -> Structures:
    images = []
    for i in range(n):
        atoms = Atoms(f"H{i + 1}", positions=np.arange(3.0 * (i + 1)).reshape(-1, 3) + shift)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 - i)
        images.append(atoms)
    return from_atoms(images, "given.traj")


def test_rows_are_those_of_the_atoms_structure_after_structure(tmp_path: Path) -> None:
    given = structures()
    features = stored_features(given, Distances(), tmp_path)
    assert features.shape == (15, 2)
    assert np.array_equal(features, np.concatenate([Distances().compute(atoms) for atoms in given.atoms]))


def test_the_second_time_nothing_is_computed(tmp_path: Path) -> None:
    first = stored_features(structures(), Distances(), tmp_path)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    again = stored_features(structures(), Distances(allowed=0), tmp_path)
    assert np.array_equal(first, again)
    assert file.stat().st_mtime_ns == written


def test_each_structure_is_computed_once(tmp_path: Path) -> None:
    descriptor = Distances()
    stored_features(structures(), descriptor, tmp_path)
    assert descriptor.computed == 5


def test_what_is_read_cannot_be_changed_on_the_disk(tmp_path: Path) -> None:
    features = stored_features(structures(), Distances(), tmp_path)
    for _ in range(2):
        read = np.asarray(features)
        assert read.dtype == np.float64
        assert np.array_equal(read, np.concatenate([Distances().compute(atoms) for atoms in structures().atoms]))
        read[:] = -1.0


def test_the_file_is_an_array_of_numpys(tmp_path: Path) -> None:
    features = stored_features(structures(), Distances(), tmp_path)
    assert np.array_equal(np.load(features.file.path), np.asarray(features))


def test_a_selection_is_in_its_own_order(tmp_path: Path) -> None:
    features = stored_features(structures(), Distances(), tmp_path)
    chosen = np.array([3, 4, 1, 0, 3])
    selected = features.select(chosen)
    assert selected.shape == (4 + 5 + 2 + 1 + 4, 2)
    expected = np.concatenate([Distances().compute(structures().atoms[i]) for i in chosen])
    assert np.array_equal(selected, expected)
    assert np.array_equal(pickle.loads(pickle.dumps(selected)), expected)


@pytest.mark.parametrize(("n_bytes", "sizes"), [(1, [1, 1, 1, 1, 1]), (6 * 16, [3, 1, 1]), (2**20, [5])])
def test_pieces_are_whole_structures_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_bytes: int, sizes: list[int]
) -> None:
    monkeypatch.setattr("bdqm_tune.descriptors.store.PIECE_BYTES", n_bytes)
    features = stored_features(structures(), Distances(), tmp_path)
    pieces = list(features.pieces())
    assert [piece.structures.stop - piece.structures.start for piece in pieces] == sizes
    for piece in pieces:
        assert np.array_equal(piece.features, np.asarray(features)[piece.rows])
        own = structures().atoms[piece.structures]
        assert np.array_equal(piece.features, np.concatenate([Distances().compute(atoms) for atoms in own]))
    assert pieces[-1].rows.stop == len(features) == 15


def test_a_file_that_is_removed_while_it_is_used_can_still_be_read(tmp_path: Path) -> None:
    features = stored_features(structures(), Distances(), tmp_path)
    expected = np.asarray(features)
    features.file.path.unlink()
    assert np.array_equal(features, expected)


def test_a_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    features = stored_features(structures(), Distances(), tmp_path)
    os.truncate(features.file.path, 200)
    assert np.array_equal(features.select(np.array([0])), Distances().compute(structures().atoms[0]))
    with pytest.raises(BdqmError, match=r"\.npy is cut off; remove it, and it will be computed again$"):
        np.asarray(features)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


def test_a_file_that_was_cut_off_or_changed_is_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = np.asarray(stored_features(structures(), Distances(), tmp_path))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    places = [0, 100, len(whole) // 2, len(whole) - 33, len(whole) - 1]
    damaged = [whole[:length] for length in (0, 10, 31, 32, 200, len(whole) - 32, len(whole) - 1)]
    for content in [*damaged, whole + b"\0", *(flipped(whole, place) for place in places)]:
        file.write_bytes(content)
        descriptor = Distances()
        assert np.array_equal(stored_features(structures(), descriptor, tmp_path), expected)
        assert descriptor.computed == 5
        assert capsys.readouterr().err.startswith(f"Features of given.traj: {file} is damaged, and computed again\n")
        assert (file.read_bytes(), list(tmp_path.iterdir())) == (whole, [file])


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("in the way")
    with pytest.raises(BdqmError, match=r"store/\w+\.npy: cannot be written \(File exists\)"):
        stored_features(structures(), Distances(), tmp_path / "store")


def test_other_structures_or_another_descriptor_have_a_file_of_their_own(tmp_path: Path) -> None:
    given = structures()
    pairs = [
        (given, Distances()),
        (given, Distances(scale=20.0)),
        (structures(shift=1e-9), Distances()),
        (given.select([1, 0, 2, 3, 4]), Distances()),
        (given.select([0, 1, 2, 3]), Distances()),
        (given, GMP([0], [1.0, 2.0], 5.0, pseudodensities={1: PseudoDensity(np.ones(1), np.ones(1))})),
    ]
    for made, (some, descriptor) in enumerate(pairs, start=1):
        features = stored_features(some, descriptor, tmp_path)
        assert len(list(tmp_path.iterdir())) == made
        assert np.array_equal(features, np.concatenate([descriptor.compute(atoms) for atoms in some.atoms]))


def test_labels_and_the_name_of_the_file_do_not_count(tmp_path: Path) -> None:
    given = structures()
    relabelled = Structures("other.traj", given.atoms, given.energies + 1, None, given.images)
    stored_features(given, Distances(), tmp_path)
    stored_features(relabelled, Distances(allowed=0), tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_refused_structure_is_named_and_no_file_is_left(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^given\.traj, image 3: will not$"):
        stored_features(structures(), Distances(allowed=3), tmp_path / "new" / "store")
    assert not list((tmp_path / "new" / "store").iterdir())


def test_a_refused_structure_is_named_by_its_place_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^given\.traj, image 4: will not$"):
        stored_features(structures().select([0, 4]), Distances(allowed=1), tmp_path)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_no_file_and_the_next_call_computes_afresh(
    tmp_path: Path, interruption: type[Exception]
) -> None:
    with pytest.raises(interruption):
        stored_features(structures(), Distances(allowed=3, error=interruption), tmp_path)
    assert not list(tmp_path.iterdir())
    assert np.asarray(stored_features(structures(), Distances(), tmp_path))[14, 0] > 0


def test_an_element_without_parameters_is_refused_with_file_and_image(tmp_path: Path) -> None:
    atoms = Atoms("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=0.0)
    given = from_atoms([atoms], "given.traj")
    descriptor = GMP([0], [1.0], 5.0, pseudodensities={1: PseudoDensity(np.ones(1), np.ones(1))})
    with pytest.raises(BadInput, match=r"given\.traj, image 0: no pseudo-density for element Cu; there are: H$"):
        stored_features(given, descriptor, tmp_path)
    assert not list(tmp_path.iterdir())
