"""What tuning must reach on real structures, at the defaults."""

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest

from bdqm_tune.config.config import load_config
from bdqm_tune.evaluation.evaluation import evaluate_best
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import find_stores
from bdqm_tune.tuning.tune import tune

pytestmark = pytest.mark.endurance


def tuned_test_errors(train: Path, test: Path, **options: dict[str, Any]) -> dict[str, float]:
    """The errors of a study's best trial on the test split."""
    config = load_config(None, {"data": {"train": str(train), "test": str(test)}, **options})
    stores = find_stores()
    tune(prepare(config, stores.home), config, stores)
    return evaluate_best(stores, "default").metrics


@pytest.mark.parametrize(("element", "energies", "forces"), [("Mo", 3.65, 0.125), ("Si", 5.63, 0.109)])
def test_a_study_at_its_defaults_gives_a_better_potential_than_the_published_ones(
    shared: Path, workdir: Path, element: str, energies: float, forces: float
) -> None:
    """Better than n2p2's potentials of Zuo et al., J. Phys. Chem. A 124, 731 (2020): meV/atom, eV/Å."""
    data = shared / "data" / "mlearn"
    found = tuned_test_errors(data / f"{element}_train.xyz", data / f"{element}_test.xyz")
    assert 1000 * found["test_energy_mae_per_atom"] < energies
    assert found["test_forces_mae"] < forces


def test_oc20_beats_reference_energies_alone(shared: Path, workdir: Path) -> None:
    data = shared / "data"
    files = data / "oc20_300_train.traj", data / "oc20_300_test.traj"
    found = tuned_test_errors(*files, study={"n_trials": 20}, training={"epochs": 60})
    assert found["test_energy_mae"] < found["baseline_reference_energy_mae"]


def test_water_is_learnt_to_a_few_hundredths_of_an_electronvolt(shared: Path, workdir: Path) -> None:
    images = ase.io.read(shared / "data" / "water_2d.traj", ":")
    order = np.random.default_rng(0).permutation(len(images))
    for name, chosen in (("test", order[:100]), ("train", order[100:])):
        ase.io.write(workdir / f"{name}.traj", [images[i] for i in sorted(chosen)])
    options = {"study": {"n_trials": 20}, "training": {"epochs": 200, "forces": False}}
    found = tuned_test_errors(workdir / "train.traj", workdir / "test.traj", **options)
    assert found["test_energy_mae"] < 0.05
