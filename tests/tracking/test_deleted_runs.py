"""What is deleted or changed in MLflow while a study runs, and afterwards: the study goes on, and is read."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from bdqm_tune.admin.artifact_gc import remove_artifacts
from bdqm_tune.admin.repair import repair_leftovers
from bdqm_tune.admin.status import study_status
from bdqm_tune.analysis.report import make_report
from bdqm_tune.config.config import Config
from bdqm_tune.confirmation.confirm import Options, confirm
from bdqm_tune.errors import BadInput
from bdqm_tune.evaluation.evaluation import evaluate_best
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.ensembling import best_trials
from bdqm_tune.services.connection import Stores
from bdqm_tune.services.diagnostics import WARNING
from bdqm_tune.study.results import load_results
from bdqm_tune.study.study import EXPERIMENT, RUN_ID, load_study
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tuning.tune import tune
from bdqm_tune.workers.registry import Workers
from tests.forked import run
from tests.marks import few
from tests.tuning.test_faults import EPOCHS, at_epochs, three_trials
from tests.waiting import eventually
from tests.whole import assert_once


class Study:
    """A study of three trials in which something happens in the middle."""

    def __init__(self, stores: Stores, configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
        self.stores, self._configure, self._patch = stores, configure, monkeypatch
        self.client: MlflowClient = tracking_client(stores)

    def tune(self, name: str, act: Callable[[], None], at: tuple[int, int] = (1, 5)) -> None:
        """Act once, after this epoch of this trial, whose run is there by then."""
        config, done, errors = self._configure(**three_trials(name)), threading.Event(), list[Exception]()

        def once(trial: int, epoch: int) -> None:
            if (trial, epoch) == at and not done.is_set():
                done.set()
                eventually(lambda: RUN_ID in load_study(self.stores, name).trials[trial].user_attrs)
                try:
                    act()
                except Exception as error:  # of which the trial would fail
                    errors.append(error)

        with at_epochs(self._patch, once) as seen:
            tune(prepare(config, self.stores.home), config, self.stores)
        assert errors == []
        assert seen == [(trial, epoch) for trial in range(3) for epoch in range(1, EPOCHS + 1)]

    def run_id(self, name: str, trial: int) -> str:
        """The run of a trial, which has begun."""
        found: str = load_study(self.stores, name).trials[trial].user_attrs[RUN_ID]
        return found

    def worker_run(self, name: str) -> str:
        """The study's own run."""
        (run,) = self.client.search_runs([self.experiment(name)], "tags.kind = 'study'")
        return str(run.info.run_id)

    def experiment(self, name: str) -> str:
        found: str = load_study(self.stores, name).user_attrs[EXPERIMENT]
        return found

    def remove_for_good(self) -> None:
        """`mlflow gc`, which removes all that was deleted."""
        uri = self.client.tracking_uri
        command = ["-m", "mlflow", "gc", "--backend-store-uri", uri, "--tracking-uri", uri]
        eventually(lambda: run(command).returncode == 0)  # a SQLite file has one writer


