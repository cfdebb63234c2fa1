"""Features computed by torch's operations are those of the compiled loops; on a GPU as on the CPU."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.descriptors import GMP, stored_features, torch_moments
from bdqm_tune.descriptors.harmonics import solid_harmonics
from bdqm_tune.descriptors.multipoles import Multipoles
from bdqm_tune.descriptors.neighbours import find_neighbours
from bdqm_tune.errors import BadInput
from bdqm_tune.structures import Structures
from tests.descriptors.cases import CASES, CUTOFF, TABLE, crystal, free

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]
MULTIPOLES = [name for name in CASES if name.startswith("gmp")]


SMALL: dict[str, Any] = {"orders": [0, 1, 2], "sigmas": [0.7], "cutoff": CUTOFF, "pseudodensities": TABLE}


@pytest.fixture(scope="module", autouse=True)
def _one_core() -> Iterator[None]:
    """Several that wait for each other are slower by far on tensors so small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def structures() -> list[Atoms]:
    """Atoms alone, molecules, and crystals with many more neighbours."""
    random = np.random.default_rng(0)
    apart = Atoms("HO", positions=[[0, 0, 0], [0, 0, CUTOFF + 1e-6]])
    return [Atoms("Cu"), *(crystal(random) for _ in range(4)), apart, *(free(random) for _ in range(3))]


def all_features(descriptor: Multipoles) -> NDArray[np.float64]:
    given = structures()
    return descriptor.compute_all(given, [""] * len(given))


def multipoles(name: str) -> Multipoles:
    descriptor = CASES[name].descriptor
    assert isinstance(descriptor, Multipoles)
    return descriptor


def assert_equal(found: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    """To 1e-10 of each value, and where a value vanishes by symmetry, to rounding of its column."""
    assert found.shape == expected.shape
    assert (np.abs(found - expected) <= 1e-10 * np.abs(expected) + 1e-14 * np.abs(expected).max(axis=0)).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MULTIPOLES)
def test_features_are_those_of_the_compiled_loops(name: str, device: str) -> None:
    descriptor = multipoles(name)
    assert_equal(all_features(descriptor.on(device)), all_features(descriptor))
    atoms = structures()[2]
    assert_equal(descriptor.on(device).compute(atoms), descriptor.compute(atoms))


@pytest.mark.parametrize(
    "arguments",
    [{"orders": [0]}, {"orders": [3, 1]}, {"orders": [9], "solid": False}, {"sigmas": np.geomspace(0.1, 2, 9)}],
)
def test_any_orders_and_widths(arguments: dict[str, Any]) -> None:
    descriptor = GMP(**SMALL | arguments)
    assert_equal(all_features(descriptor.on("cpu")), all_features(descriptor))


def test_the_table_of_the_package_does_as_well() -> None:
    descriptor = GMP(range(4), [0.4, 1.1], CUTOFF)
    assert_equal(all_features(descriptor.on("cpu")), all_features(descriptor))


@pytest.mark.parametrize("n_bytes", [1, 20_000])
def test_features_do_not_depend_on_how_many_atoms_are_worked_on_at_once(
    n_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = GMP(**SMALL, solid=False).on("cpu")
    whole = all_features(descriptor)
    monkeypatch.setattr(torch_moments, "BYTES_AT_ONCE", n_bytes)
    assert_equal(all_features(descriptor), whole)


def test_solid_harmonics_are_the_compiled_ones() -> None:
    vectors = np.concatenate([np.zeros((1, 3)), np.eye(3), np.random.default_rng(1).normal(size=(20, 3))])
    expected, _ = solid_harmonics(vectors, 9)
    found = torch_moments.solid_harmonics(torch.from_numpy(vectors), 9).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("orders", [[0], [0, 1, 2, 3]])
def test_each_exponential_is_computed_once_for_all_orders(orders: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    given, computed, exp = structures(), [0], torch.exp
    numbers = np.concatenate([atoms.numbers for atoms in given])
    seen = np.concatenate([numbers, numbers[find_neighbours(given, CUTOFF).index]])

    def counted(values: torch.Tensor) -> torch.Tensor:
        computed[0] += values.numel()
        return exp(values)

    monkeypatch.setattr(torch, "exp", counted)
    all_features(GMP(orders, [0.4, 0.9, 1.5], CUTOFF, pseudodensities=TABLE).on("cpu"))
    assert computed[0] == 3 * sum(len(TABLE[int(z)].amplitude) for z in seen)


def test_moments_stay_on_their_device_and_no_value_is_looked_at() -> None:
    descriptor, given = GMP(**SMALL, solid=False), structures()
    found = torch_moments.moments(
        find_neighbours(given, CUTOFF),
        descriptor._species(given),
        descriptor.channels,
        descriptor._probes,
        torch.device("meta"),
    )
    assert (found.device.type, found.dtype) == ("meta", torch.float64)
    assert found.shape == (int(np.sum(2 * descriptor.channels.l + 1)), sum(map(len, given)), 1)


def test_the_store_takes_them_for_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdqm_tune.descriptors.store.ATOMS_ON_DEVICE", 20)
    atoms, descriptor = structures(), multipoles("gmp, root")
    given = Structures("here", atoms, np.zeros(len(atoms)), None, np.arange(len(atoms)))
    by_torch = stored_features(given, descriptor.on("cpu"), tmp_path)
    assert_equal(np.asarray(by_torch), all_features(descriptor))
    assert stored_features(given, descriptor, tmp_path).file.path == by_torch.file.path


def test_a_refused_structure_is_named() -> None:
    with pytest.raises(BadInput, match=r"^second: no pseudo-density for element Au"):
        multipoles("gmp").on("cpu").compute_all([Atoms("H"), Atoms("Au")], ["first", "second"])


def test_the_descriptor_itself_stays_where_it_was() -> None:
    descriptor = multipoles("gmp_groups")
    assert (descriptor.on("cuda:1").device, descriptor.device) == ("cuda:1", None)
    assert descriptor.on("cuda:1").settings == descriptor.settings
    symmetry = CASES["symmetry_functions"].descriptor
    assert symmetry.on("cuda") is symmetry
