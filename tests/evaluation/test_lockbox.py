"""The lock box: tuning cannot look into it, and it opens for one model, unless a reason stays on record."""

import ast
import json
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from bdqm_tune.config.config import Config
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.evaluation import evaluation
from bdqm_tune.evaluation.evaluation import evaluate_best, evaluate_ensemble
from bdqm_tune.evaluation.lockbox import next_opening, openings, put_on_record, reasons
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.ensembling import assemble, record_ensemble
from bdqm_tune.services.connection import Stores
from bdqm_tune.structures import read_structures
from bdqm_tune.study.study import load_study
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tuning.tune import tune
from tests.forked import Forked

PROJECT = Path(__file__).resolve().parents[2]
VALIDATION = {"validation": {"fraction": 0.3}}
Run = Callable[..., Any]


@pytest.fixture
def run_in(configure: Callable[..., Config]) -> Callable[[Stores], str]:
    """`run_in(stores)`: a study there with two complete trials; gives its name."""

    def go(stores: Stores) -> str:
        name = f"repeated-{stores.connection_file is None}"
        config = configure(study={"name": name, "n_trials": 2, "pruner": "none"}, training={"epochs": 3})
        tune(prepare(config, stores.home), config, stores)
        return name

    return go


def tuned(run: Run, files: dict[str, str], n_trials: int = 3, name: str = "small") -> optuna.Study:
    data = {"train": files["train"], "test": files["test"], **VALIDATION}
    study, _ = run(study={"name": name, "n_trials": n_trials, "pruner": "none"}, data=data, training={"epochs": 4})
    return study


# What tuning has of the labels


def test_what_training_is_given_has_no_labels_of_the_test_split(
    configure: Callable[..., Config], files: dict[str, str], tmp_path: Path
) -> None:
    dataset = prepare(configure(), tmp_path)
    everything = pickle.dumps(dataset)
    labelled, train = read_structures(files["test"]), read_structures(files["train"])
    numbers = [*labelled.energies, *np.concatenate(labelled.forces or []).ravel()]
    assert not any(np.float64(number).tobytes() in everything for number in numbers)
    held = dataset.train.structures.images.tolist() + dataset.validation.structures.images.tolist()
    assert all(train.energies[i].tobytes() in everything for i in held), "where there are labels, they are seen"


def test_tuning_and_ensembles_do_not_open_the_labels(run: Run, stores: Stores, files: dict[str, str]) -> None:
    opened: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        # Writing them, O_RDWR with a temporary name, is another matter.
        if watching and event == "open" and str(arguments[0]).endswith(".labels.npz"):
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    tuned(run, files)
    record_ensemble(stores, assemble(stores, "small", 2, 0.7))
    assert opened == []
    evaluate_best(stores, "small")
    assert len(opened) == 1, "the watch sees it"
    watching = False


def test_one_function_reads_the_labels_and_the_evaluation_alone_calls_it() -> None:
    def names(path: Path) -> set[str]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        return imported | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}

    package = [*(PROJECT / "bdqm_tune").rglob("*.py"), *(PROJECT / "analysis").rglob("*.py")]
    users = {path.name for path in package if names(path) & {"open_labels", "_labels"}}
    assert users == {"evaluation.py"}
    spelled = [path.name for path in package if "labels.npz" in path.read_text(encoding="utf-8")]
    assert spelled == ["sealed.py"]


def test_data_prepared_for_another_home_are_refused_before_they_are_tuned_on(
    configure: Callable[..., Config], stores: Stores, tmp_path: Path
) -> None:
    config = configure()
    with pytest.raises(BdqmError, match="prepared with another BDQM_HOME"):
        tune(prepare(config, tmp_path / "elsewhere"), config, stores)


# Openings


def test_another_model_needs_a_reason_that_stays_on_record(run: Run, stores: Stores, files: dict[str, str]) -> None:
    tuned(run, files)
    first = evaluate_best(stores, "small")
    ensemble = record_ensemble(stores, assemble(stores, "small", 2, 0.7))
    with pytest.raises(BadInput) as refused:
        evaluate_ensemble(stores, "small")
    said = str(refused.value)
    assert f"opened on {first.opening.time} for trial {first.trial}" in said
    assert f"test_energy_mae_per_atom {1000 * first.metrics['test_energy_mae_per_atom']:.4g} meV/atom" in said
    assert '--reopen "REASON"' in said
    with pytest.raises(BadInput):
        evaluate_ensemble(stores, "small", reopen="  ")
    assert len(openings(load_study(stores, "small"))) == 1

    second = evaluate_ensemble(stores, "small", reopen="asked for by a referee")
    another = record_ensemble(stores, assemble(stores, "small", 3, 0.7))
    third = evaluate_ensemble(stores, "small", reopen="three members")
    found = openings(load_study(stores, "small"))
    assert [one.number for one in found] == [1, 2, 3]
    assert [one.model_run_id for one in found] == [first.opening.model_run_id, ensemble, another]
    assert reasons(found) == ["asked for by a referee", "three members"]
    assert [one.run_id for one in found] == [first.run_id, second.run_id, third.run_id]
    assert [one.metrics for one in found] == [first.metrics, second.metrics, third.metrics]
    tags = [MlflowClient().get_run(one.run_id).data.tags for one in (first, second, third)]
    assert [tag["test_opening"] for tag in tags] == ["1", "2", "3"]
    expected = [[], ["asked for by a referee"], ["asked for by a referee", "three members"]]
    assert [json.loads(tag["test_reopen_reasons"]) for tag in tags] == expected
    assert [tag["model_run_id"] for tag in tags] == [one.model_run_id for one in found]
    assert {tag["test_digest"] for tag in tags} == {found[0].test_digest}


