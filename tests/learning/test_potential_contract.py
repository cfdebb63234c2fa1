"""What every potential keeps to, whatever trained it: one suite over all implementations."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.calibration import Calibration
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import make_network
from bdqm_tune.learning.potential import Potential, read_potential
from bdqm_tune.n2p2 import load_n2p2
from bdqm_tune.testing import check_descriptor, check_potential
from tests.descriptors.cases import CASES, crystal, free
from tests.n2p2.files import Folder, mixture


def network(dataset: Dataset, seed: int = 0, **options: Any) -> NetworkPotential:
    """A network that was not trained, which predicts something all the same."""
    hyperparameters = Hyperparameters(hidden_layers=[6, 5], initialization="xavier", **options)
    torch.manual_seed(seed)
    elements = sorted(set(dataset.train.numbers.tolist())) if hyperparameters.network == "per_element" else []
    made = make_network(dataset.descriptor.n_features, hyperparameters, elements)
    return NetworkPotential.from_dataset(dataset, hyperparameters, made)


def ensemble(dataset: Dataset, **options: Any) -> Ensemble:
    return Ensemble({f"m{seed}": network(dataset, seed) for seed in range(3)}, **options)


def alloys() -> list[Atoms]:
    """A crystal, a slab and a cluster of the elements of `dataset`."""
    cell = bulk("Cu", cubic=True)
    cell.symbols[0] = "Au"
    cell.rattle(0.1, seed=3)
    slab = cell.copy()
    slab.pbc = [True, True, False]
    slab.center(5.0, axis=2)
    return [cell, slab, Atoms(cell.numbers, cell.positions)]


@dataclass
class Implementation:
    """A kind of model, made from a dataset in a folder, and what reads it."""

    make: Callable[[Dataset, Path], Potential | Ensemble]
    structures: Callable[[], list[Atoms]] = alloys
    read: Callable[[Path], Potential | Ensemble] = read_potential


IMPLEMENTATIONS = {
    "native": Implementation(lambda dataset, folder: network(dataset)),
    "native, a network an element": Implementation(lambda dataset, folder: network(dataset, network="per_element")),
    "ensemble": Implementation(
        lambda dataset, folder: ensemble(dataset, calibration=Calibration(np.array([0.5, 1.0, 2.0]), 1e-3, 0.5)),
        read=Ensemble.load,
    ),
    "n2p2": Implementation(lambda dataset, folder: load_n2p2(Folder().write(folder)), lambda: [mixture()]),
}


@pytest.mark.parametrize("kind", IMPLEMENTATIONS)
def test_potentials(kind: str, dataset: Dataset, tmp_path: Path) -> None:
    implementation = IMPLEMENTATIONS[kind]
    (tmp_path / "made").mkdir()
    model = implementation.make(dataset, tmp_path / "made")
    check_potential(model, implementation.structures(), tmp_path / "model", implementation.read)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.turns == "all" and case.smooth])
def test_descriptors(name: str) -> None:
    random = np.random.default_rng(5)
    check_descriptor(CASES[name].descriptor, [crystal(random), free(random, 4)])


class Wrong(Potential):
    """A model whose results are changed."""

    def __init__(self, model: NetworkPotential, change: Callable[[Atoms, dict[str, Any]], dict[str, Any]]) -> None:
        self.model, self.change = model, change

    @property
    def known_elements(self) -> tuple[int, ...] | None:
        return self.model.known_elements

    @property
    def trained_on_forces(self) -> bool | None:
        return self.model.trained_on_forces

    @property
    def n_parameters(self) -> int:
        return self.model.n_parameters

    def evaluate(self, atoms: Atoms, derivatives: bool) -> dict[str, Any]:
        return self.change(atoms, self.model.evaluate(atoms, derivatives))

    def in_precision(self, precision: Any) -> "Wrong":
        return Wrong(self.model.in_precision(precision), self.change)

    def save(self, folder: Path) -> None:
        self.model.save(folder)


def scaled(name: str, factor: float) -> Callable[[Atoms, dict[str, Any]], dict[str, Any]]:
    return lambda atoms, found: {**found, name: factor * found[name]} if name in found else found


def ordered(atoms: Atoms) -> float:
    """Something that goes by the order of the atoms."""
    return float(atoms.numbers @ np.arange(len(atoms)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (scaled("forces", 1.01), "forces, and differences of the energy: off by"),
        (scaled("stress", 160.2), "stress · volume, and differences by strain: off by"),
        (lambda atoms, found: {**found, "energy": found["energy"] + 1.0}, "energy of two cells: off by 1"),
        (
            lambda atoms, found: {**found, "energy": found["energy"] + atoms.positions[:, 0].sum()},
            "forces, and differences of the energy",
        ),
        (lambda atoms, found: {**found, "energy": found["energy"] + ordered(atoms)}, "after another order of atoms"),
    ],
)
def test_a_law_that_is_broken_is_named(change: Any, message: str, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=message):
        check_potential(Wrong(network(dataset), change), alloys(), tmp_path / "model")


def test_a_model_that_forgets_its_elements_is_found(dataset: Dataset, tmp_path: Path) -> None:
    model = network(dataset)
    reads_another = lambda folder: replace(model, known_elements=(29,))  # noqa: E731
    with pytest.raises(AssertionError, match=r"save and read: known_elements is \(29,\), and was \(29, 79\)"):
        check_potential(model, alloys()[:1], tmp_path / "model", reads_another)
