"""The best trials as one model: from the stores, calibrated without the test split, and checked on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

import bdqm_tune as bt
from bdqm_tune.admin.artifact_gc import remove_artifacts
from bdqm_tune.errors import BadInput
from bdqm_tune.evaluation.evaluation import evaluate_best, evaluate_ensemble
from bdqm_tune.evaluation.measurement import compared, coverage_metrics
from bdqm_tune.learning.calculator import EnsembleCalculator
from bdqm_tune.learning.calibration import Calibration
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.known_elements import UnknownElement
from bdqm_tune.models.ensembling import assemble, record_ensemble
from bdqm_tune.models.prediction import predict_file
from bdqm_tune.models.store import load_model, load_potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures import builtin_structures
from bdqm_tune.study.data import trial_config
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tuning.tune import tune

VALIDATION = {"validation": {"fraction": 0.3}}  # 12 structures


@pytest.fixture
def tuned(configure: Callable[..., Any], files: dict[str, str]) -> Callable[..., Any]:
    """`tuned(stores, name=…, n_trials=…)`: a study whose trials are all complete."""

    def go(stores: Stores, name: str = "small", n_trials: int = 4, **groups: Any) -> Any:
        data = {"train": files["train"], "test": files["test"], **VALIDATION, **groups.pop("data", {})}
        options = {"name": name, "n_trials": n_trials, "pruner": "none"}
        config = configure(study=options, data=data, **({"training": {"epochs": 4}} | groups))
        return tune(prepare(config, stores.home), config, stores)

    return go


def test_from_the_best_trials_to_intervals_that_are_checked(
    both: Stores, tuned: Callable[..., Any], files: dict[str, str]
) -> None:
    name = f"ensemble-{both.connection_file is None}"
    study = tuned(both, name)
    kept = both.home / "test"
    kept.rename("aside")
    made = assemble(both, name, best=3, coverage=0.8)
    run_id = record_ensemble(both, made)
    assert not kept.exists(), "the test split is not needed, and so not looked at"
    Path("aside").rename(kept)

    ranked = sorted(study.get_trials(), key=lambda trial: trial.value)[:3]
    assert made.numbers == tuple(trial.number for trial in ranked)
    client = tracking_client(both)
    run = client.get_run(run_id)
    assert run.data.tags["kind"] == "ensemble"
    assert run.data.tags["trials"] == ", ".join(str(trial.number) for trial in ranked)
    assert run.data.params == {"members": "3", "coverage": "0.8"}
    assert run.data.metrics == pytest.approx(made.metrics)
    assert run.info.status == "FINISHED"
    assert run.info.experiment_id == client.get_experiment_by_name(name).experiment_id

    loaded = load_model(run_id, both)
    assert isinstance(loaded, Ensemble)
    assert isinstance(load_model(f"runs:/{run_id}/ensemble", both), Ensemble)
    with pytest.raises(BadInput, match="is an ensemble"):
        load_potential(run_id, both)

    # What the calibration is, by hand.
    singles = [load_potential(trial.user_attrs["mlflow_run_id"], both) for trial in ranked]
    data = dataset_of(study, both)
    energies = np.array([one.predict(data.validation.structures.atoms, False).energies for one in singles])
    true = data.validation.structures.energies
    scores = np.sort(np.abs(energies.mean(axis=0) - true) / energies.std(axis=0, ddof=1))
    assert loaded.calibration is not None
    assert loaded.calibration.quantile() == pytest.approx(scores[10], rel=1e-3)  # ceil(13 · 0.8) = 11 of 12
    assert made.metrics["val_energy_mae"] == pytest.approx(np.abs(energies.mean(axis=0) - true).mean(), rel=1e-4)

    # And the coverage.
    evaluation = evaluate_ensemble(both, name)
    test = ase.io.read(files["test"], ":")
    true = np.array([atoms.get_potential_energy() for atoms in test])
    found = loaded.predict(test, forces=False)
    half = loaded.calibration.half_widths(found.energy_std, np.array([4] * 12))
    assert evaluation.metrics["test_energy_mae"] == pytest.approx(np.abs(found.energies - true).mean(), rel=1e-6)
    assert evaluation.metrics["test_coverage"] == (np.abs(found.energies - true) <= half).mean()
    assert evaluation.metrics["test_interval_width"] == pytest.approx(2 * half.mean(), rel=1e-6)
    assert evaluation.metrics["coverage"] == 0.8
    assert evaluation.trials == made.numbers
    assert evaluation.coverage is not None
    recorded = client.get_run(evaluation.run_id)
    assert recorded.data.metrics == pytest.approx(evaluation.metrics)
    assert recorded.info.run_name == "evaluation-ensemble-of-3"
    assert recorded.data.params["bootstrap_resamples"] == "2000"
    assert (recorded.data.tags["kind"], recorded.data.tags["model_run_id"]) == ("evaluation", run_id)
    with pytest.raises(BadInput, match="opened on .* for the ensemble of trials"):
        evaluate_best(both, name)
    assert evaluate_best(both, name, "to compare").trial == ranked[0].number, "the best trial is evaluated as before"

    # It is a model like others, also when the trials' own are gone.
    remove_artifacts(both, name, 1, dry_run=False)
    done = predict_file(run_id, files["test"], Path("out.xyz"), both)
    assert done.columns == (
        "energy",
        "forces",
        "energy_std",
        "energy_low",
        "energy_high",
        "energy_coverage",
        "forces_std",
    )
    assert done.trained_on_forces is False
    written = ase.io.read("out.xyz", ":")
    assert [atoms.get_potential_energy() for atoms in written] == pytest.approx(found.energies)
    assert [atoms.info["energy_std"] for atoms in written] == pytest.approx(found.energy_std)
    assert [atoms.info["energy_high"] for atoms in written] == pytest.approx(found.energies + half)
    assert [atoms.info["energy_low"] for atoms in written] == pytest.approx(found.energies - half)
    assert {atoms.info["energy_coverage"] for atoms in written} == {0.8}
    assert written[0].arrays["forces_std"].shape == (4, 3)
    # What was said before does not stay, be it labels or another model's.
    labelled = ase.io.read("out.xyz", ":")
    for atoms in labelled:
        atoms.info |= {"energy": 1.0, "free_energy": 1.0}
    ase.io.write("labelled.traj", labelled)
    predict_file(ranked[0].user_attrs["mlflow_run_id"], "labelled.traj", Path("single.xyz"), both)
    single = ase.io.read("single.xyz", 0)
    assert single.get_potential_energy() == pytest.approx(singles[0].predict([single], False).energies[0])
    assert {"energy_std", "energy_low", "energy_coverage", "free_energy"}.isdisjoint(single.info)
    assert "forces_std" not in single.arrays
    with pytest.raises(BadInput, match=r"has 4 complete trials, and the models of 3 were removed by `bdqm-tune gc`"):
        assemble(both, name, best=2)


def dataset_of(study: Any, stores: Stores) -> Dataset:
    """What a study's trials were trained on."""
    client = tracking_client(stores)
    return prepare(trial_config(client, client.get_run(study.get_trials()[0].user_attrs["mlflow_run_id"])), stores.home)


