"""A study copied to other stores: everything that it has reads the same there, and a copy is whole or not there."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from bdqm_tune.admin import study_copy
from bdqm_tune.admin.deletion import belongings, delete_study
from bdqm_tune.admin.run_copy import COPIED_FROM, renamed
from bdqm_tune.admin.status import study_status
from bdqm_tune.admin.study_copy import copy_study
from bdqm_tune.analysis.reporting.facts import gather
from bdqm_tune.config.config import Config
from bdqm_tune.confirmation.confirm import Options, confirm
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.evaluation.evaluation import evaluate_best
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.store import load_potential
from bdqm_tune.services.connection import Stores, file_stores, server_stores
from bdqm_tune.structures.sealed import open_labels
from bdqm_tune.study.checkpoints import checkpoint_folder
from bdqm_tune.study.data import load_test_split
from bdqm_tune.study.results import load_results
from bdqm_tune.study.selection import chosen_model
from bdqm_tune.study.study import EXPERIMENT, IDENTITY, RUN_ID, add_trials, load_study, next_trial
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tracking.search import search
from bdqm_tune.tuning.tune import tune
from bdqm_tune.workers.registry import DEAD, Workers
from tests.commands import Call
from tests.places import Place, write_connection
from tests.servers import Servers

Tuned = Callable[..., Stores]


@pytest.fixture
def tuned(workdir: Path, configure: Callable[..., Config]) -> Tuned:
    """`tuned()`: embedded stores with a study of three trials that have ended and two that wait; and its config."""

    def make(n_trials: int = 3) -> Stores:
        stores, config = file_stores({}), configure(study={"name": "small", "n_trials": n_trials})
        study = tune(prepare(config, stores.home), config, stores)
        add_trials(study, 2)
        return stores

    return make


@pytest.fixture
def elsewhere(workdir: Path) -> Stores:
    """Other stores of the same `BDQM_HOME`."""
    return Stores(workdir / ".bdqm", f"sqlite:///{workdir}/there.db", f"sqlite:///{workdir}/there-mlflow.db")


def runs_of(stores: Stores) -> list[Run]:
    return list(search(tracking_client(stores), ""))


def content(client: MlflowClient, run: Run, folder: Path) -> dict[str, Any]:
    """All that a run has."""
    folder.mkdir(parents=True)
    run_id = run.info.run_id
    if client.list_artifacts(run_id):
        client.download_artifacts(run_id, "", str(folder))
    inputs = run.inputs.dataset_inputs if run.inputs is not None else []
    histories = {
        key: sorted((one.step, one.timestamp, one.value) for one in client.get_metric_history(run_id, key))
        for key in run.data.metrics
    }
    return {
        "info": (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time),
        "params": dict(run.data.params),
        "tags": {key: value for key, value in run.data.tags.items() if key != COPIED_FROM},
        "metrics": histories,
        "inputs": sorted(
            (one.dataset.name, one.dataset.digest, one.dataset.profile, *(tag.value for tag in one.tags))
            for one in inputs
        ),
        "files": {
            str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
        },
    }


def assert_same(source: Stores, target: Stores, name: str, folder: Path) -> None:
    """Everything reads the same, but for the ids of runs and experiments."""
    theirs, ours = tracking_client(source), tracking_client(target)
    copies = {run.data.tags[COPIED_FROM]: run for run in runs_of(target) if COPIED_FROM in run.data.tags}
    ids = {run_id: copy.info.run_id for run_id, copy in copies.items()}
    originals = [run for run in runs_of(source) if run.data.tags.get("study") == name]
    assert {run.info.run_id for run in originals} == copies.keys()
    tracking_client(source)
    for run in originals:
        there = content(theirs, run, folder / "theirs" / run.info.run_id)
        tracking_client(target)
        here = content(ours, copies[run.info.run_id], folder / "ours" / run.info.run_id)
        for key in ("info", "params", "metrics", "inputs"):
            assert here[key] == there[key], key
        assert here["tags"] == {key: renamed(value, ids) for key, value in there["tags"].items()}
        assert here["files"].keys() == there["files"].keys()
        for file, text in there["files"].items():
            assert here["files"][file] == renamed(text.decode("latin-1"), ids).encode("latin-1"), file
    before, after = load_results(source, name), load_results(target, name)
    renamed_trials = before.trials.assign(run_id=before.trials["run_id"].map(ids))
    for frame in (renamed_trials, after.trials):
        for key in ("started", "ended"):  # of which MariaDB keeps the seconds
            frame[key] = frame[key].dt.floor("s")
    pd.testing.assert_frame_equal(renamed_trials, after.trials)
    pd.testing.assert_frame_equal(before.curves, after.curves)
    assert before.spaces == after.spaces
    assert (before.splits, before.hyperparameters) == (after.splits, after.hyperparameters)
    pd.testing.assert_frame_equal(before.runs.rename(index=ids), after.runs, check_like=True)
    own = {EXPERIMENT, IDENTITY}
    kept = {key: value for key, value in before.study.user_attrs.items() if key not in own}
    assert json.loads(renamed(json.dumps(kept), ids)) == {
        key: value for key, value in after.study.user_attrs.items() if key not in own
    }
    assert before.study.user_attrs[IDENTITY] != after.study.user_attrs[IDENTITY]
    assert [trial.intermediate_values for trial in after.study.trials] == [
        trial.intermediate_values for trial in before.study.trials
    ]
    best = load_potential(chosen_model(after.study).run_id, target)
    same = load_potential(chosen_model(before.study).run_id, source)
    atoms = load_test_split(after.study, target.home).atoms[:3]
    assert best.predict(atoms)[0].tolist() == same.predict(atoms)[0].tolist()


def test_a_copy_reads_the_same_and_goes_on(
    tuned: Tuned, elsewhere: Stores, tmp_path: Path, configure: Callable[..., Config]
) -> None:
    """With its confirmation and its evaluation; a study of the same experiment stays where it is."""
    source = tuned()
    made = confirm(source, "small", Options(best=1, seeds=2, random="none"))
    evaluated = evaluate_best(source, "small")
    folder = checkpoint_folder(source.home, "small", load_study(source, "small").user_attrs)
    folder.mkdir(parents=True)
    (folder / "trial-003.checkpoint").write_bytes(b"of a trial that waits")

    copied = copy_study(source, elsewhere, "small")
    assert (copied.study, copied.trials, copied.models) == ("small", 5, ())
    assert copied.runs == len(runs_of(source))
    assert_same(source, elsewhere, "small", tmp_path / "compared")
    assert gather(elsewhere, "small").missing == []
    assert evaluate_best(elsewhere, "small").metrics == evaluated.metrics
    lines: list[str] = []
    options = Options(best=1, seeds=2, random="none")
    again = confirm(elsewhere, "small", options, lambda line, done, n: lines.append(line))
    assert again.champion.value == made.champion.value
    assert [line.rpartition(", ")[2] for line in lines] == ["trained before"] * len(made.retrainings)
    folder = checkpoint_folder(elsewhere.home, "small", load_study(elsewhere, "small").user_attrs)
    assert (folder / "trial-003.checkpoint").read_bytes() == b"of a trial that waits"

    with pytest.raises(BadInput, match="there is a study 'small' in .*there.db already; nothing is copied over it"):
        copy_study(source, elsewhere, "small")
    config = configure(study={"name": "small", "n_trials": 1})
    tune(prepare(config, elsewhere.home), config, elsewhere)
    assert study_status(elsewhere, "small").complete + study_status(elsewhere, "small").pruned == 6
    assert study_status(source, "small").waiting == 2


def test_what_a_copy_needs_of_the_home_outlives_the_original(tuned: Tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels of the test split, which both have, also where the copy is on servers."""
    source = tuned(n_trials=1)
    target = Stores(source.home, f"sqlite:///{source.home}/there.db", f"sqlite:///{source.home}/mlflow.db")
    copy_study(source, target, "small")
    monkeypatch.setattr("bdqm_tune.study.study.place_beside", lambda stores: target)
    delete_study(source, belongings(source, "small"))
    study = load_study(target, "small")
    assert len(open_labels(load_test_split(study, target.home), target.home)) == 12


