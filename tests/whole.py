"""What both stores hold of a study through which faults went: all of it, and nothing twice."""

from optuna.trial import TrialState

from bdqm_tune.services.connection import Stores
from bdqm_tune.study.study import EXPERIMENT, RUN_ID, load_study
from bdqm_tune.tracking.client import tracking_client

ARTIFACTS = {"model", "config.yaml", "history.csv"}


def assert_once(stores: Stores, name: str, n_trials: int, epochs: int) -> None:
    """Every trial of the study, none of which was pruned, is in both stores: whole and once."""
    client, study = tracking_client(stores), load_study(stores, name)
    trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * n_trials
    experiment = study.user_attrs[EXPERIMENT]
    of_trials = client.search_runs([experiment], "attributes.run_name LIKE 'trial-%'")
    assert sorted(run.info.run_id for run in of_trials) == sorted(trial.user_attrs[RUN_ID] for trial in trials)
    for trial in trials:
        run = client.get_run(trial.user_attrs[RUN_ID])
        assert (run.info.status, run.data.tags["trial_state"]) == ("FINISHED", "complete")
        for metric in ("train_loss", "val_energy_mae", "lr"):
            history = client.get_metric_history(run.info.run_id, metric)
            assert sorted(value.step for value in history) == list(range(1, epochs + 1))
        objective = run.data.tags["objectives"]
        (last,) = client.get_metric_history(run.info.run_id, f"best_{objective}")
        assert last.value == trial.value
        assert run.data.params.items() >= {key: str(value) for key, value in trial.params.items()}.items()
        assert run.data.params.keys() >= {"num_nodes", "seed"}
        assert len(run.inputs.dataset_inputs) == 2
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == ARTIFACTS
        assert len(client.list_artifacts(run.info.run_id, "model")) == 2
    best = []
    for run in client.search_runs([experiment], "tags.kind = 'study'"):
        metric = f"best_{run.data.tags['objectives']}"
        history = sorted((value.step, value.value) for value in client.get_metric_history(run.info.run_id, metric))
        assert [value for _, value in history] == sorted((value for _, value in history), reverse=True)
        best.append(run.data.metrics.get(metric))
    assert min(trial.value for trial in trials) in best
