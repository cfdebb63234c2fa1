"""Any labelled file as a further set: on record, as often as wanted, and never the sealed test split."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.errors import BadInput
from bdqm_tune.evaluation.evaluation import chosen, evaluate_best
from bdqm_tune.evaluation.further_set import RECORD, evaluate_file
from bdqm_tune.evaluation.lockbox import openings
from bdqm_tune.models.store import load_potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.study import load_study
from bdqm_tune.tracking.client import tracking_client

Run = Callable[..., Any]


def test_a_file_is_evaluated_on_record_and_the_test_split_stays_sealed(
    run: Run, stores: Stores, files: dict[str, str], tmp_path: Path
) -> None:
    run(study={"n_trials": 1}, data={"train": files["train"], "test": files["test"]})
    images = ase.io.read(files["test"], ":")
    for atoms in images:
        results = dict(atoms.calc.results)
        atoms.positions += np.random.default_rng(0).normal(scale=0.03, size=atoms.positions.shape)
        atoms.calc = SinglePointCalculator(atoms, **results)
    ase.io.write("more.extxyz", images)
    found = evaluate_file(stores, "small", "more.extxyz", chosen())
    client = tracking_client(stores)
    recorded = client.get_run(found.run_id)
    potential = load_potential(f"runs:/{recorded.data.tags['model_run_id']}/model", stores)
    true = np.array([atoms.get_potential_energy() for atoms in images])
    assert found.metrics["set_energy_mae"] == pytest.approx(np.abs(potential.predict(images).energies - true).mean())
    assert not [name for name in found.metrics if name.startswith("test")]
    assert recorded.data.metrics == pytest.approx(found.metrics)
    assert recorded.data.tags["set_file"] == "more.extxyz"
    assert {file.path for file in client.list_artifacts(found.run_id)} >= {RECORD, "set_errors.csv", "set_overlap.csv"}
    assert openings(load_study(stores, "small")) == []
    evaluate_file(stores, "small", "more.extxyz", chosen(0))
    # A copy of one test structure is enough to be refused, and the box opens as if nothing had been.
    turned = ase.io.read(files["test"], 3)
    results = dict(turned.calc.results)
    turned = turned[::-1]
    turned.calc = SinglePointCalculator(turned, **results)
    ase.io.write("copy.traj", [*images[:2], turned])
    with pytest.raises(BadInput, match=r"copy\.traj: has structures of the sealed test split.*test image 3"):
        evaluate_file(stores, "small", "copy.traj", chosen())
    assert evaluate_best(stores, "small").opening.number == 1


def test_a_file_is_read_as_the_studys_own(run: Run, stores: Stores, files: dict[str, str], workdir: Path) -> None:
    """Labels of the names that the study was trained on, and no frames of isolated atoms where those are references."""
    images = ase.io.read(files["train"], ":")
    isolated = [Atoms(symbol, info={"config_type": "IsolatedAtom"}) for symbol in ("Au", "Cu")]
    energies = [-3.0, -3.5, *(atoms.get_potential_energy() for atoms in images)]
    given = [*isolated, *images]
    for atoms, energy in zip(given, energies, strict=True):
        atoms.info["REF_energy"] = energy
        atoms.calc = SinglePointCalculator(atoms, energy=energy + 100.0)  # of another code
    ase.io.write("train.xyz", given)
    ase.io.write("more.xyz", given[:5])
    options = {"train": "train.xyz", "test": None, "energy_key": "REF_energy"}
    run(study={"n_trials": 1}, data=options, target={"reference_energies": "isolated_atoms"})
    errors = evaluate_file(stores, "small", "more.xyz", chosen()).tables["errors"]
    assert errors["image"].tolist() == [2, 3, 4]
    assert errors["energy"].tolist() == pytest.approx(energies[2:5])
