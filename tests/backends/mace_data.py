"""Small alloys with EMT energies, forces and stress, and quick trainings of MACE on them."""

import os
from pathlib import Path
from typing import Any
from unittest import mock

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.backends.mace import MaceBackend, MaceRun
from bdqm_tune.config.config import Config, load_config
from bdqm_tune.learning.dataset import Dataset, prepare

# Models that take a tenth of a second an epoch.
SMALL: dict[str, Any] = {
    "r_max": 3.5,
    "num_channels": 8,
    "correlation": 2,
    "max_ell": 1,
    "num_interactions": 1,
    "num_radial_basis": 6,
    "batch_size": 4,
    "lr": 0.01,
    "energy_weight": 100.0,
    "stress_weight": 1.0,
}


def alloys(n: int, seed: int, elements: tuple[str, str] = ("Cu", "Au")) -> list[Atoms]:
    """Rattled cells of four atoms."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True, a=3.8)
        atoms.symbols[:] = random.choice(elements, size=len(atoms))
        atoms.positions += random.normal(scale=0.1, size=(len(atoms), 3))
        emt = EMT()
        results = {"energy": emt.get_potential_energy(atoms), "forces": emt.get_forces(atoms)}
        atoms.calc = SinglePointCalculator(atoms, **results, stress=emt.get_stress(atoms))
        images.append(atoms)
    return images


def mace_config(folder: Path, images: list[Atoms] | None = None, **groups: dict[str, Any]) -> Config:
    """A configuration for small trainings on the images, which are written into the folder."""
    file = folder / "train.traj"
    if images is not None or not file.exists():
        ase.io.write(file, alloys(12, 0) if images is None else images)
    given: dict[str, dict[str, Any]] = {
        "": {"backend": "mace", "device": "cpu"},
        "data": {"train": str(file), "validation": {"fraction": 0.25}},
        "training": {"epochs": 4, "precision": "float64", "smoothing": 1},
        "search": SMALL,
    }
    return load_config(None, {name: given.get(name, {}) | groups.get(name, {}) for name in given | groups})


def prepared(folder: Path, **groups: Any) -> tuple[Config, Dataset]:
    """A configuration as `mace_config`, and its data."""
    config = mace_config(folder, **groups)
    return config, prepare(config, folder / "home")


def start(config: Config, dataset: Dataset, seed: int = 3, **hyperparameters: Any) -> MaceRun:
    """A training with the hyperparameters that the configuration fixes, and others."""
    options = config.declared.hyperparameters(**{**config.fixed, **hyperparameters})
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):  # two threads that share a core wait for each other
        return MaceBackend(config, dataset).start(options, seed)  # type: ignore[arg-type]


def figures(run: MaceRun) -> list[dict[str, float]]:
    """All that was recorded, but for the time."""
    return [{k: v for k, v in record.metrics().items() if k != "epoch_seconds"} for record in run.records]
