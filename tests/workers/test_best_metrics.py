"""The runs of all workers of a study show the same best errors."""

from collections.abc import Callable
from typing import Any

from mlflow.tracking import MlflowClient

from bdqm_tune.services.connection import Stores
from bdqm_tune.study.study import EXPERIMENT, load_study

BEST = "best_val_energy_mae"


def test_every_worker_shows_the_best_of_all(run: Callable[..., Any], stores: Stores, monkeypatch: Any) -> None:
    client = MlflowClient()
    given = client.create_run(client.create_experiment("of mlflow run"))
    for seed, options in ((0, {}), (1, {"pruner": "none"}), (2, {"n_trials": 1})):
        if seed == 2:
            monkeypatch.setenv("MLFLOW_RUN_ID", given.info.run_id)
        run(study={"seed": seed, **options})
    trials = load_study(stores, "small").get_trials()
    least = min(trial.value for trial in trials if trial.value is not None and trial.state.name == "COMPLETE")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    parents = client.search_runs(experiments, "tags.kind = 'study'")
    assert len(parents) == 3
    assert {parent.data.metrics[BEST] for parent in parents} == {least}
    for parent in parents:
        values = [value.value for value in client.get_metric_history(parent.info.run_id, BEST)]
        assert values == sorted(values, reverse=True), "it falls only"


def test_what_another_worker_could_not_log_is_made_up_for(run: Callable[..., Any], stores: Stores) -> None:
    """A worker that died after its last trial, or was of an earlier version, shows an older value."""
    run(study={"n_trials": 2})
    client, study = MlflowClient(), load_study(stores, "small")
    (parent,) = client.search_runs([study.user_attrs[EXPERIMENT]], "tags.kind = 'study'")
    client.log_metric(parent.info.run_id, BEST, 99.0, step=2)
    run(study={"n_trials": 1, "seed": 5})
    least = min(t.value for t in load_study(stores, "small").get_trials() if t.state.name == "COMPLETE")
    assert client.get_run(parent.info.run_id).data.metrics[BEST] == least