def test_the_package_makes_and_uses_an_ensemble(
    stores: Stores, tuned: Callable[..., Any], files: dict[str, str]
) -> None:
    study = tuned(stores, n_trials=2, training={"forces": True, "epochs": 2})
    made = bt.load_ensemble(study, best=2)
    made.save(Path("mine"))
    assert list(bt.load_ensemble("small", best=2, train=files["train"]).members) == list(made.members)
    atoms = ase.io.read(files["test"], 0)
    atoms.calc = bt.load_calculator("mine")
    assert isinstance(atoms.calc, EnsembleCalculator)
    assert atoms.calc.trained_on_forces is True
    low, high = atoms.calc.get_property("energy_interval", atoms)
    assert low < atoms.get_potential_energy() < high
    record_ensemble(stores, assemble(stores, "small", best=2))
    metrics = evaluate_ensemble(stores, "small").metrics
    test = ase.io.read(files["test"], ":")
    forces = np.concatenate(Ensemble.load("mine").predict(test).forces or [])
    error = forces - np.concatenate([image.get_forces() for image in test])
    assert metrics["test_forces_mae"] == pytest.approx(np.abs(error).mean(), rel=1e-6)


def test_too_few_models_or_structures_are_counted(stores: Stores, tuned: Callable[..., Any]) -> None:
    study = tuned(stores, n_trials=3)
    with pytest.raises(BadInput, match=r"'small' has 3 complete trials; an ensemble of 5 needs .*, or choose --best 3"):
        assemble(stores, "small")
    with pytest.raises(BadInput, match="--best must be at least 2, got 1"):
        assemble(stores, "small", best=1)
    with pytest.raises(
        BadInput, match=r"0\.95 needs at least 19 structures to calibrate on, there are 12.* most 0\.923"
    ):
        assemble(stores, "small", best=2, coverage=0.95)
    with pytest.raises(BadInput, match="coverage must be between 0 and 1"):
        assemble(stores, "small", best=2, coverage=90)
    with pytest.raises(BadInput, match="no study 'other' in .*; there are: small"):
        assemble(stores, "other")
    runs = MlflowClient().search_runs([study.user_attrs["mlflow_experiment_id"]])
    assert {run.data.tags["kind"] for run in runs if "kind" in run.data.tags} == {"study"}, "nothing is recorded"


