"""What tuning must reach on real structures, at the settings of the README and with default options."""

from pathlib import Path

import ase.io
import numpy as np
import pytest

from bdqm_tune.config.config import load_config
from bdqm_tune.evaluation.evaluation import evaluate_best
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import find_stores
from bdqm_tune.tuning.tune import tune

pytestmark = pytest.mark.endurance


def tuned_test_error(train: Path, test: Path, n_trials: int, epochs: int) -> float:
    """Test MAE (eV) of the best of `n_trials`."""
    config = load_config(
        None,
        {
            "data": {"train": str(train), "test": str(test)},
            "study": {"n_trials": n_trials},
            "training": {"epochs": epochs},
        },
    )
    stores = find_stores()
    tune(prepare(config, stores.home), config, stores)
    return evaluate_best(stores, "default").metrics["test_energy_mae"]


def test_oc20_beats_reference_energies_alone(shared: Path, workdir: Path) -> None:
    data = shared / "data"
    error = tuned_test_error(data / "oc20_300_train.traj", data / "oc20_300_test.traj", n_trials=20, epochs=60)
    assert error < 17.8


def test_water_is_learnt_to_a_few_hundredths_of_an_electronvolt(shared: Path, workdir: Path) -> None:
    images = ase.io.read(shared / "data" / "water_2d.traj", ":")
    order = np.random.default_rng(0).permutation(len(images))
    for name, chosen in (("test", order[:100]), ("train", order[100:])):
        ase.io.write(workdir / f"{name}.traj", [images[i] for i in sorted(chosen)])
    error = tuned_test_error(workdir / "train.traj", workdir / "test.traj", n_trials=20, epochs=200)
    assert error < 0.05
