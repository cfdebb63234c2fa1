"""Predictions without a network, by hand."""

import numpy as np
import pytest
from ase import Atoms

from bdqm_tune.learning.baselines import MEAN, REFERENCE, baseline_energies
from bdqm_tune.structures import Structures


def test_baselines_come_from_the_training_split_alone() -> None:
    formulas = ["Cu4", "Cu2Au2", "CuAu3", "Au4", "Cu8", "Au2Cu6"]
    atoms = [Atoms(formula) for formula in formulas]
    energies = np.array([-1.5 * (a.numbers == 29).sum() - 3.0 * (a.numbers == 79).sum() for a in atoms])
    train = Structures("train", atoms, energies, None, np.arange(6))
    test = Structures("test", [Atoms("Cu3Au"), Atoms("Cu")], np.array([100.0, 100.0]), None, np.arange(2))
    found = baseline_energies(train, test)
    assert found[MEAN].tolist() == pytest.approx([energies.mean()] * 2)
    assert found[REFERENCE] == pytest.approx(np.array([-7.5, -1.5]), abs=1e-3)