def test_the_training_file_must_be_what_it_was(
    stores: Stores, tuned: Callable[..., Any], files: dict[str, str], tmp_path: Path
) -> None:
    images = ase.io.read(files["train"], ":")
    ase.io.write("mine.traj", images)
    tuned(stores, n_trials=2, data={"train": "mine.traj"})
    Path("mine.traj").rename("moved.traj")
    with pytest.raises(
        BadInput, match=r"mine\.traj: no such file .*; the trials' training file is needed, --train FILE"
    ):
        assemble(stores, "small", best=2)
    assert assemble(stores, "small", best=2, train="moved.traj").numbers
    images[3].calc.results["energy"] += 0.1
    ase.io.write("mine.traj", images)
    with pytest.raises(
        BadInput, match=r"mine\.traj: has other structures than .* has the digest \w{12} now, \w{12} then"
    ):
        assemble(stores, "small", best=2)


def test_which_ensemble_is_evaluated(stores: Stores, tuned: Callable[..., Any]) -> None:
    tuned(stores, n_trials=3)
    with pytest.raises(BadInput, match="no ensemble yet; `bdqm-tune ensemble --study small` makes one"):
        evaluate_ensemble(stores, "small")
    first, second = (record_ensemble(stores, assemble(stores, "small", best)) for best in (2, 3))
    assert len(evaluate_ensemble(stores, "small").trials) == 3
    assert len(evaluate_ensemble(stores, "small", first, reopen="both are of interest").trials) == 2
    with pytest.raises(BadInput, match=rf"no ensemble 'none'; it has latest and .*{second}"):
        evaluate_ensemble(stores, "small", "none")


def test_elements_not_trained_on_are_evaluated_where_that_is_allowed(
    stores: Stores, tuned: Callable[..., Any], files: dict[str, str]
) -> None:
    images = ase.io.read(files["test"], ":")
    for atoms in images:
        atoms.numbers[0] = 78
        atoms.calc.atoms = atoms.copy()  # so that its results still count
    ase.io.write("platinum.traj", images)
    tuned(stores, n_trials=2, data={"test": "platinum.traj"})
    record_ensemble(stores, assemble(stores, "small", best=2))
    with pytest.raises(BadInput, match="Pt"):
        evaluate_ensemble(stores, "small")
    with pytest.warns(UnknownElement, match="Pt"):
        found = evaluate_ensemble(stores, "small", allow_unknown_elements=True)
    assert len(found.errors) == len(images)


def test_the_figures_of_coverage_are_those_of_the_intervals() -> None:
    structures = builtin_structures("test").select(range(10))
    error = np.linspace(-1, 1, 10)
    half = np.full(10, 0.6)
    frame = compared(structures, structures.energies + error).assign(std=0.3)
    frame = frame.assign(low=frame["predicted"] - half, high=frame["predicted"] + half)
    found = coverage_metrics(frame, Calibration(np.linspace(1, 2, 30), 0.01, 0.9))
    assert found["test_coverage"] == 0.6  # 1/9, 3/9, 5/9 on both sides
    assert found["test_interval_width"] == pytest.approx(1.2)
    assert found["test_coverage_low"] < 0.6 < found["test_coverage_high"]
    assert "test_spread_error_correlation" not in found, "spreads that are all alike have no order"