@pytest.fixture
def study(both: Stores, configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> Study:
    return Study(both, configure, monkeypatch)


@pytest.fixture
def embedded(stores: Stores, configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> Study:
    return Study(stores, configure, monkeypatch)


def test_the_run_of_a_trial_that_is_deleted_while_it_trains_gets_a_successor(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    """With all that the deleted one had; so does the study's own, with the runs of its trials below it."""
    deleted: list[str] = []

    def delete() -> None:
        deleted.extend([study.run_id("gone", 1), study.worker_run("gone")])
        for run_id in deleted:
            study.client.delete_run(run_id)

    study.tune("gone", delete)
    assert_once(study.stores, "gone", 3, EPOCHS)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bdqm-tune")]
    assert [line.partition(";")[0] for line in lines] == [
        f"bdqm-tune: the run trial-001 was deleted in MLflow ({deleted[0]})",
        f"bdqm-tune: the run gone was deleted in MLflow ({deleted[1]})",
    ]
    worker, client = study.worker_run("gone"), study.client
    run = client.get_run(worker)
    assert run.info.status == "FINISHED"
    assert run.data.params["study.n_trials"] == "3"
    assert [file.path for file in client.list_artifacts(worker)] == ["config.yaml"]
    children = client.search_runs([study.experiment("gone")], f"tags.mlflow.parentRunId = '{worker}'")
    assert len(children) == 3
    started = client.get_run(deleted[0]).info.start_time
    assert [child.info.start_time for child in children if child.info.run_name == "trial-001"] == [started]
    backend = load_study(study.stores, "gone")._storage.backend  # type: ignore[attr-defined]
    (entered,) = Workers(backend.engine, backend.retry, load_study(study.stores, "gone")._study_id).all()
    assert entered.description["run_id"] == worker


def test_a_deleted_experiment_is_restored_while_its_study_goes_on(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that had a successor before stays deleted."""
    replaced: list[str] = []

    def delete_all() -> None:
        replaced.append(study.run_id("restored", 0))
        study.client.delete_run(replaced[0])

    study.tune("restored", delete_all, at=(0, 3))

    study.client.delete_experiment(study.experiment("restored"))
    config = study._configure(**three_trials("restored"))
    tune(prepare(config, study.stores.home), config, study.stores)  # another worker, which starts now
    assert "the experiment 'restored' was deleted in MLflow; it is restored" in capsys.readouterr().err
    assert study.client.get_run(replaced[0]).info.lifecycle_stage == "deleted"
    assert_once(study.stores, "restored", 6, EPOCHS)
    capsys.readouterr()

    study.tune("during", lambda: study.client.delete_experiment(study.experiment("during")))
    assert "the experiment 'during' was deleted in MLflow; it is restored" in capsys.readouterr().err
    assert_once(study.stores, "during", 3, EPOCHS)


def test_an_experiment_that_was_removed_for_good_gets_a_successor(embedded: Study) -> None:
    def remove() -> None:
        embedded.client.delete_experiment(embedded.experiment("removed"))
        embedded.remove_for_good()

    embedded.tune("removed", remove, at=(0, 5))
    assert_once(embedded.stores, "removed", 3, EPOCHS)
    assert len(load_results(embedded.stores, "removed").curves) == 3 * EPOCHS


def test_a_new_study_leaves_an_experiment_deleted_and_says_how_to_go_on(embedded: Study) -> None:
    experiment = embedded.client.create_experiment("old")
    embedded.client.delete_experiment(experiment)
    with pytest.raises(BadInput, match=f"mlflow experiments restore -x {experiment}.*another name with --study"):
        embedded.tune("old", lambda: None)
    assert embedded.client.get_experiment(experiment).lifecycle_stage == "deleted"


@pytest.mark.parametrize("how", ["deleted", "removed for good", "set to FINISHED"])
def test_a_trial_that_was_handed_back_goes_on_though_its_run_was_touched(how: str, embedded: Study) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedded.tune("back", stop)
    run_id = embedded.run_id("back", 1)
    assert embedded.client.get_run(run_id).info.status == "SCHEDULED"
    if how == "set to FINISHED":
        embedded.client.set_terminated(run_id, "FINISHED")
    else:
        embedded.client.delete_run(run_id)
    if how == "removed for good":
        embedded.remove_for_good()
    config = embedded._configure(**three_trials("back"))
    tune(prepare(config, embedded.stores.home), config, embedded.stores)
    assert_once(embedded.stores, "back", 6, EPOCHS)
    assert (embedded.run_id("back", 1) == run_id) == (how == "set to FINISHED")


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_a_status_that_is_changed_by_hand_is_set_right_at_the_end(status: str, embedded: Study) -> None:
    def change() -> None:
        for run_id in (embedded.run_id("hand", 1), embedded.worker_run("hand")):
            embedded.client.set_terminated(run_id, status)

    embedded.tune("hand", change)
    assert_once(embedded.stores, "hand", 3, EPOCHS)
    assert embedded.client.get_run(embedded.worker_run("hand")).info.status == "FINISHED"


def test_a_folder_of_artifacts_that_is_removed_is_made_again(embedded: Study) -> None:
    def remove() -> None:
        for trial in (0, 1):
            folder = Path(embedded.client.get_run(embedded.run_id("folder", trial)).info.artifact_uri)
            shutil.rmtree(folder.parent, ignore_errors=trial == 1)  # which has none yet

    embedded.tune("folder", remove)
    client = embedded.client
    there = [bool(client.list_artifacts(embedded.run_id("folder", trial))) for trial in range(3)]
    assert there == [False, True, True]
    with pytest.raises(BadInput, match="runs:/.*: MLflow has no such model"):
        evaluate_best(embedded.stores, "folder", trial=0)
    assert confirm(embedded.stores, "folder", Options(best=3, seeds=2, random="none")).champion.trial in (1, 2)


@pytest.fixture(params=few(["deleted"], ["removed for good"]))
def without_best(request: pytest.FixtureRequest, embedded: Study) -> tuple[Study, int, bool]:
    """A study whose best trial's run is gone, that trial, and whether it can be restored."""
    embedded.tune("s", lambda: None)
    best = load_study(embedded.stores, "s").best_trial.number
    embedded.client.delete_run(embedded.run_id("s", best))
    if request.param == "removed for good":
        embedded.remove_for_good()
    return embedded, best, request.param == "deleted"


def test_a_complete_trial_whose_run_is_gone_counts_and_the_study_is_read(
    without_best: tuple[Study, int, bool],
) -> None:
    study, best, can_return = without_best
    stores = study.stores
    assert study_status(stores, "s").complete == 3
    results = load_results(stores, "s")
    assert list(results.trials["state"]) == ["complete"] * 3
    assert set(results.curves["trial"]) >= {0, 1, 2} - {best}
    assert results.splits["training"]["structures"] > 0
    said = [finding for finding in repair_leftovers(stores, wait=False) if finding.state == WARNING]
    assert [finding.message for finding in said] == (
        [f"s: the runs of trials {best} were deleted in MLflow, and can be restored until `mlflow gc`"] * can_return
    )
    if can_return:
        assert said[0].help == f"mlflow runs restore --run-id {study.run_id('s', best)}"
    with pytest.raises(BadInput, match="runs restore --run-id" if can_return else "no run"):
        evaluate_best(stores, "s")
    others = [trial.number for trial, _ in best_trials(load_study(stores, "s"), study.client, 2)]
    assert sorted(others) == sorted({0, 1, 2} - {best})
    assert remove_artifacts(stores, "s", 1, dry_run=True)[0].runs == 2
    assert Path(make_report(stores, "s").html).is_file()
    config = study._configure(**three_trials("s"))
    tune(prepare(config, stores.home), config, stores)
    assert [trial.state for trial in load_study(stores, "s").trials] == [TrialState.COMPLETE] * 6
    left = study.client.search_runs([study.experiment("s")], "attributes.run_name LIKE 'trial-%'")
    assert len(left) == 5
    gone = study.client.search_runs([study.experiment("s")], run_view_type=ViewType.DELETED_ONLY)
    assert len(gone) == can_return
