"""A study of data with a stress: logged, searched, evaluated, and resumed where an earlier version made it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from bdqm_tune.errors import BadInput
from bdqm_tune.evaluation.evaluation import chosen, evaluate_best
from bdqm_tune.evaluation.further_set import evaluate_file
from bdqm_tune.models.store import load_potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.results import load_results
from bdqm_tune.study.study import SIGNATURE
from tests.strained_alloys import strained_alloys

Run = Callable[..., Any]


@pytest.fixture
def groups(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """A study on 30 alloys, and 12 for the test, with stress."""
    for name, n, seed in (("train", 30, 0), ("test", 12, 1)):
        ase.io.write(tmp_path / f"{name}.traj", strained_alloys(n, seed))
    data = {name: str(tmp_path / f"{name}.traj") for name in ("train", "test")}
    return {"data": data, "training": {"forces": True, "epochs": 4}, "study": {"n_trials": 2, "pruner": "none"}}


def test_the_stress_is_logged_searched_and_evaluated(
    run: Run, stores: Stores, groups: dict[str, dict[str, Any]]
) -> None:
    study, results = run(**groups)
    client = MlflowClient()
    for trial, result in zip(study.get_trials(), results, strict=True):
        run_id = trial.user_attrs["mlflow_run_id"]
        history = {metric.step: metric.value for metric in client.get_metric_history(run_id, "val_stress_mae")}
        assert history.keys() == {1, 2, 3, 4}
        metrics = client.get_run(run_id).data.metrics
        assert metrics["best_val_stress_mae"] == result.val_stress_mae == history[result.best_epoch]
        assert 0.03 <= trial.params["stress_coefficient"] <= 3
    assert load_results(stores, "small").trials["val_stress_mae"].tolist() == [r.val_stress_mae for r in results]

    evaluation = evaluate_best(stores, "small")
    run_id = study.get_trials()[evaluation.trial].user_attrs["mlflow_run_id"]
    potential, images = load_potential(f"runs:/{run_id}/model", stores), ase.io.read(groups["data"]["test"], ":")
    errors = np.array([np.abs(potential.stress(atoms) - atoms.get_stress()) for atoms in images])
    assert evaluation.metrics["test_stress_mae"] == pytest.approx(errors.mean(), rel=1e-6)
    assert evaluation.errors["stress_mae"].to_numpy() == pytest.approx(errors.mean(axis=1), rel=1e-6)
    ends = [evaluation.metrics[f"test_stress_mae_{end}"] for end in ("low", "high")]
    assert ends[0] < evaluation.metrics["test_stress_mae"] < ends[1]
    ase.io.write("more.extxyz", strained_alloys(6, seed=5))
    assert evaluate_file(stores, "small", "more.extxyz", chosen()).metrics["set_stress_mae"] > 0


def test_a_study_of_before_the_stress_was_trained_goes_on_without(
    run: Run, stores: Stores, groups: dict[str, dict[str, Any]]
) -> None:
    study, _ = run(**{**groups, "training": {**groups["training"], "stress": False}})
    made = study.user_attrs[SIGNATURE]
    made["training"].pop("stress")
    study.set_user_attr(SIGNATURE, made)
    study, results = run(**groups)
    assert len(study.get_trials()) == 4
    assert [result.val_stress_mae for result in results] == [None, None]
    assert not any("stress_coefficient" in trial.params for trial in study.get_trials())
    metrics = evaluate_best(stores, "small").metrics
    assert "test_forces_mae" in metrics
    assert "test_stress_mae" not in metrics
    with pytest.raises(BadInput, match="was made with other"):
        run(**{**groups, "training": {**groups["training"], "stress": True}})


def test_messages_of_a_resumed_study_have_what_was_given(
    run: Run, groups: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Which is `auto`, whatever the study and the data make of it."""
    run(**groups)
    images = strained_alloys(30)
    del images[3].calc.results["stress"]
    ase.io.write(tmp_path / "some.traj", images)
    some = {**groups, "data": {**groups["data"], "train": str(tmp_path / "some.traj")}}
    with pytest.raises(
        BadInput, match="study 'small' trains on the stress, so that training.stress: auto comes to"
    ) as e:
        run(**some)
    assert "image 3: has no stress, as 1 of 30 images in a periodic cell" in str(e.value)

    named = {**some, "study": {**some["study"], "name": "partial"}}
    run(**{**named, "training": {**named["training"], "stress": "partial"}})
    with pytest.raises(BadInput, match='training: stress: "partial" then, auto now, which comes to false; choose'):
        run(**named)
    with pytest.raises(BadInput, match="training: epochs: 4 then, 5 now; choose another name"):
        run(**{**groups, "training": {**groups["training"], "epochs": 5}})
