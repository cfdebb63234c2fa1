"""MLflow's environment variables: which run is logged to, and in which experiment."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from bdqm_tune.admin.repair import repair_runs
from bdqm_tune.errors import BadInput
from bdqm_tune.process import process_identity
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.study import EXPERIMENT, load_study
from bdqm_tune.tracking.result_runs import record_run
from bdqm_tune.tracking.search import search
from bdqm_tune.tracking.tracker import PROCESS, Tracker, open_tracker
from bdqm_tune.workers.registry import DEAD, Worker
from bdqm_tune.workers.run_cleanup import end_runs_of_killed, end_unnamed_runs_of
from tests.lost_answers import lose_answer

SOON = 20.0  # seconds of retrying

Open = Callable[..., tuple[Tracker, Run]]


@pytest.fixture
def client(workdir: Any) -> MlflowClient:
    return MlflowClient()


@pytest.fixture
def open_run(stores: Stores, client: MlflowClient) -> Open:
    """`open_run(study, NAME=value, …)`: the tracker of a study that is begun with these variables, and its run."""

    def go(study: str, experiment_id: str = "", **environ: str) -> tuple[Tracker, Run]:
        tracker = open_tracker(stores, study, SOON, environ, experiment_id=experiment_id)
        assert "MLFLOW_RUN_ID" not in environ
        return tracker, client.get_run(tracker.run.info.run_id)

    return go


def create(client: MlflowClient, experiment: str = "pipeline") -> tuple[str, str]:
    """The ids of a new run and its experiment."""
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment)
    return client.create_run(experiment_id).info.run_id, experiment_id


def experiments(client: MlflowClient) -> set[str]:
    return {experiment.name for experiment in client.search_experiments()} - {"Default"}


def test_the_first_study_adopts_the_run_of_a_pipeline_and_others_get_runs_below_it(
    run: Callable[..., Any], client: MlflowClient, monkeypatch: pytest.MonkeyPatch, stores: Stores
) -> None:
    given, experiment_id = create(client)
    # The same study again, with other parameters, as well as another one.
    for name, n_trials in (("first", 1), ("second", 1), ("first", 2)):
        monkeypatch.setenv("MLFLOW_RUN_ID", given)
        run(study={"name": name, "n_trials": n_trials}, training={"epochs": 1})
    workers = list(search(client, "tags.kind = 'study'", [experiment_id]))
    by_study = sorted((each.data.tags["study"], each.info.run_id == given) for each in workers)
    assert by_study == [("first", False), ("first", True), ("second", False)]
    for worker in workers:
        adopted = worker.info.run_id == given
        assert worker.info.status == ("RUNNING" if adopted else "FINISHED")  # the pipeline ends its own
        assert worker.data.tags.get("mlflow.parentRunId") == (None if adopted else given)
    assert [len(load_study(stores, name).get_trials()) for name in ("first", "second")] == [3, 1]
    assert experiments(client) == {"pipeline"}


def test_an_adoption_whose_answer_was_lost_is_repeated(
    client: MlflowClient, open_run: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, _ = create(client)
    lose_answer(monkeypatch, "log_batch")
    assert open_run("a", MLFLOW_RUN_ID=given)[1].info.run_id == given


def test_results_get_a_run_below_one_that_a_study_has_adopted(
    client: MlflowClient, open_run: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, experiment_id = create(client)
    open_run("a", MLFLOW_RUN_ID=given)[0].finish("FINISHED")
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    made = client.get_run(record_run(client, experiment_id, "evaluate-a", {"kind": "evaluation"}, {"x": 1.0}))
    assert made.data.tags["mlflow.parentRunId"] == given
    assert (made.info.status, made.data.tags["kind"]) == ("FINISHED", "evaluation")
    assert client.get_run(given).data.tags["kind"] == "study"


def test_the_run_of_a_pipeline_outlives_the_process_that_adopted_it(client: MlflowClient, open_run: Open) -> None:
    given, _ = create(client)
    tracker, adopted = open_run("a", MLFLOW_RUN_ID=given)
    assert adopted.data.tags[PROCESS] == process_identity()
    tracker.finish("FINISHED")
    assert client.get_run(given).data.tags[PROCESS] == ""
    assert end_runs_of_killed(client, [client.get_run(given)]) == []
    assert client.get_run(given).info.status == "RUNNING"


def test_who_cleans_up_behind_a_worker_leaves_other_studies_below_its_run_alone(
    client: MlflowClient, open_run: Open
) -> None:
    given, experiment_id = create(client)
    open_run("a", MLFLOW_RUN_ID=given)[0].finish("FINISHED")
    tracker, below = open_run("b", MLFLOW_RUN_ID=given)
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    gone = Worker("w", DEAD, 0, long_ago, long_ago, {"run_id": given}, "killed")
    end_unnamed_runs_of(client, experiment_id, gone, list)
    assert below.info.run_id not in [each.info.run_id for each in repair_runs(client, [below], [], [gone])]
    assert client.get_run(below.info.run_id).info.status == "RUNNING"
    tracker.finish("FINISHED")


def test_a_run_that_has_ended_is_not_changed_and_gets_one_below_it(client: MlflowClient, open_run: Open) -> None:
    given, experiment_id = create(client)
    client.set_terminated(given)
    _, made = open_run("a", MLFLOW_RUN_ID=given)
    assert (made.info.experiment_id, made.data.tags["mlflow.parentRunId"]) == (experiment_id, given)
    assert client.get_run(given).info.status == "FINISHED"
    assert "kind" not in client.get_run(given).data.tags


@pytest.mark.parametrize("which", ["0123456789abcdef0123456789abcdef", "no/id"])
def test_a_run_that_is_not_in_the_store_is_told_with_what_to_do(
    client: MlflowClient, open_run: Open, which: str
) -> None:
    with pytest.raises(BadInput, match=f"MLFLOW_RUN_ID names the run '{which}', which is not in .*: let MLFLOW_TRACKI"):
        open_run("a", MLFLOW_RUN_ID=which)
    assert experiments(client) == set()


def test_a_deleted_run_is_told_with_what_to_do(client: MlflowClient, open_run: Open) -> None:
    given, _ = create(client)
    client.delete_run(given)
    with pytest.raises(BadInput, match=f"was deleted: `mlflow runs restore --run-id {given}` brings it back"):
        open_run("a", MLFLOW_RUN_ID=given)


def test_a_run_of_a_deleted_experiment_is_told_with_what_to_do(client: MlflowClient, open_run: Open) -> None:
    experiment = client.create_experiment("group")
    run_id = client.create_run(experiment).info.run_id
    client.delete_experiment(experiment)
    client.restore_run(run_id)
    with pytest.raises(
        BadInput, match=f"of the experiment 'group', which was deleted: `mlflow experiments restore -x {experiment}"
    ):
        open_run("a", MLFLOW_RUN_ID=run_id)


def test_a_new_study_is_in_the_experiment_that_is_named(client: MlflowClient, open_run: Open) -> None:
    """As MLflow itself has it: a name that is new is made, and a run comes before either variable."""
    _, made = open_run("a", MLFLOW_EXPERIMENT_NAME="water group")
    group = client.get_experiment_by_name("water group").experiment_id
    assert made.info.experiment_id == group
    for variables in (
        {"MLFLOW_EXPERIMENT_ID": group},
        {"MLFLOW_EXPERIMENT_ID": group, "MLFLOW_EXPERIMENT_NAME": "water group"},
    ):
        assert open_run("b", **variables)[1].info.experiment_id == group
    given, pipeline = create(client)
    assert open_run("c", MLFLOW_RUN_ID=given, MLFLOW_EXPERIMENT_NAME="other")[1].info.experiment_id == pipeline
    assert (
        open_run("d", MLFLOW_EXPERIMENT_NAME="")[1].info.experiment_id
        == client.get_experiment_by_name("d").experiment_id
    )
    assert experiments(client) == {"water group", "pipeline", "d"}


def test_an_experiment_that_cannot_be_meant_is_refused(client: MlflowClient, open_run: Open) -> None:
    group, other = client.create_experiment("group"), client.create_experiment("other")
    with pytest.raises(BadInput, match=f"_NAME='group' is the experiment {group}, and .* is '{other}'"):
        open_run("a", MLFLOW_EXPERIMENT_NAME="group", MLFLOW_EXPERIMENT_ID=other)
    for unknown in ("77", "no id"):
        with pytest.raises(BadInput, match=f"MLFLOW_EXPERIMENT_ID is '{unknown}', and there is no such experiment"):
            open_run("a", MLFLOW_EXPERIMENT_ID=unknown)
    client.delete_experiment(group)
    for name, value in (("MLFLOW_EXPERIMENT_NAME", "group"), ("MLFLOW_EXPERIMENT_ID", group)):
        hint = f"`mlflow experiments restore -x {group}`, or unset {name}$"
        with pytest.raises(BadInput, match=f"'group' is deleted; restore .* {hint}"):
            open_run("a", **{name: value})


def test_a_study_stays_in_its_experiment_whatever_the_variables_say(
    run: Callable[..., Any],
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    stores: Stores,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "group")
    study, _ = run(study={"n_trials": 1}, training={"epochs": 1})
    group = client.get_experiment_by_name("group").experiment_id
    given, other = create(client, "other")
    for variables, said in (
        ({"MLFLOW_EXPERIMENT_NAME": "group"}, ""),
        ({}, ""),
        ({"MLFLOW_EXPERIMENT_NAME": "new"}, "though MLFLOW_EXPERIMENT_NAME is 'new'"),
        ({"MLFLOW_EXPERIMENT_ID": other}, f"though MLFLOW_EXPERIMENT_ID is '{other}'"),
        ({"MLFLOW_RUN_ID": given, "MLFLOW_EXPERIMENT_ID": other}, "though the run of MLFLOW_RUN_ID is in another one"),
    ):
        monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        capsys.readouterr()
        study, _ = run(study={"n_trials": 1}, training={"epochs": 1})
        lines = [line for line in capsys.readouterr().err.splitlines() if "stays in its MLflow experiment" in line]
        assert lines == ([f"bdqm-tune: study 'small' stays in its MLflow experiment 'group', {said}"] if said else [])
        assert study.user_attrs[EXPERIMENT] == group
    runs = {trial.user_attrs["mlflow_run_id"] for trial in study.get_trials()}
    assert {client.get_run(run_id).info.experiment_id for run_id in runs} == {group}
    assert experiments(client) == {"group", "other"}
    below = client.get_run(client.get_run(given).data.tags["study_run_id"])  # which `mlflow run` shows
    assert (below.info.experiment_id, below.data.tags["mlflow.parentRunId"]) == (group, given)


def test_another_tracking_store_gets_an_experiment_of_its_own(client: MlflowClient, open_run: Open) -> None:
    """Its experiment of the same id is another study's."""
    taken = client.create_experiment("of others")
    _, made = open_run("a", experiment_id=taken)
    assert client.get_experiment(made.info.experiment_id).name == "a"
