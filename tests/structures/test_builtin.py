"""The built-in data: the same on every machine, varied, and with labels that belong to the structures."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT

from bdqm_tune.structures import builtin_structures, digest, refuse_shared
from bdqm_tune.structures.builtin import METALS

REPOSITORY = Path(__file__).resolve().parents[2]
SPLITS = ["train", "test"]


def test_there_are_enough_structures() -> None:
    assert len(builtin_structures("train")) >= 400
    assert len(builtin_structures("test")) >= 100


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_finite_and_of_physical_size(split: str) -> None:
    data = builtin_structures(split)
    assert np.isfinite(data.energies).all()
    assert data.forces is not None
    assert all(f.shape == (n, 3) and np.isfinite(f).all() for f, n in zip(data.forces, data.n_atoms, strict=True))
    assert max(np.abs(f).max() for f in data.forces) < 20.0
    assert 0.1 < float(np.sqrt(np.mean(np.concatenate(data.forces) ** 2))) < 5.0
    assert np.std(data.energies / data.n_atoms) > 0.1


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_those_of_emt(split: str) -> None:
    data = builtin_structures(split)
    assert data.forces is not None
    for i in range(0, len(data), len(data) // 5):
        atoms = data.atoms[i].copy()
        atoms.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(data.energies[i], abs=1e-8)
        np.testing.assert_allclose(atoms.get_forces(), data.forces[i], atol=1e-8)


@pytest.mark.parametrize("split", SPLITS)
def test_there_are_many_metals_adsorbates_surfaces_and_bulks(split: str) -> None:
    data = builtin_structures(split)
    assert set(METALS) | {"H", "C", "N", "O"} == set(data.elements)
    present = [set(atoms.get_chemical_symbols()) for atoms in data.atoms]
    adsorbates = [tuple(sorted(symbols - set(METALS))) for symbols in present]
    kinds = {("C",), ("C", "O"), ("H",), ("H", "O"), ("N",), ("O",), ()}
    assert {kind: adsorbates.count(kind) for kind in kinds}.keys() == set(adsorbates)
    assert all(adsorbates.count(kind) >= len(data) // 50 for kind in kinds)
    empty = [np.ptp(atoms.positions[:, 2]) < atoms.cell[2, 2] - 5.0 for atoms in data.atoms]
    assert 0.5 < np.mean(empty) < 0.9  # slabs have vacuum above them, bulk has none
    alloys = [len(symbols & set(METALS)) > 1 for symbols in present]
    assert 0.2 < np.mean(alloys) < 0.8
    assert len({atoms.get_chemical_formula() for atoms in data.atoms}) > len(data) // 3


def test_training_and_test_split_share_nothing() -> None:
    refuse_shared({"training": builtin_structures("train"), "test": builtin_structures("test")})
    everything = [a.positions.tobytes() for split in ("train", "test") for a in builtin_structures(split).atoms]
    assert len(set(everything)) == len(everything)


@pytest.mark.endurance
def test_another_process_makes_the_same_structures() -> None:
    program = (
        "from bdqm_tune.structures import builtin_structures, digest\n"
        "print(digest(builtin_structures('train')), digest(builtin_structures('test')))"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert fresh.stdout.split() == [digest(builtin_structures("train")), digest(builtin_structures("test"))]
