"""Data that several files of these tests train on."""

from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.config.config import Config, load_config
from bdqm_tune.learning.dataset import Dataset, prepare


def rattled_alloys(n: int = 24, seed: int = 0) -> list[Atoms]:
    """Small cells of copper and gold with EMT energies and forces."""
    random = np.random.default_rng(seed)
    images = []
    for i in range(n):
        atoms = bulk("Cu", cubic=True, a=3.8).repeat((1, 1, 1 + i % 2))
        atoms.symbols[random.random(len(atoms)) < 0.4] = "Au"
        atoms.positions += random.normal(scale=0.1, size=(len(atoms), 3))
        emt = EMT()
        energy, forces = emt.get_potential_energy(atoms), emt.get_forces(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        images.append(atoms)
    return images


@pytest.fixture(scope="session")
def alloys() -> Callable[..., list[Atoms]]:
    return rattled_alloys


def small_config(train: Path | str, **groups: dict[str, object]) -> Config:
    """Two orders and three widths, so that features take no time."""
    given = {
        "data": {"train": str(train), "validation": {"fraction": 0.25}},
        "descriptor": {"orders": [0, 1, 2], "sigmas": [0.5, 1.0, 1.5], "cutoff": 4.1},
        "training": {"forces": False},
    }
    return load_config(None, {**given, **{name: {**given.get(name, {}), **values} for name, values in groups.items()}})


@pytest.fixture(scope="session")
def config_for() -> Callable[..., Config]:
    return small_config


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """24 small alloys, a quarter of them for validation."""
    folder = tmp_path_factory.mktemp("alloys")
    ase.io.write(folder / "train.traj", rattled_alloys())
    return prepare(small_config(folder / "train.traj"), folder / "home")
