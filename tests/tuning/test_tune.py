"""A study from its first trial to its last, in both stores."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from bdqm_tune.backends.native import NativeBackend
from bdqm_tune.config.config import Config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.services.connection import Stores, find_stores
from bdqm_tune.study import study as study_module
from bdqm_tune.study.results import load_results, trials_frame
from bdqm_tune.study.study import load_study
from tests.marks import few

Run = Callable[..., Any]


SEEDED = [("first", 0), ("second", 0), ("other", 1)]


def runs_by_number(study: optuna.Study) -> dict[int, Any]:
    client = MlflowClient()
    return {t.number: client.get_run(t.user_attrs["mlflow_run_id"]) for t in study.get_trials()}


def test_every_trial_is_in_both_stores_with_all_that_was_promised(run: Run, stores: Stores, tmp_path: Path) -> None:
    study, results = run(study={"n_trials": 3, "pruner": "none"})
    assert [t.state for t in study.get_trials()] == [TrialState.COMPLETE] * 3
    client, runs = MlflowClient(), runs_by_number(study)
    for result, trial in zip(results, study.get_trials(), strict=True):
        mlflow_run = runs[trial.number]
        data, tags = mlflow_run.data, mlflow_run.data.tags
        assert mlflow_run.info.run_name == f"trial-{trial.number:03d}"
        assert mlflow_run.info.status == "FINISHED"
        assert tags["trial_state"] == "complete"
        assert (tags["study"], tags["trial_number"], tags["sampler"]) == ("small", str(trial.number), "tpe")
        assert {"host", "train_digest", "validation_digest", "version.torch", "mlflow.parentRunId"} <= tags.keys()
        assert data.params.keys() >= Hyperparameters.model_fields.keys() | {"epochs", "seed", "backend", "precision"}
        assert {name: data.params[name] for name in trial.params} == {k: str(v) for k, v in trial.params.items()}
        history = client.get_metric_history(mlflow_run.info.run_id, "val_energy_mae")
        assert [metric.step for metric in history] == list(range(1, result.epochs + 1))
        assert trial.value == result.val_energy_mae == min(metric.value for metric in history)
        assert data.metrics["best_val_energy_mae"] == trial.value
        assert data.metrics["n_parameters"] == result.n_parameters
        for name in ("train_loss", "train_energy_mae", "val_energy_mae_per_atom", "lr", "epoch_seconds"):
            assert len(client.get_metric_history(mlflow_run.info.run_id, name)) == result.epochs
        inputs = {i.tags[0].value: i.dataset for i in mlflow_run.inputs.dataset_inputs}
        assert tags["train_digest"].startswith(inputs["training"].digest)
        assert json.loads(inputs["validation"].profile)["structures"] == 4
        folder = Path(client.download_artifacts(mlflow_run.info.run_id, "", str(tmp_path)))
        assert NetworkPotential.load(folder / "model").network.n_parameters == result.n_parameters
        assert pd.read_csv(folder / "history.csv")["val_energy_mae"].min() == pytest.approx(trial.value)
        repeated = yaml.safe_load((folder / "config.yaml").read_text())["search"]
        assert {name: repeated[name] for name in trial.params} == trial.params


def test_a_study_of_forces_is_judged_by_them(run: Run, tmp_path: Path) -> None:
    study, results = run(
        training={"forces": True, "epochs": 4}, target={"objective": "val_forces_mae"}, study={"pruner": "none"}
    )
    client, runs = MlflowClient(), runs_by_number(study)
    for result, trial in zip(results, study.get_trials(), strict=True):
        run_id = runs[trial.number].info.run_id
        history = [metric.value for metric in client.get_metric_history(run_id, "val_forces_mae")]
        assert trial.value == result.value == result.val_forces_mae == min(history)
        assert len(client.get_metric_history(run_id, "train_forces_mae")) == result.epochs
        assert runs[trial.number].data.metrics["best_val_forces_mae"] == trial.value
        assert runs[trial.number].data.metrics["best_val_energy_mae"] == result.val_energy_mae
        table = pd.read_csv(client.download_artifacts(run_id, "history.csv", str(tmp_path)))
        assert table["val_forces_mae"].min() == pytest.approx(trial.value)
    found, values = load_results(find_stores(), "small"), {t.number: t.value for t in study.get_trials()}
    assert found.objective == "val_forces_mae"
    assert found.curves.groupby("trial")["val_forces_mae"].min().to_dict() == values
    parent = runs[0].data.tags["mlflow.parentRunId"]
    assert client.get_run(parent).data.metrics["best_val_forces_mae"] == min(values.values())
    energies = [result.val_energy_mae for result in results]
    assert client.get_run(parent).data.metrics["best_val_energy_mae"] == min(energies)


def test_the_study_has_a_run_of_its_own_over_those_of_the_trials(run: Run) -> None:
    study, _ = run(study={"pruner": "none"})
    client, runs = MlflowClient(), runs_by_number(study)
    (parent_id,) = {mlflow_run.data.tags["mlflow.parentRunId"] for mlflow_run in runs.values()}
    parent = client.get_run(parent_id)
    assert parent.info.status == "FINISHED"
    assert client.get_experiment(parent.info.experiment_id).name == "small"
    assert parent.data.params["study.n_trials"] == "3"
    ended = sorted(study.get_trials(), key=lambda trial: trial.datetime_complete)
    history = client.get_metric_history(parent_id, "best_val_energy_mae")
    best = list(itertools.accumulate((trial.value for trial in ended), min))
    assert {m.step: m.value for m in history} == dict(enumerate(best, 1))
    assert "config.yaml" in [file.path for file in client.list_artifacts(parent_id)]


def test_the_run_of_mlflow_run_is_adopted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MlflowClient()
    parent = client.create_run(client.create_experiment("given"))
    monkeypatch.setenv("MLFLOW_RUN_ID", parent.info.run_id)
    study, _ = run(study={"n_trials": 2})
    for mlflow_run in runs_by_number(study).values():
        assert mlflow_run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert mlflow_run.info.experiment_id == parent.info.experiment_id
    assert client.get_run(parent.info.run_id).info.status == "RUNNING"  # ended by `mlflow run`, which started it
    assert client.get_run(parent.info.run_id).data.params["study.name"] == "small"
    assert client.get_run(parent.info.run_id).info.run_name == "small"  # it had a name made up by MLflow


def test_pruned_trials_are_told_apart_in_both_stores(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end at their rungs, however slow the disk."""
    monkeypatch.setattr("bdqm_tune.tuning.pruning.WITHIN", 0.0)
    study, results = run(study={"n_trials": 12, "pruner": "halving"}, training={"epochs": 27, "early_stopping": None})
    pruned = [result for result in results if result.state == "pruned"]
    assert pruned
    runs = runs_by_number(study)
    for result in pruned:
        trial = study.get_trials()[result.number]
        assert trial.state == TrialState.PRUNED
        assert result.epochs in (3, 9)  # the rungs of 27 epochs
        assert trial.value == result.val_energy_mae  # of the best epoch, as for a complete trial
        mlflow_run = runs[result.number]
        assert (mlflow_run.info.status, mlflow_run.data.tags["trial_state"]) == ("KILLED", "pruned")
        assert mlflow_run.data.tags["reason"] == f"halving pruner at epoch {result.epochs}"