@pytest.mark.parametrize("at", ["runs", "rows"])
def test_a_copy_that_was_cut_off_is_not_there_and_goes_on(
    at: str, tuned: Tuned, elsewhere: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tuned()
    with monkeypatch.context() as patch:
        if at == "runs":
            log, calls = MlflowClient.log_batch, list[str]()

            def fail(self: MlflowClient, run_id: str, *given: Any, **options: Any) -> Any:
                calls.append(run_id)
                if len(calls) == 3:
                    raise OSError("the disk is full")
                return log(self, run_id, *given, **options)

            patch.setattr(MlflowClient, "log_batch", fail)
        else:
            attribute, seen = study_copy._attribute, list[str]()

            def cut(key: str, *given: Any) -> str:
                seen.append(key)
                if seen.count(RUN_ID) == 2:
                    raise OSError("the disk is full")
                return attribute(key, *given)

            patch.setattr(study_copy, "_attribute", cut)
        with pytest.raises(
            BdqmError, match="the disk is full; it is not there yet, and `bdqm-tune copy-study` resumes"
        ):
            copy_study(source, elsewhere, "small")
    with pytest.raises(BadInput, match="no study 'small'"):
        load_study(elsewhere, "small")
    left = {run.info.run_id for run in runs_of(elsewhere)}
    assert list((elsewhere.home / "checkpoints").glob("*")) == []
    copy_study(source, elsewhere, "small")
    assert left == {run.info.run_id for run in runs_of(elsewhere)}
    assert_same(source, elsewhere, "small", tmp_path / "compared")


def test_what_a_killed_worker_left_is_set_right_first(tuned: Tuned, elsewhere: Stores) -> None:
    source = tuned(n_trials=1)
    study = load_study(source, "small")
    backend = study._storage.backend  # type: ignore[attr-defined]
    workers = Workers(backend.engine, backend.retry, study._study_id)
    process = f"{'/'.join(workers.all()[0].description['process'].split('/')[:-1])}/1@1"
    workers.add("killed", {"host": "here", "pid": "1", "process": process})
    backend.worker = "killed"
    assert next_trial(study) is not None
    said: list[str] = []
    copy_study(source, elsewhere, "small", said.append)
    assert said[0] == "small: worker 1 on here is dead: its process was gone"
    assert [trial.state for trial in load_study(elsewhere, "small").trials][1:] == [TrialState.WAITING] * 2
    copied = load_study(elsewhere, "small")
    backend = copied._storage.backend  # type: ignore[attr-defined]
    there = Workers(backend.engine, backend.retry, copied._study_id).all(DEAD)
    assert [worker.name for worker in there] == ["killed"]


def test_a_study_at_work_is_not_copied(tuned: Tuned, elsewhere: Stores) -> None:
    source = tuned(n_trials=1)
    study = load_study(source, "small")
    backend = study._storage.backend  # type: ignore[attr-defined]
    Workers(backend.engine, backend.retry, study._study_id).add("a", {"host": "node", "pid": "7"})
    with pytest.raises(BdqmError, match="workers run on study 'small': 7 on node; end them first"):
        copy_study(source, elsewhere, "small")
    assert not Path("there.db").exists()


@pytest.fixture
def beside(mariadb_place: Place, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A database of servers that are up, of a user who has worked with files before."""
    (workdir / "settings.json").write_text("{}")
    monkeypatch.setenv("BDQM_SERVICES", str(workdir))
    place = replace(mariadb_place, stores=replace(mariadb_place.stores, home=workdir / ".bdqm"))
    assert place.server is not None
    write_connection(place.stores, place.server.url(place.schema), f"sqlite:///{workdir}/of-servers.db")
    return place


def test_a_study_in_files_is_named_where_servers_are_up_and_copied_there(
    tuned: Tuned, beside: Place, call: Call, tmp_path: Path, files: dict[str, str]
) -> None:
    source = tuned()
    status, _, err = call("status", "small")
    where = f"it is in sqlite:///{Path.cwd()}/.bdqm/optuna.db"
    command = "`bdqm-tune copy-study --to servers small`"
    assert (status, err.count("\n")) == (2, 1)
    assert err.endswith(f"; there is none yet; {where}, from which {command} brings it here\n")
    assert "bdqm-tune: in files of this folder: small; `bdqm-tune copy-study" in call("studies")[2]
    assert call("copy-study", "small", "--to", "somewhere")[0] == 2
    status, out, err = call("copy-study", "small", "--to", "servers")
    assert status == 0, err
    assert out.startswith("copied: the study small, 5 trials, 4 runs, to mysql+pymysql://")
    assert_same(source, beside.stores, "small", tmp_path / "compared")
    assert call("status", "small")[0] == 0
    assert call("studies")[2] == ""
    assert call("copy-study", "small", "--to", "servers")[0] == 2
    status, _, err = call("copy-study", "other", "--to", "servers")
    assert status == 2
    assert "no study 'other' in sqlite:" in err


def test_a_study_that_begins_on_servers_names_the_one_in_files(
    tuned: Tuned, beside: Place, configure: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(n_trials=1)
    config = configure(study={"name": "small", "n_trials": 1})
    tune(prepare(config, beside.stores.home), config, beside.stores)
    said = "bdqm-tune: a study 'small' begins on the servers; another one is in sqlite:///"
    assert said in capsys.readouterr().err


@pytest.mark.endurance
def test_through_the_servers_and_back(
    tuned: Tuned, servers: Servers, call: Call, tmp_path: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tuned()
    confirm(source, "small", Options(best=1, seeds=2, random="none"))
    monkeypatch.setenv("BDQM_SERVICES", str(servers.folder))
    status, out, err = call("copy-study", "small", "--to", "servers", "--json")
    assert status == 0, err
    assert json.loads(out)["trials"] == 5
    assert_same(source, server_stores(), "small", tmp_path / "there")
    assert call("evaluate", "--study", "small")[0] == 0
    with monkeypatch.context() as files:
        files.setenv("BDQM_STORAGE", f"sqlite:///{workdir}/back.db")
        files.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workdir}/back-mlflow.db")
        status, _, err = call("copy-study", "small", "--to", "files")
        assert status == 0, err
        assert_same(server_stores(), file_stores(), "small", tmp_path / "back-again")
    assert call("delete-study", "small", "--yes")[0] == 0  # the servers are other tests', too
