"""What trials of a study are like before there are any."""

import pytest

from bdqm_tune.backends.sizes import trial_of
from bdqm_tune.config.config import load_config


def test_sizes_are_in_the_middle_of_their_ranges_or_at_the_end() -> None:
    search = {
        "num_layers": {"int": [4, 10]},
        "num_nodes": {"choice": [50, 8, 16]},
        "batch_size": {"int": [16, 256], "log": True},
        "batchnorm": {"choice": [True, False]},
        "dropout": False,
        "activation": {"choice": ["silu", "relu"]},
        "lr": 0.01,
        "descriptor.cutoff": {"float": [4.0, 6.0]},
    }
    config = load_config(None, {"search": search})
    middle, largest = trial_of(config, "middle"), trial_of(config, "largest")
    assert (middle.num_layers, middle.num_nodes, middle.batch_size) == (7, 16, 64)
    assert (largest.num_layers, largest.num_nodes, largest.batch_size) == (10, 50, 256)
    assert (middle.batchnorm, largest.batchnorm) == (False, True)
    for trial in (middle, largest):
        assert (trial.dropout, trial.activation, trial.lr) == (False, "silu", 0.01)


@pytest.mark.parametrize("which", ["middle", "largest"])
def test_what_is_fixed_stays(which: str) -> None:
    config = load_config(None, {"search": {"hidden_layers": [30, 10], "batchnorm": True, "batch_size": 7}})
    trial = trial_of(config, which)  # type: ignore[arg-type]
    assert (trial.layers, trial.batchnorm, trial.batch_size) == ([30, 10], True, 7)
