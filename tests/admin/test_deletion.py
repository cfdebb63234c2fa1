"""`delete-study` in both stores: all that belongs to the study goes, and nothing else; refused while workers run."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bdqm_tune.admin.deletion import belongings, delete_study
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.evaluation.evaluation import evaluate_best, evaluate_ensemble
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.ensembling import assemble, record_ensemble
from bdqm_tune.services.connection import Stores
from bdqm_tune.storage.database import open_storage
from bdqm_tune.study.checkpoints import checkpoint_folder
from bdqm_tune.study.study import RUN_ID, load_study
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tuning.tune import tune
from bdqm_tune.workers.registry import Workers, describe_process


def tuned(stores: Stores, configure: Callable[..., Any], name: str) -> optuna.Study:
    config = configure(study={"name": name, "n_trials": 2, "pruner": "none"}, training={"epochs": 2})
    return tune(prepare(config, stores.home), config, stores)


def active(client: MlflowClient, experiment: str) -> set[str]:
    return {run.info.run_id for run in client.search_runs([experiment])}


def workers_of(study: optuna.Study) -> Workers:
    backend = study._storage.backend  # type: ignore[attr-defined]
    return Workers(backend.engine, backend.retry, study._study_id)


def test_all_of_a_study_goes_and_nothing_of_another(both: Stores, configure: Callable[..., Any]) -> None:
    gone, stays = tuned(both, configure, "it's gone"), tuned(both, configure, "stays")
    evaluate_best(both, "it's gone")
    ensemble = record_ensemble(both, assemble(both, "it's gone", 2, 0.5, None))
    evaluate_ensemble(both, "it's gone", ensemble, reopen="to have both")
    client = tracking_client(both)
    experiment, other = gone.user_attrs["mlflow_experiment_id"], stays.user_attrs["mlflow_experiment_id"]
    client.create_registered_model("named")
    best = gone.best_trial.user_attrs[RUN_ID]
    client.create_model_version("named", f"runs:/{best}/model", best)
    runs, others = active(client, experiment), active(client, other)
    assert len(runs) == 1 + 2 + 1 + 1 + 1

    found = belongings(both, "it's gone")
    assert set(found.runs) == runs
    assert (found.trials, found.runs_elsewhere, found.experiment) == (2, 0, experiment)
    assert found.models == ("named version 1",)
    delete_study(both, found)
    client.delete_registered_model("named")  # the server is other tests', too
    with pytest.raises(BadInput, match='no study "it\'s gone" in .*; there are: stays'):
        load_study(both, "it's gone")
    assert active(client, other) == others
    assert len(load_study(both, "stays").trials) == 2
    assert workers_of(gone).all() == []
    assert len(workers_of(stays).all()) == 1
    assert client.get_run(ensemble).info.lifecycle_stage == "deleted"
    assert client.get_experiment(experiment).lifecycle_stage == "deleted"
    assert len(list((both.home / "test").iterdir())) == 2, "the other study has the same test split"

    client.restore_experiment(experiment)
    for run_id in runs:
        client.restore_run(run_id)
    assert active(client, experiment) == runs
    client.delete_experiment(experiment)

    again = tuned(both, configure, "it's gone")  # its name is free
    assert [trial.number for trial in again.trials] == [0, 1]
    for name in ("it's gone", "stays"):
        folder = checkpoint_folder(both.home, name, load_study(both, name).user_attrs)
        folder.mkdir(parents=True, exist_ok=True)
        delete_study(both, belongings(both, name))
        assert not folder.exists()
    assert list((both.home / "test").iterdir()) == []


def test_runs_whose_tags_were_removed_go_too(stores: Stores, configure: Callable[..., Any]) -> None:
    study = tuned(stores, configure, "small")
    client = tracking_client(stores)
    experiment = study.user_attrs["mlflow_experiment_id"]
    run_id = study.trials[0].user_attrs[RUN_ID]
    for tag in client.get_run(run_id).data.tags:
        if not tag.startswith("mlflow."):
            client.delete_tag(run_id, tag)
    found = belongings(stores, "small")
    assert set(found.runs) == active(client, experiment)
    assert found.runs_elsewhere == 0
    delete_study(stores, found)
    assert active(client, experiment) == set()


def test_the_experiment_of_all_others_stays(stores: Stores, configure: Callable[..., Any]) -> None:
    """MLflow logs there where no experiment is named."""
    study = tuned(stores, configure, "Default")
    assert study.user_attrs["mlflow_experiment_id"] == "0"
    delete_study(stores, belongings(stores, "Default"))
    client = tracking_client(stores)
    assert client.get_experiment("0").name == "Default"
    assert client.get_experiment("0").lifecycle_stage == "active"
    assert active(client, "0") == set()


def test_a_study_of_the_same_name_in_another_database_keeps_its_runs(
    stores: Stores, configure: Callable[..., Any]
) -> None:
    elsewhere = Stores(stores.home, f"sqlite:///{stores.home.parent}/theirs.db")
    ours, theirs = tuned(stores, configure, "s"), tuned(elsewhere, configure, "s")
    experiment = ours.user_attrs["mlflow_experiment_id"]
    assert experiment == theirs.user_attrs["mlflow_experiment_id"]
    client = MlflowClient()
    before = active(client, experiment)
    found = belongings(stores, "s")
    assert (len(found.runs), found.experiment) == (3, None), "the experiment has other runs"
    delete_study(stores, found)
    left = active(client, experiment)
    assert left == before - set(found.runs)
    assert {trial.user_attrs[RUN_ID] for trial in theirs.trials} < left


def test_it_is_refused_while_workers_run(stores: Stores, configure: Callable[..., Any]) -> None:
    study = tuned(stores, configure, "s")
    found = belongings(stores, "s")
    workers, process = workers_of(study), describe_process()
    workers.add("a", process)
    for refused in (lambda: belongings(stores, "s"), lambda: delete_study(stores, found)):
        with pytest.raises(
            BdqmError, match=rf"workers run on study 's': {process['pid']} on .*`bdqm-tune doctor --wait`"
        ):
            refused()
    assert len(load_study(stores, "s").trials) == 2
    workers.end("a")
    workers.add("b", {**process, "process": f"{process['process']}0"})  # gone
    delete_study(stores, belongings(stores, "s"))


@pytest.mark.parametrize("deleted", [0, 2])
def test_what_was_cut_off_can_be_repeated(
    stores: Stores, configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, deleted: int
) -> None:
    study = tuned(stores, configure, "s")
    evaluate_best(stores, "s")
    experiment = study.user_attrs["mlflow_experiment_id"]
    found, calls, delete = belongings(stores, "s"), [], MlflowClient.delete_run
    assert len(found.runs) == 4

    def fail_later(self: MlflowClient, run_id: str) -> None:
        if len(calls) == deleted:
            raise MlflowException("out of order")
        calls.append(run_id)
        delete(self, run_id)

    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "delete_run", fail_later)
        with pytest.raises(BdqmError, match="out of order; the study is still there, and .* may be repeated"):
            delete_study(stores, found)
    again = belongings(stores, "s")
    assert again.runs == found.runs[deleted:]
    delete_study(stores, again)
    client = MlflowClient()
    assert active(client, experiment) == set()
    assert len(client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)) == 4


def test_runs_in_another_store_stay_and_are_told(stores: Stores, configure: Callable[..., Any], tmp_path: Any) -> None:
    tuned(stores, configure, "s")
    elsewhere = Stores(stores.home, tracking=f"sqlite:///{tmp_path}/nowhere.db")
    found = belongings(elsewhere, "s")
    assert (found.runs, found.runs_elsewhere) == ((), 2)
    delete_study(elsewhere, found)
    assert not (tmp_path / "nowhere.db").exists()


def test_of_nothing_nothing_is_made(stores: Stores) -> None:
    with pytest.raises(BadInput, match="there is none yet"):
        belongings(stores, "s")
    assert not stores.home.exists()
    open_storage(stores).backend.close()
    with pytest.raises(BadInput, match="there is none yet"):
        belongings(stores, "s")
