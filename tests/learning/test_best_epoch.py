"""The best epoch of trainings that say less than ours does."""

import pytest

from bdqm_tune.config.config import Training
from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.fit import BestEpoch, Diverged, EpochRecord

TRAINING = Training(smoothing=1, early_stopping=None)


def record(epoch: int, per_atom: float | None, forces: float | None = None) -> EpochRecord:
    return EpochRecord(epoch, None, None, None, per_atom, None, 0.1, val_forces_mae=forces)


def test_what_is_not_known_is_not_needed_and_not_logged() -> None:
    best = BestEpoch(TRAINING, "val_energy_mae_per_atom", "none")
    assert [best.improves(record(epoch, error)) for epoch, error in enumerate((0.3, 0.1, 0.2), start=1)] == [1, 1, 0]
    assert best.record is not None
    assert best.record.epoch == 2
    assert best.record.metrics() == {"val_energy_mae_per_atom": 0.1, "epoch_seconds": 0.1}
    assert record(1, 0.5, 2.0).val_energy_forces == pytest.approx(0.5 + 0.1 * 2.0)
    assert record(1, None, 2.0).val_energy_forces is None


def test_an_objective_that_is_not_there_is_refused_and_an_infinite_one_has_diverged() -> None:
    with pytest.raises(BdqmError, match="val_energy_mae needs epochs that have it"):
        BestEpoch(TRAINING, "val_energy_mae", "none").improves(record(1, 0.1))
    with pytest.raises(Diverged, match="epoch 1.* nan eV/atom"):
        BestEpoch(TRAINING, "val_energy_mae_per_atom", "none").improves(record(1, float("nan")))
