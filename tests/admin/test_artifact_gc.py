"""`bdqm-tune gc`: the best trials keep their artifacts, the others lose them and nothing else."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from bdqm_tune.admin.artifact_gc import Freed, remove_artifacts
from bdqm_tune.errors import BadInput
from bdqm_tune.evaluation.evaluation import evaluate_best
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.store import load_potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.study import add_trials
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tuning.tune import tune


def sizes(stores: Stores, study: optuna.Study) -> dict[int, int]:
    """Bytes of the artifacts of every trial that has a run."""
    client = tracking_client(stores)

    def under(run_id: str, path: str | None = None) -> int:
        files = client.list_artifacts(run_id, path)
        return sum(under(run_id, file.path) if file.is_dir else int(file.file_size) for file in files)

    return {
        trial.number: under(trial.user_attrs["mlflow_run_id"])
        for trial in study.get_trials()
        if "mlflow_run_id" in trial.user_attrs
    }


def test_all_but_the_best_lose_their_artifacts(both: Stores, configure: Callable[..., Any]) -> None:
    config = configure(study={"name": "swept", "n_trials": 4, "pruner": "none"}, training={"epochs": 3})
    study = tune(prepare(config, both.home), config, both)
    add_trials(study, 1)  # which waits
    before = sizes(both, study)
    assert min(before.values()) > 1000
    ranked = sorted(study.get_trials(states=(TrialState.COMPLETE,)), key=lambda trial: trial.value or 0.0)
    kept, lost = [trial.number for trial in ranked[:2]], [trial.number for trial in ranked[2:]]
    expected = Freed("swept", tuple(kept), 2, 8, sum(before[number] for number in lost))

    assert remove_artifacts(both, "swept", 2, dry_run=True) == [expected]
    assert sizes(both, study) == before
    assert remove_artifacts(both, "swept", 2, dry_run=False) == [expected]
    assert sizes(both, study) == {number: before[number] if number in kept else 0 for number in before}

    client = tracking_client(both)
    for trial in ranked:
        run = client.get_run(trial.user_attrs["mlflow_run_id"])
        assert ("artifacts" in run.data.tags) == (trial.number in lost)
        assert len(client.get_metric_history(run.info.run_id, "val_energy_mae")) == 3
        assert run.data.params
    assert evaluate_best(both, "swept").trial == kept[0]
    with pytest.raises(BadInput, match="removed by `bdqm-tune gc`"):
        load_potential(f"runs:/{ranked[-1].user_attrs['mlflow_run_id']}/model", both)

    nothing = Freed("swept", tuple(kept), 0, 0, 0)
    assert remove_artifacts(both, "swept", 2, dry_run=False) == [nothing], "a second time there is nothing left"
    assert nothing in remove_artifacts(both, None, 2, dry_run=False)


def test_what_cannot_be_is_refused(stores: Stores) -> None:
    with pytest.raises(BadInput, match="at least 1, got 0"):
        remove_artifacts(stores, None, 0, dry_run=False)
    with pytest.raises(BadInput, match="no study 'oc20' in .*; there is none yet"):
        remove_artifacts(stores, "oc20", 5, dry_run=False)
    assert remove_artifacts(stores, None, 5, dry_run=False) == []
    assert not stores.home.exists()
