"""Any labelled file as a further set: on record, as often as wanted, and never the sealed test split."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
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
