"""A small real problem: rattled copper and copper-gold bulk with EMT energies, and stores in an empty folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.config import Config, load_config
from bdqm_tune.experiment.tune import tune
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import Stores, find_stores

SEARCH = {"num_layers": {"int": [1, 3]}, "num_nodes": {"int": [4, 16]}, "batch_size": {"int": [4, 16], "log": True}}


def rattled(n: int, seed: int) -> list[Atoms]:
    random = np.random.default_rng(seed)
    images = []
    for i in range(n):
        atoms = bulk("Cu", cubic=True)
        if i % 3 == 0:
            atoms.symbols[0] = "Au"
        atoms.positions += random.normal(scale=0.1, size=(4, 3))
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        images.append(atoms)
    return images


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Trajectories `train` (40 structures), `test` (12) and `other` (40 different ones)."""
    folder = tmp_path_factory.mktemp("structures")
    sizes = {"train": (40, 0), "test": (12, 1), "other": (40, 2)}
    for name, (n, seed) in sizes.items():
        ase.io.write(folder / f"{name}.traj", rattled(n, seed))
    return {name: str(folder / f"{name}.traj") for name in sizes}


@pytest.fixture
def stores(workdir: Path) -> Stores:
    """The embedded stores of an empty working directory."""
    return find_stores({})


@pytest.fixture
def configure(files: dict[str, str]) -> Callable[..., Config]:
    """`configure(study={...}, training={...}, ...)`: a configuration on the small data with quick trials."""

    def make(**groups: dict[str, Any]) -> Config:
        defaults: dict[str, dict[str, Any]] = {
            "data": {"train": files["train"], "test": files["test"]},
            "descriptor": {"orders": [0, 1], "sigmas": 3, "cutoff": 4.0},
            "training": {"epochs": 9},
            "search": SEARCH,
            "study": {"name": "small", "n_trials": 3},
        }
        return load_config(None, {name: defaults.get(name, {}) | groups.get(name, {}) for name in defaults | groups})

    return make


@pytest.fixture
def run(stores: Stores, configure: Callable[..., Config]) -> Callable[..., Any]:
    """`run(study={...}, ...)`: prepare, tune, and return (study, results in order)."""
    from bdqm_tune.experiment.trial import TrialResult

    def go(**groups: dict[str, Any]) -> Any:
        config = configure(**groups)
        results: list[TrialResult] = []
        study = tune(prepare(config, stores.home), config, stores, lambda result, _: results.append(result))
        return study, results

    return go