def test_the_same_model_again_is_the_record_of_before(both: Stores, run_in: Run) -> None:
    name = run_in(both)
    first = evaluate_best(both, name)
    client = tracking_client(both)
    before = client.get_run(first.run_id).data
    for reopen in ("", "no need for it"):
        again = evaluate_best(both, name, reopen)
        assert (first.repeated, again.repeated) == (False, True)
        assert (again.run_id, again.metrics, again.opening) == (first.run_id, first.metrics, first.opening)
        assert again.tables.keys() == first.tables.keys() == {"errors", "by_element", "by_class", "overlap"}
        for table, frame in first.tables.items():
            pd.testing.assert_frame_equal(again.tables[table], frame, check_dtype=False)
    study = load_study(both, name)
    assert len(openings(study)) == 1
    assert client.get_run(first.run_id).data.to_dictionary() == before.to_dictionary()
    runs = client.search_runs([study.user_attrs["mlflow_experiment_id"]], "tags.kind = 'evaluation'")
    assert [run.info.run_id for run in runs if run.data.tags["study"] == name] == [first.run_id]
    assert openings(study)[0].metrics == pytest.approx(before.metrics)


def test_a_run_that_mlflow_run_made_for_a_repetition_says_so(
    run: Run, stores: Stores, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned(run, files)
    first = evaluate_best(stores, "small")
    client = MlflowClient()
    given = client.create_run(client.get_run(first.run_id).info.experiment_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", given.info.run_id)
    evaluate_best(stores, "small")
    assert client.get_run(given.info.run_id).data.tags["repeats_evaluation"] == first.run_id
    assert "kind" not in client.get_run(given.info.run_id).data.tags


def test_a_crash_after_the_opening_is_on_record(
    run: Run, stores: Stores, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned(run, files)
    ensemble = record_ensemble(stores, assemble(stores, "small", 2, 0.7))
    with monkeypatch.context() as patch:

        def killed(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(evaluation, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate_best(stores, "small")
    (opening,) = openings(load_study(stores, "small"))
    assert (opening.number, opening.is_done, opening.metrics) == (1, False, {})
    with pytest.raises(BadInput, match="an evaluation that did not come to its end"):
        evaluate_ensemble(stores, "small", ensemble)
    done = evaluate_best(stores, "small")
    assert (done.opening.number, done.opening.time) == (1, opening.time)
    assert not done.repeated
    assert openings(load_study(stores, "small")) == [done.opening]


def test_nothing_that_fails_before_the_opening_opens_it(
    run: Run, stores: Stores, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned(run, files)
    monkeypatch.setattr(evaluation, "predict", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(BdqmError, match="no space left"):
        evaluate_best(stores, "small")
    with pytest.raises(BadInput, match="holds a URL with a password"):
        evaluate_best(stores, "small", "mysql://me:t0ps3cret@host/x")
    with pytest.raises(BadInput, match=r"gone\.traj: no such file.*--train FILE"):
        evaluate_best(stores, "small", train="gone.traj")
    assert openings(load_study(stores, "small")) == []


def test_of_two_models_evaluated_at_once_one_wins(run: Run, stores: Stores, files: dict[str, str]) -> None:
    tuned(run, files)
    record_ensemble(stores, assemble(stores, "small", 2, 0.7))
    command = ["-m", "bdqm_tune", "evaluate", "--study", "small", "--json"]
    processes = [Forked([*command, *more]) for more in ([], ["--ensemble", "latest"])]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2], outputs
    winner, loser = sorted(range(2), key=lambda i: processes[i].returncode)
    (opening,) = openings(load_study(stores, "small"))
    assert json.loads(outputs[winner][0])["run_id"] == opening.run_id
    assert outputs[loser][0] == ""
    assert re.search(rf"was opened on {re.escape(opening.time)} for {opening.model} ", outputs[loser][1])


def test_openings_are_of_one_study() -> None:
    study = optuna.create_study()
    opening = next_opening(study, "trial 3", "a", "digest", "not asked for")
    assert (opening.number, opening.reason, openings(study)) == (1, "", [])
    put_on_record(study, opening)
    assert next_opening(study, "trial 3", "a", "digest") == opening
    with pytest.raises(BadInput, match="to evaluate trial 4 too would be to choose by the test split"):
        next_opening(study, "trial 4", "b", "digest")
    for number in range(2, 13):
        put_on_record(study, next_opening(study, f"trial {number}", str(number), "digest", f"reason {number}"))
    assert [one.number for one in openings(study)] == list(range(1, 13))
    with pytest.raises(BadInput, match="and 11 more times"):
        next_opening(study, "trial 4", "b", "digest")
