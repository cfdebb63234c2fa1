"""Errors of energies and forces, by hand."""

import numpy as np
import pytest
import sklearn.metrics

from bdqm_tune.errors import BdqmError
from bdqm_tune.learning.metrics import energy_metrics, force_deviations, stress_deviations


def test_metrics_are_those_by_hand() -> None:
    predicted, true, n_atoms = np.array([1.0, -2.0, 7.0]), np.array([2.0, -2.0, 3.0]), np.array([2, 5, 8])
    assert energy_metrics(predicted, true, n_atoms) == pytest.approx(
        {
            "energy_mae": 5 / 3,
            "energy_rmse": (17 / 3) ** 0.5,
            "energy_r2": 1 - 17 / 14,  # the true energies have the mean 1
            "energy_max_error": 4.0,
            "energy_mae_per_atom": (0.5 + 0.5) / 3,
            "energy_rmse_per_atom": (0.5 / 3) ** 0.5,
            "energy_r2_per_atom": 1 - 0.5 / (1 + 0.4**2 + 0.375**2 - 0.975**2 / 3),
            "energy_max_error_per_atom": 0.5,
        }
    )


def test_metrics_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    n_atoms = random.integers(1, 60, size=200)
    true = -4000.0 * n_atoms + random.normal(scale=3.0, size=200)  # as of all electrons: squares leave few digits
    predicted = true + random.normal(scale=0.5, size=200)
    found = energy_metrics(predicted, true, n_atoms)
    for ending, p, t in (("", predicted, true), ("_per_atom", predicted / n_atoms, true / n_atoms)):
        assert found[f"energy_mae{ending}"] == pytest.approx(sklearn.metrics.mean_absolute_error(t, p))
        assert found[f"energy_rmse{ending}"] == pytest.approx(sklearn.metrics.root_mean_squared_error(t, p))
        assert found[f"energy_r2{ending}"] == pytest.approx(sklearn.metrics.r2_score(t, p), abs=1e-9)
        assert found[f"energy_max_error{ending}"] == pytest.approx(sklearn.metrics.max_error(t, p))
    forces = [random.normal(size=(n, 3)) for n in n_atoms]
    off = [f + random.normal(scale=0.3, size=f.shape) for f in forces]
    found, (t, p) = force_deviations(off, forces).metrics(), (np.concatenate(each).ravel() for each in (forces, off))
    assert found == pytest.approx(
        {
            "forces_mae": sklearn.metrics.mean_absolute_error(t, p),
            "forces_rmse": sklearn.metrics.root_mean_squared_error(t, p),
            "forces_r2": sklearn.metrics.r2_score(t, p),
            "forces_max_error": sklearn.metrics.max_error(t, p),
        }
    )


def test_errors_do_not_cancel() -> None:
    metrics = energy_metrics(np.array([1.0, -1.0]), np.zeros(2), np.ones(2, dtype=np.int64))
    assert metrics == {f"energy_{kind}{end}": 1.0 for end in ("", "_per_atom") for kind in ("mae", "rmse", "max_error")}


def test_true_values_that_are_all_alike_have_no_r2() -> None:
    metrics = energy_metrics(np.array([1.0, 2.0, 4.0]), np.full(3, 0.1), np.full(3, 3))
    assert not any("r2" in name for name in metrics)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(BdqmError, match="no structure"):
        energy_metrics(np.array([]), np.array([]), np.array([], dtype=np.int64))


def test_errors_of_forces_are_those_of_all_components() -> None:
    predicted = [np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])]
    true = [np.array([[0.0, 0.0, 0.0]]), np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 0.5]])]
    expected = {"forces_mae": 4.5 / 9, "forces_rmse": (10.25 / 9) ** 0.5, "forces_max_error": 3.0}
    expected |= {"forces_r2": 1 - 10.25 / (1.25 - 0.25 / 9)}
    assert force_deviations(predicted, true).metrics() == pytest.approx(expected)


def test_errors_of_the_stress_are_those_of_the_components_that_are_known() -> None:
    true = np.array([[0.0, 0.1, 0.2, 0.0, 0.0, 0.0], np.full(6, np.nan), np.zeros(6)])
    predicted = np.array([[0.3, 0.1, 0.2, 0.0, 0.0, 0.0], np.zeros(6), np.full(6, -0.1)])
    found = stress_deviations(predicted, true)
    expected = {"stress_mae": 0.9 / 12, "stress_rmse": (0.15 / 12) ** 0.5, "stress_max_error": 0.3}
    expected["stress_r2"] = 1 - 0.15 / (0.05 - 0.09 / 12)
    assert found.metrics() == pytest.approx(expected)
    assert found.select(np.array([0])).metrics()["stress_mae"] == pytest.approx(0.05)


def test_errors_of_forces_on_some_atoms_are_those_alone() -> None:
    predicted = [np.array([[1.0, 0.0, 0.0], [9.0, 9.0, 9.0]]), np.zeros((1, 3))]
    true = [np.zeros((2, 3)), np.zeros((1, 3))]
    found = force_deviations(predicted, true, [np.array([True, False]), np.array([False])])
    assert found.metrics() == pytest.approx({"forces_mae": 1 / 3, "forces_rmse": 3**-0.5, "forces_max_error": 1.0})
    with pytest.raises(BdqmError, match="no structure"):
        force_deviations([], [])