def test_networks_of_folds_are_pruned_together(run: Run, files: dict[str, str]) -> None:
    data = {"train": files["train"], "test": files["test"], "validation": {"folds": 3}}
    options = {"n_trials": 12, "pruner": "halving"}
    study, results = run(study=options, data=data, training={"epochs": 27, "early_stopping": None})
    runs = runs_by_number(study)
    pruned = [result for result in results if result.state == "pruned"]
    assert pruned
    for result in pruned:
        assert result.epochs in (3, 9)
        history = MlflowClient().get_metric_history(runs[result.number].info.run_id, "val_energy_mae")
        assert [metric.step for metric in history] == list(range(1, result.epochs + 1)), "one curve, of all folds"
    for result in results:
        assert result.validation_errors is not None, "the same structures chose against a pruned one"
        assert len(result.validation_errors) == 40
        assert np.mean(result.validation_errors) == pytest.approx(result.val_energy_mae, rel=1e-5)


@pytest.mark.parametrize("sampler", few(["tpe", "grid"], ["cmaes", "random", "gp", "qmc"]))
def test_every_sampler_runs_the_budget_and_goes_on(run: Run, sampler: str) -> None:
    run(study={"n_trials": 4, "sampler": sampler}, training={"epochs": 3})
    again, results = run(study={"n_trials": 3, "sampler": sampler}, training={"epochs": 3})
    assert [t.number for t in again.get_trials()] == list(range(7))
    assert all(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in again.get_trials())
    assert [result.number for result in results] == [4, 5, 6]
    parameters = [tuple(sorted(trial.params.items())) for trial in again.get_trials()]
    assert len(set(parameters)) == 7, "a study that goes on must not draw again what it drew before"


