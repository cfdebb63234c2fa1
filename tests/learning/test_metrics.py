"""Errors of energies and forces, by hand."""

import numpy as np
import pytest

from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.metrics import energy_metrics, force_metrics


def test_metrics_are_those_by_hand() -> None:
    predicted, true, n_atoms = np.array([1.0, -2.0, 7.0]), np.array([2.0, -2.0, 3.0]), np.array([2, 5, 8])
    assert energy_metrics(predicted, true, n_atoms) == pytest.approx(
        {"energy_mae": 5 / 3, "energy_rmse": (17 / 3) ** 0.5, "energy_mae_per_atom": (0.5 + 0.5) / 3}
    )


def test_errors_do_not_cancel() -> None:
    metrics = energy_metrics(np.array([1.0, -1.0]), np.zeros(2), np.ones(2, dtype=np.int64))
    assert metrics == {"energy_mae": 1.0, "energy_rmse": 1.0, "energy_mae_per_atom": 1.0}


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(BdqmError, match="no structure"):
        energy_metrics(np.array([]), np.array([]), np.array([], dtype=np.int64))


def test_errors_of_forces_are_those_of_all_components() -> None:
    predicted = [np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])]
    true = [np.array([[0.0, 0.0, 0.0]]), np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 0.5]])]
    expected = {"forces_mae": 4.5 / 9, "forces_rmse": (10.25 / 9) ** 0.5}
    assert force_metrics(predicted, true) == pytest.approx(expected)
    with pytest.raises(BdqmError, match="no structure"):
        force_metrics([], [])
