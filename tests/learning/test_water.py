"""Force training on the water of amptorch's examples, in its reference configuration."""

from pathlib import Path

import pytest

from bdqm_tune.backends import make_backend
from bdqm_tune.config.config import load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.dataset import prepare

AMPTORCH_FORCES_MAE, AMPTORCH_ENERGY_MAE = 0.54, 0.054  # eV/Å and eV, of the 40 validation images after 300 epochs


@pytest.mark.parametrize("lr", [3e-3, 1e-2])
def test_300_epochs_on_water_are_no_worse_than_amptorchs(shared: Path, tmp_path: Path, lr: float) -> None:
    config = load_config(
        None,
        {
            "data": {"train": f"{shared}/data/water_2d.traj"},
            "descriptor": {"orders": [0, 1, 2, 3, 4]},
            "training": {"epochs": 300, "early_stopping": None, "forces": True},
            "": {"device": "cpu"},
        },
    )
    data = prepare(config, tmp_path)
    assert (len(data.train.structures), len(data.validation.structures)) == (360, 40)
    assert data.descriptor.n_features == 40
    options = Hyperparameters(
        num_layers=3, num_nodes=20, activation="tanh", batch_size=16, force_coefficient=0.01, lr=lr
    )
    *_, last = make_backend(config, data).start(options, seed=0)
    assert last.val_forces_mae is not None
    assert last.val_forces_mae < AMPTORCH_FORCES_MAE
    assert last.val_energy_mae < AMPTORCH_ENERGY_MAE