@pytest.mark.parametrize("pruner", few(["hyperband"], ["halving", "median", "none"]))
def test_every_pruner_runs_the_budget(run: Run, pruner: str) -> None:
    study, results = run(study={"n_trials": 7, "pruner": pruner}, training={"epochs": 10})
    assert len(study.get_trials()) == len(results) == 7
    assert {result.state for result in results} <= {"complete", "pruned"}
    if pruner == "none":
        assert {result.state for result in results} == {"complete"}


def test_the_same_seed_gives_the_same_numbers_twice(run: Run) -> None:
    # Other names, so that the studies are different ones; hyperband would draw a trial's bracket from the name.
    runs = [run(study={"name": name, "n_trials": 4, "seed": seed, "pruner": "halving"}) for name, seed in SEEDED]
    values = [[result.val_energy_mae for result in results] for _, results in runs]
    assert values[0] == values[1]
    assert values[0] != values[2]


def test_an_exception_fails_its_trial_and_the_study_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    start, calls = NativeBackend.start, iter(range(100))

    def second_breaks(self: NativeBackend, *given: Any) -> Any:
        if next(calls) == 1:
            raise RuntimeError("out of something")
        return start(self, *given)

    monkeypatch.setattr(NativeBackend, "start", second_breaks)
    study, results = run(study={"n_trials": 3, "pruner": "none"})
    assert [result.state for result in results] == ["complete", "failed", "complete"]
    assert study.get_trials()[1].state == TrialState.FAIL
    failed = runs_by_number(study)[1]
    assert (failed.info.status, failed.data.tags["trial_state"]) == ("FAILED", "failed")
    assert failed.data.tags["reason"] == "RuntimeError: out of something"
    kept = MlflowClient().download_artifacts(failed.info.run_id, "traceback.txt")
    assert "second_breaks" in Path(kept).read_text()


