"""The best model on the test split, and models taken away to be used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import optuna
import pytest
import sklearn.metrics
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from mlflow.tracking import MlflowClient

import bdqm_tune as bt
from bdqm_tune.config.config import Config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.confirmation.confirm import Options, confirm
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.evaluation.evaluation import evaluate_best
from bdqm_tune.evaluation.measurement import predict
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import make_network
from bdqm_tune.models.prediction import predict_file
from bdqm_tune.models.store import load_potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.selection import best_trial
from bdqm_tune.study.study import RUN_ID
from bdqm_tune.tracking.client import tracking_client

Run = Callable[..., Any]


def test_the_best_trial_is_evaluated_and_recorded(
    run: Run, configure: Callable[..., Config], stores: Stores, files: dict[str, str]
) -> None:
    study, results = run(study={"n_trials": 4, "pruner": "none"})
    evaluation = evaluate_best(stores, "small")
    best = min(results, key=lambda result: result.val_energy_mae)
    assert evaluation.trial == best.number

    test = ase.io.read(files["test"], ":")
    true = np.array([atoms.get_potential_energy() for atoms in test])
    run_id = study.get_trials()[best.number].user_attrs["mlflow_run_id"]
    predicted = load_potential(f"runs:/{run_id}/model", stores).predict(test).energies
    error = predicted - true
    expected = {
        "test_energy_mae": np.abs(error).mean(),
        "test_energy_rmse": np.sqrt((error**2).mean()),
        "test_energy_r2": sklearn.metrics.r2_score(true, predicted),
        "test_energy_max_error": np.abs(error).max(),
        "test_energy_mae_per_atom": np.abs(error).mean() / 4,
    }
    assert {name: evaluation.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    ends = [evaluation.metrics[f"test_energy_mae_{end}"] for end in ("low", "high")]
    assert ends[0] < evaluation.metrics["test_energy_mae"] < ends[1]

    data = prepare(configure(), stores.home)
    references = data.references.of(test)  # which the trials were trained with, too
    baselines = {
        "baseline_mean_energy_mae": np.abs(data.train.structures.energies.mean() - true).mean(),
        "baseline_reference_energy_mae": np.abs(references - true).mean(),
        "test_energy_mae_gain": np.abs(references - true).mean() - np.abs(error).mean(),
    }
    assert {name: evaluation.metrics[name] for name in baselines} == pytest.approx(baselines, rel=1e-4)
    gold = np.array([79 in atoms.numbers for atoms in test])
    by_element = evaluation.tables["by_element"].set_index("element")["energy_mae"]
    assert by_element["Au"] == pytest.approx(np.abs(error)[gold].mean(), rel=1e-4)
    assert len(evaluation.tables["overlap"]) == 12
    assert np.allclose(evaluation.errors["error"], error, atol=1e-6)

    recorded = MlflowClient().get_run(evaluation.run_id)
    assert recorded.data.metrics == pytest.approx(evaluation.metrics)
    assert recorded.info.status == "FINISHED"
    assert recorded.data.tags["kind"] == "evaluation"
    assert recorded.data.tags["model_run_id"] == run_id
    assert recorded.info.experiment_id == MlflowClient().get_run(run_id).info.experiment_id


def test_a_study_that_left_copies_out_is_resumed_evaluated_and_confirmed(
    run: Run, configure: Callable[..., Config], stores: Stores, files: dict[str, str], tmp_path: Path
) -> None:
    images, test = ase.io.read(files["train"], ":"), ase.io.read(files["test"], ":")
    copy = test[0].copy()
    copy.rotate(33, (1, 1, 0), rotate_cell=True)
    copy.calc = SinglePointCalculator(copy, energy=test[0].get_potential_energy())
    ase.io.write(tmp_path / "with_a_copy.traj", [*images[:3], copy, *images[3:]])
    data = {"train": str(tmp_path / "with_a_copy.traj"), "test": files["test"]}
    run(data=data, study={"n_trials": 2, "pruner": "none"})
    study, _ = run(data=data, study={"n_trials": 1, "pruner": "none"})
    client = tracking_client(stores)
    runs = [client.get_run(trial.user_attrs[RUN_ID]) for trial in study.get_trials()]
    assert [run.data.tags["left_out"] for run in runs] == ["[3]"] * 3
    made = confirm(stores, "small", Options(best=1, seeds=2, random="none"))
    assert set(made.retrainings["state"]) == {"complete"}
    evaluation = evaluate_best(stores, "small")
    assert np.isfinite(evaluation.metrics["test_energy_mae"])
    assert evaluation.metrics["overlap_same"] == 0, "the one that was left out was not trained on"
    assert 3 not in evaluation.tables["overlap"]["nearest"].tolist()


def test_the_test_split_is_evaluated_in_pieces(
    configure: Callable[..., Config], files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepare(configure(), tmp_path)
    assert data.test is not None
    torch.manual_seed(0)  # of some networks an energy is so near to zero that its last digits are none
    options = Hyperparameters(num_nodes=5, initialization="default")
    potential = NetworkPotential.from_dataset(data, options, make_network(data.descriptor.n_features, options, []))
    whole = predict(potential, data.test, tmp_path).energies
    monkeypatch.setattr("bdqm_tune.descriptors.store.PIECE_BYTES", 600)  # 3 structures
    np.testing.assert_allclose(predict(potential, data.test, tmp_path).energies, whole, rtol=1e-6)
    predicted = potential.predict(data.test.atoms, forces=False).energies
    np.testing.assert_allclose(whole, predicted, rtol=1e-6)


def test_forces_are_evaluated_where_they_were_trained(run: Run, stores: Stores, files: dict[str, str]) -> None:
    study, _ = run(study={"n_trials": 1}, training={"forces": True, "epochs": 3})
    evaluation = evaluate_best(stores, "small")
    test = ase.io.read(files["test"], ":")
    run_id = study.get_trials()[0].user_attrs["mlflow_run_id"]
    predicted = load_potential(f"runs:/{run_id}/model", stores).predict(test).forces
    error = np.concatenate(predicted) - np.concatenate([atoms.get_forces() for atoms in test])
    assert evaluation.metrics["test_forces_mae"] == pytest.approx(np.abs(error).mean(), rel=1e-6)
    assert evaluation.metrics["test_forces_mae_low"] < evaluation.metrics["test_forces_mae"]
    assert evaluation.tables["by_element"]["forces_mae"].notna().all()
    assert evaluation.metrics["test_forces_rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-6)


@pytest.mark.parametrize("reused", [True, False])
def test_the_run_of_mlflow_run_is_the_evaluations_if_it_is_in_the_same_experiment(
    run: Run, stores: Stores, monkeypatch: pytest.MonkeyPatch, reused: bool
) -> None:
    run(study={"n_trials": 1})
    client = MlflowClient()
    here = client.get_experiment_by_name("small").experiment_id
    given = client.create_run(here if reused else client.create_experiment("other"))
    monkeypatch.setenv("MLFLOW_RUN_ID", given.info.run_id)
    evaluation = evaluate_best(stores, "small")
    assert (evaluation.run_id == given.info.run_id) == reused
    recorded = client.get_run(evaluation.run_id)
    assert recorded.info.experiment_id == here
    assert recorded.info.run_name == "evaluation-trial-000"
    assert recorded.data.metrics == pytest.approx(evaluation.metrics)


def test_tuning_does_not_depend_on_the_labels_of_the_test_split(
    run: Run, files: dict[str, str], tmp_path: Path
) -> None:
    images = ase.io.read(files["test"], ":")
    for atoms in images:
        atoms.calc.results["energy"] += 1000.0
    ase.io.write(tmp_path / "shifted.traj", images)
    _, with_true = run(study={"name": "true"})
    _, with_shifted = run(study={"name": "shifted"}, data={"test": str(tmp_path / "shifted.traj")})
    assert [r.val_energy_mae for r in with_true] == [r.val_energy_mae for r in with_shifted]


def test_a_study_without_a_test_split_or_a_complete_trial_says_so(run: Run, stores: Stores) -> None:
    run(study={"n_trials": 1}, data={"test": None})
    with pytest.raises(BadInput, match="no test split.*--test FILE"):
        evaluate_best(stores, "small")
    with pytest.raises(BadInput, match="no complete trial"):
        best_trial(optuna.create_study())


def test_a_test_split_given_later_is_accepted(run: Run, stores: Stores) -> None:
    run(study={"n_trials": 1}, data={"test": None})
    run(study={"n_trials": 1})
    assert evaluate_best(stores, "small").metrics["test_energy_mae"] > 0


def test_a_changed_test_split_is_noticed(run: Run, stores: Stores, files: dict[str, str]) -> None:
    run(study={"n_trials": 1})
    (labels,), (geometries,) = ((stores.home / "test").glob(kind) for kind in ("*.labels.npz", "*.traj"))
    whole = labels.read_bytes()
    for damaged in (b"", b"no labels", whole[:200], whole[:-300] + bytes(300)):
        labels.write_bytes(damaged)
        with pytest.raises(BdqmError, match="has changed since the study was made"):
            evaluate_best(stores, "small")
    labels.write_bytes(whole)
    ase.io.write(geometries, ase.io.read(files["other"], ":12"))
    with pytest.raises(BdqmError, match="has changed since the study was made"):
        evaluate_best(stores, "small")
    labels.unlink()
    with pytest.raises(BdqmError, match="set BDQM_HOME"):
        evaluate_best(stores, "small")


def test_the_model_is_an_ase_calculator_and_predicts_files(run: Run, stores: Stores, files: dict[str, str]) -> None:
    study, _ = run(study={"n_trials": 1})
    model = f"runs:/{study.get_trials()[0].user_attrs['mlflow_run_id']}/model"
    atoms = ase.io.read(files["test"], 0)
    expected = load_potential(model, stores).predict([atoms]).energies[0]
    atoms.calc = bt.load_calculator(model)
    assert atoms.get_potential_energy() == pytest.approx(expected)
    assert predict_file(model, files["test"], Path("out.xyz"), stores).structures == 12
    assert ase.io.read("out.xyz", 0).get_potential_energy() == pytest.approx(expected)


def test_a_model_that_is_not_there_is_named(stores: Stores) -> None:
    for model in ("nowhere", "runs:/0123456789abcdef/model"):
        with pytest.raises(BadInput, match=model):
            load_potential(model, stores)


def test_the_package_prepares_and_tunes_from_python(workdir: Path, files: dict[str, str]) -> None:
    (workdir / "config.yaml").write_text("descriptor: {orders: [0, 1], sigmas: 3, cutoff: 4.0}\n")
    data = bt.prepare(files["train"], test=files["test"], config="config.yaml")
    assert data.descriptor.n_features == 6
    study = bt.tune(data, study="api", n_trials=2, epochs=3, sampler="random")
    assert len(study.get_trials()) == 2
    with pytest.raises(BadInput, match="sampler"):
        bt.tune(data, study="api", sampler="best")


def test_the_package_goes_from_a_study_to_its_champion_from_python(workdir: Path, files: dict[str, str]) -> None:
    (workdir / "config.yaml").write_text("descriptor: {orders: [0, 1], sigmas: 3, cutoff: 4.0}\n")
    data = bt.prepare(files["train"], test=files["test"], config="config.yaml")
    study = bt.tune(data, study="api", n_trials=2, epochs=3, sampler="random")
    results = bt.load_results(study)
    assert list(results.trials["number"]) == [0, 1]
    assert set(results.curves["trial"]) == {0, 1}

    made = bt.confirm(study, best=1, seeds=2, random="none")
    assert len(made.retrainings.query(f"name == {made.name!r}")) == 2
    evaluation = bt.evaluate("api")
    assert evaluation.opening.model_run_id == made.champion.run_id
    assert len(evaluation.errors) == 12
    assert bt.register("api", alias="mine").run_id == made.champion.run_id

    atoms = ase.io.read(files["test"], 0)
    atoms.calc = bt.load_calculator("models:/api@mine")
    assert atoms.get_potential_energy() == pytest.approx(evaluation.errors["predicted"][0], abs=1e-6)
    with pytest.raises(BadInput, match="seeds"):
        bt.confirm(study, seeds=1)
    with pytest.raises(BadInput, match="none"):
        bt.load_results("none")
