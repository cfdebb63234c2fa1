"""A study as data frames: the same from every store, and from the file that keeps what has ended."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Metric
from optuna.study import StudyDirection

from bdqm_tune.config.config import Config
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import Stores
from bdqm_tune.study import results
from bdqm_tune.study.results import load_results
from bdqm_tune.study.study import EXPERIMENT, RESULT, open_study
from bdqm_tune.tracking import metric_history as curves_module
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tracking.metric_history import read_curves

Run = Callable[..., Any]


def same(one: results.StudyResults, other: results.StudyResults) -> None:
    pd.testing.assert_frame_equal(one.trials, other.trials)
    pd.testing.assert_frame_equal(one.curves, other.curves)


def test_frames_are_what_the_stores_hold(run: Run, stores: Stores) -> None:
    study, tried = run(study={"name": "frames", "n_trials": 4, "sampler": "random"})
    found = load_results(stores, "frames")
    assert found.trials["number"].tolist() == [0, 1, 2, 3]
    for trial, result, row in zip(study.trials, tried, found.trials.to_dict("records"), strict=True):
        assert (row["state"], row["epochs"]) == (result.state, result.epochs)
        assert row["val_energy_mae"] == result.val_energy_mae == trial.user_attrs[RESULT]["val_energy_mae"]
        assert {name: row[name] for name in trial.params} == trial.params
        assert (row["started"], row["ended"]) == (trial.datetime_start, trial.datetime_complete)
        assert (row["sampler"], row["pruner"]) == ("random", "hyperband")
        history = tracking_client(stores).get_metric_history(row["run_id"], "val_energy_mae")
        own = found.curves[found.curves["trial"] == trial.number]
        assert own["epoch"].tolist() == [metric.step for metric in history] == list(range(1, result.epochs + 1))
        assert own["val_energy_mae"].tolist() == [metric.value for metric in history]
    assert found.trials["given"].tolist() == [True, False, False, False]  # the defaults are tried first
    assert found.trials["worker"].nunique() == 1
    assert found.trials["host"].notna().all()
    assert found.runs["study.seed"].tolist() == ["0"]
    assert found.splits["training"]["structures"] + found.splits["validation"]["structures"] == 40
    searched = {name for trial in study.trials for name, space in trial.distributions.items() if not space.single()}
    assert set(found.hyperparameters) == searched
    assert set(found.trials) >= searched
    assert set(found.fixed).isdisjoint(searched)


def test_what_is_fixed_is_in_the_frame_as_well(run: Run, stores: Stores) -> None:
    """Also where the workers of one study fix different values, or one of them searches."""
    for seed, search in enumerate(({"lr": 0.002}, {"lr": 0.004}, {"lr": {"float": [0.001, 0.01]}})):
        search = {"num_layers": 2, "dropout": False, **search, "num_nodes": {"int": [4, 16]}}
        run(study={"name": "fixed", "n_trials": 2, "seed": seed, "pruner": "none", "enqueue": []}, search=search)
    found = load_results(stores, "fixed")
    assert found.trials["num_layers"].tolist() == [2] * 6
    assert found.trials["lr"].tolist()[:4] == [0.002, 0.002, 0.004, 0.004]
    assert [t.params["lr"] for t in found.study.trials[4:]] == found.trials["lr"].tolist()[4:]
    assert {"num_layers", "dropout", "network", "descriptor.cutoff"} <= set(found.fixed)
    assert found.trials["descriptor.cutoff"].tolist() == [4.0] * 6
    assert "dropout_rate" not in found.trials, "it does not count where there is no dropout"
    assert {"lr", "num_nodes"} <= set(found.hyperparameters)


def test_a_study_without_trials_has_empty_frames(configure: Callable[..., Config], stores: Stores) -> None:
    config = configure(study={"name": "empty"})
    open_study(stores, config, prepare(config, stores.home))
    found = load_results(stores, "empty")
    assert (len(found.trials), len(found.curves), found.splits) == (0, 0, {})
    assert {"number", "state", "val_energy_mae", "worker", "host", "device"} <= set(found.trials)


def test_a_study_made_again_is_read_again(run: Run, stores: Stores) -> None:
    study, _ = run(study={"name": "again"})
    before = load_results(stores, "again")
    study._storage.delete_study(study._study_id)
    run(study={"name": "again", "seed": 5})
    after = load_results(stores, "again")
    assert not set(after.trials["run_id"]) & set(before.trials["run_id"])
    assert not after.curves["val_energy_mae"].isin(before.curves["val_energy_mae"].tail(3)).any()


def test_all_ways_to_read_curves_agree(
    run: Run, both: Stores, configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a value that was logged again, one that is no number, and a run without any."""
    from bdqm_tune.learning.dataset import prepare
    from bdqm_tune.tuning.tune import tune

    config = configure(study={"name": f"ways-{both.connection_file is None}"})
    study = tune(prepare(config, both.home), config, both)
    client, experiment = tracking_client(both), study.user_attrs[EXPERIMENT]
    run_ids = [trial.user_attrs["mlflow_run_id"] for trial in study.trials]
    client.log_batch(run_ids[0], [Metric("val_energy_mae", 7.5, 2**42, 2), Metric("val_energy_mae", math.nan, 5, 99)])
    run_ids.append(client.create_run(experiment).info.run_id)
    found = read_curves(both, experiment, run_ids, "val_energy_mae")
    one_by_one = pd.DataFrame(
        sorted(curves_module._one_by_one(client, run_ids, "val_energy_mae")), columns=["run_id", "step", "value"]
    )
    pd.testing.assert_frame_equal(found, one_by_one)
    first = found[found["run_id"] == run_ids[0]].set_index("step")["value"]
    assert first[2] == 7.5
    assert np.isnan(first[99])
    if both.connection_file is not None:  # a server that gives few values at once
        monkeypatch.setattr(curves_module, "BULK_VALUES", 20)
        monkeypatch.setattr(
            curves_module, "_answer", lambda *given, **options: _at_most(20, *given, **options)
        )  # fmt: skip
        pd.testing.assert_frame_equal(read_curves(both, experiment, run_ids, "val_energy_mae"), found)


_real_answer = curves_module._answer


def _at_most(values: int, client: Any, path: str, method: str, **options: Any) -> Any:
    if "params" in options:
        options["params"] = [*options["params"], ("max_results", str(values))]
    return _real_answer(client, path, method, **options)


def test_no_study_and_no_tracking_store(run: Run, stores: Stores, workdir: Path) -> None:
    run(study={"name": "there"})
    with pytest.raises(BadInput, match="no study 'nope'"):
        load_results(stores, "nope")
    load_results(stores, "there").study._storage.create_new_study([StudyDirection.MINIMIZE], "of others")
    with pytest.raises(BadInput, match="'of others' was not made by bdqm-tune"):
        load_results(stores, "of others")
    elsewhere = Stores(workdir / "other home", stores.storage_url, "http://127.0.0.1:9")
    with pytest.raises(BdqmError, match="cannot read the curves from MLflow"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        load_results(elsewhere, "there")
