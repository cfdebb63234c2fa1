"""Features and derivatives computed in threads: the same as without."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from bdqm_tune import threads
from bdqm_tune.descriptors import store, stored_derivatives, stored_features
from bdqm_tune.errors import BadInput
from bdqm_tune.structures import Structures
from tests.descriptors.cases import CASES, crystal


@pytest.fixture(params=[1, 4])
def n_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(threads, "usable_cores", lambda: request.param)
    return int(request.param)


def test_pieces_hold_all_structures_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ATOMS", 10)
    n_atoms = np.array([3, 3, 3, 3, 25, 1, 1, 40, 9, 9])
    pieces = store.in_pieces(n_atoms)
    assert [i for piece in pieces for i in range(10)[piece]] == list(range(10))
    assert all(n_atoms[piece][:-1].sum() < 10 for piece in pieces)
    assert len(pieces) < 10


@pytest.mark.parametrize("case", ["gmp, root", "gmp_groups", "symmetry_functions"])
def test_what_is_stored_does_not_depend_on_threads_or_pieces(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    atoms = [Atoms("Cu"), *(crystal(random) for _ in range(30)), Atoms("H2", [[0, 0, 0], [0, 0, 1]])]
    given = Structures("here", atoms, np.zeros(len(atoms)), None, np.arange(len(atoms)))
    descriptor = CASES[case].descriptor
    expected = np.concatenate([descriptor.compute(structure) for structure in atoms])
    derivatives = np.concatenate([descriptor.sparse_derivatives(structure)[1].values for structure in atoms])
    for n_threads, n_atoms in ((1, 500), (4, 20), (3, 1)):
        monkeypatch.setattr(threads, "usable_cores", lambda n=n_threads: n)
        monkeypatch.setattr(store, "ATOMS", n_atoms)
        folder = tmp_path / str(n_atoms)
        assert np.array_equal(stored_features(given, descriptor, folder), expected)
        stored = stored_derivatives(given, descriptor, folder)
        assert np.array_equal(stored.values.read(stored.first, stored.count), derivatives)


def test_a_refused_structure_is_named_also_in_threads(
    n_threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ATOMS", 20)
    atoms = [crystal(np.random.default_rng(i)) for i in range(12)]
    atoms[7].positions[0] = np.nan
    given = Structures("here", atoms, np.zeros(12), None, 100 + np.arange(12))
    with pytest.raises(BadInput, match=r"^here, image 107: "):
        stored_features(given, CASES["gmp"].descriptor, tmp_path)
    with pytest.raises(BadInput, match=r"^here, image 107: "):
        stored_derivatives(given, CASES["gmp"].descriptor, tmp_path)
    assert not list(tmp_path.iterdir())