def test_the_same_failure_three_times_at_the_start_ends_the_study(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> Any:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(NativeBackend, "start", breaks)
    with pytest.raises(BdqmError, match=r"first 3 trials failed in the same way\n(.|\n)*no such kernel"):
        run(study={"n_trials": 5})


def test_a_diverging_trial_is_pruned_with_the_reason(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    start = NativeBackend.start

    def with_a_broken_weight(self: NativeBackend, *given: Any) -> Any:
        training = start(self, *given)
        training._fit._epochs._state.p[0] = float("nan")
        return training

    monkeypatch.setattr(NativeBackend, "start", with_a_broken_weight)
    study, (result,) = run(study={"n_trials": 1})
    assert (result.state, result.val_energy_mae) == ("pruned", None)
    assert result.reason.startswith("diverged in epoch 1")
    assert study.get_trials()[0].state == TrialState.PRUNED
    assert runs_by_number(study)[0].info.status == "KILLED"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_trial_waits_and_is_run_by_the_next_tune_in_its_run(
    run: Run, stores: Stores, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    report = optuna.Trial.report

    def interrupt(*_: Any) -> None:
        raise interruption

    monkeypatch.setattr(optuna.Trial, "report", interrupt)
    with pytest.raises(interruption):
        run(study={"n_trials": 2})
    monkeypatch.setattr(optuna.Trial, "report", report)

    study = load_study(stores, "small")
    waiting = study.get_trials()[0]
    assert [trial.state for trial in study.get_trials()] == [TrialState.WAITING] * 2
    run_id = waiting.user_attrs["mlflow_run_id"]
    interrupted = MlflowClient().get_run(run_id)
    assert (interrupted.info.status, interrupted.data.tags["trial_state"]) == ("SCHEDULED", "waiting")
    parent = MlflowClient().get_run(interrupted.data.tags["mlflow.parentRunId"])
    assert parent.info.status == "KILLED"

    again, results = run(study={"n_trials": 1})
    assert [result.number for result in results] == [0, 1, 2]
    assert again.get_trials()[0].params == waiting.params
    assert again.get_trials()[0].user_attrs["mlflow_run_id"] == run_id
    assert MlflowClient().get_run(run_id).data.tags["trial_state"] in ("complete", "pruned")


def test_another_question_under_the_same_name_is_refused(run: Run, files: dict[str, str], stores: Stores) -> None:
    run()
    questions: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
        "data": ({"data": {"train": files["other"]}}, r"other data: [0-9a-f]{12} then, [0-9a-f]{12} now"),
        "split": ({"data": {"validation": {"seed": 5}}}, "other data"),
        "descriptor": ({"descriptor": {"cutoff": 5.0}}, "other descriptor"),
        "epochs": ({"training": {"epochs": 10}}, "other training"),
        "target scaling": ({"target": {"scaling": "mean_deviation"}}, "other target scaling"),
        "test": ({"data": {"test": files["other"]}}, "another test split"),
        "choices": ({"search": {"activation": {"choice": ["tanh", "relu"]}}}, "search.activation"),
    }
    for groups, message in questions.values():
        with pytest.raises(BadInput, match=message):
            run(**groups)
    assert len(load_study(stores, "small").get_trials()) == 3


def test_a_trial_costs_few_requests_and_transactions(
    configure: Callable[..., Config], stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 15 requests to the tracking store and 40 transactions on the study's, for 100 epochs."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    from bdqm_tune.learning.dataset import prepare
    from bdqm_tune.tuning.tune import tune

    requests: list[str] = []
    names = ("create_run", "log_batch", "log_inputs", "get_run", "update_run_info", "set_tag", "log_param")
    for name in names:
        monkeypatch.setattr(SqlAlchemyStore, name, _counted(name, getattr(SqlAlchemyStore, name), requests))
    commits: list[int] = []

    @event.listens_for(Engine, "commit")
    def _(connection: Any) -> None:
        if str(connection.engine.url).endswith("optuna.db"):
            commits.append(1)

    per_trial: list[int] = []

    def after(*_: Any) -> None:
        per_trial.append(len(commits))
        commits.clear()

    search = {name: {"choice": [True, False]} for name in ("batchnorm", "dropout")}
    config = configure(
        training={"epochs": 100, "early_stopping": None}, study={"n_trials": 6, "pruner": "hyperband"}, search=search
    )
    tune(prepare(config, stores.home), config, stores, after)
    event.remove(Engine, "commit", _)
    assert max(per_trial[1:]) <= 40  # the first also opens the study
    whole = [trial for trial in load_results(stores, "small").trials["epochs"] if trial == 100]
    assert whole
    # Artifacts are counted too: each of the four is a request where MLflow's server stores them.
    assert len(requests) <= 6 * (15 - 4) + 6  # six trials, and the study's own run
    assert requests.count("create_run") == 7


def _counted(name: str, call: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    def counted(self: Any, *args: Any, **options: Any) -> Any:
        calls.append(name)
        return call(self, *args, **options)

    return counted


def test_results_are_read_back_as_frames(run: Run, stores: Stores) -> None:
    study, results = run(study={"n_trials": 4})
    found = load_results(stores, "small")
    assert list(found.trials["number"]) == [0, 1, 2, 3]
    assert list(found.trials["val_energy_mae"]) == [result.val_energy_mae for result in results]
    assert set(found.hyperparameters) == {name for trial in study.get_trials() for name in trial.params}
    lengths = found.curves.groupby("trial")["epoch"].max()
    assert list(lengths) == [result.epochs for result in results]


def test_an_unknown_study_is_an_error_that_lists_the_known_ones(run: Run, stores: Stores) -> None:
    with pytest.raises(BadInput, match="there is none yet"):
        load_results(stores, "small")
    assert not stores.home.exists()
    run(study={"n_trials": 1})
    with pytest.raises(BadInput, match=r"no study 'smal' in sqlite:.*; there are: small"):
        load_results(stores, "smal")


def test_an_empty_study_is_an_empty_frame() -> None:
    frame = trials_frame([])
    assert len(frame) == 0
    assert {"number", "state", "val_energy_mae", "run_id"} <= set(frame.columns)


def test_the_sampler_sees_what_came_of_every_earlier_trial(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Looking(optuna.samplers.RandomSampler):
        def infer_relative_search_space(self, study: optuna.Study, trial: Any) -> dict[str, Any]:
            trials = study._get_trials(deepcopy=False, use_cache=True)  # as Optuna's own samplers look at them
            seen.append([one.number for one in trials if one.state == TrialState.COMPLETE])
            return {}

    monkeypatch.setattr(study_module, "make_sampler", lambda name, seed, n_existing: Looking(seed))
    run(study={"n_trials": 4, "pruner": "none"}, training={"epochs": 1})
    assert seen == [[], [0], [0, 1], [0, 1, 2]]
