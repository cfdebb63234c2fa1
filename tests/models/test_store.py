"""A model is found by folder, run and registered name; where there is none, the message says what there is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import pytest

import bdqm_tune as bt
from bdqm_tune import api
from bdqm_tune.admin.artifact_gc import remove_artifacts
from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.evaluation.evaluation import evaluate_best
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.ensembling import assemble, record_ensemble
from bdqm_tune.models.prediction import predict_file
from bdqm_tune.models.registry import register
from bdqm_tune.models.store import load_model, load_potential
from bdqm_tune.services.connection import Stores, find_stores
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tuning.tune import tune

Configure = Callable[..., Any]


def trained(stores: Stores, configure: Configure, name: str, n_trials: int = 1, **groups: Any) -> list[str]:
    """Tune, and give the ids of the trials' runs, the best first."""
    config = configure(study={"name": name, "n_trials": n_trials, "pruner": "none"}, training={"epochs": 2}, **groups)
    study = tune(prepare(config, stores.home), config, stores)
    return [t.user_attrs["mlflow_run_id"] for t in sorted(study.get_trials(), key=lambda t: (t.value, t.number))]


def test_every_form_loads_the_same_model(
    both: Stores, configure: Configure, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"forms-{both.connection_file is None}"
    best, other = trained(both, configure, name, 2)
    client = tracking_client(both)
    client.create_registered_model(name)
    for run_id in (other, best, other):
        client.create_model_version(name, f"runs:/{run_id}/model", run_id)
    client.set_registered_model_alias(name, "champion", "2")
    load_potential(f"runs:/{best}/model", both).save(Path("folder"))

    atoms = ase.io.read(files["test"], 0)
    expected, another = (load_potential(run_id, both).predict([atoms], False).energies[0] for run_id in (best, other))
    assert expected != another
    monkeypatch.setattr(api, "find_stores", lambda: both)
    for model in (
        "folder",
        Path("folder"),
        best,
        f"runs:/{best}/model",
        f"models:/{name}@champion",
        f"models:/{name}/2",
    ):
        atoms.calc = bt.load_calculator(model)
        assert atoms.get_potential_energy() == pytest.approx(expected), model
        assert predict_file(str(model), files["test"], Path("out.xyz"), both).structures == 12
        assert ase.io.read("out.xyz", 0).get_potential_energy() == pytest.approx(expected), model
    for model in (other, f"models:/{name}/latest", f"models:/{name}/1"):
        assert load_potential(model, both).predict([atoms], False).energies[0] == pytest.approx(another), model

    remove_artifacts(both, name, 1, dry_run=False)
    for model in (other, f"runs:/{other}/model", f"models:/{name}/1"):
        with pytest.raises(BadInput, match=rf"{model}: the model was removed by `bdqm-tune gc`"):
            load_model(model, both)
    load_model(f"models:/{name}@champion", both)

    for model, message in {
        f"models:/{name}@winner": r"has no alias 'winner'; it has: champion \(version 2\); its versions are: .*1",
        f"models:/{name}/7": r"has no version '7'; its versions are: .*1",
        f"models:/{name}/first": "has no version 'first'; its versions are: ",
        "models:/nobody@champion": f"no registered model 'nobody'; there are: .*{name}",
        "0" * 32: f"no run {'0' * 32} in .*; it has the experiments .*{name}",
        f"runs:/{'0' * 32}/model": f"no run {'0' * 32} in ",
        f"runs:/{best}/other": "MLflow has no such model",
        f"runs:/{best}": "is no address of a model; it is a folder, a run's id, runs:/RUN_ID/model, models:/NAME@ALIAS",
        "models:/": "is no address of a model",
        "nowhere": "nowhere: no potential there; a model is a folder, a run's id",
    }.items():
        with pytest.raises(BadInput, match=message) as caught:
            load_model(model, both)
        assert model in str(caught.value)
        assert "\n" not in str(caught.value)


def test_runs_that_are_no_trials_say_what_they_are(stores: Stores, configure: Configure) -> None:
    (best,) = trained(stores, configure, "small")
    client = tracking_client(stores)
    study = client.get_run(client.get_run(best).data.tags["mlflow.parentRunId"]).info.run_id
    with pytest.raises(BadInput, match=f"{study}: the run small has no model; it is that of the study, whose trials"):
        load_model(study, stores)
    with pytest.raises(BadInput, match=rf"evaluation-trial-000 has no model; it is the evaluation of {best}"):
        load_model(evaluate_best(stores, "small").run_id, stores)
    foreign = client.create_run("0").info.run_id
    with pytest.raises(BadInput, match="has no model; its trial is none of a study"):
        load_model(foreign, stores)


def test_a_damaged_model_is_named_as_it_was_asked_for(stores: Stores, configure: Configure) -> None:
    (best,) = trained(stores, configure, "small")
    (file,) = Path("mlruns").rglob("potential.json")
    file.write_text("{}")
    with pytest.raises(BadInput, match=rf"^{best}: not a potential that can be read \(potential\.json: format"):
        load_model(best, stores)


def test_a_server_that_does_not_answer_is_not_bad_input(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = Stores(workdir, tracking="http://127.0.0.1:9")
    for model in ("0" * 32, "models:/oc20@champion"):
        with pytest.raises(BdqmError, match=rf"^{model}: cannot be read from http://127\.0\.0\.1:9: ") as caught:
            load_model(model, away)
        assert caught.value.exit_code == 1


def test_a_registry_without_models_says_so(stores: Stores, configure: Configure) -> None:
    trained(stores, configure, "small")
    with pytest.raises(BadInput, match="no registered model 'oc20'; there are: none"):
        load_model("models:/oc20@champion", stores)


def test_looking_for_a_model_makes_no_database(stores: Stores) -> None:
    for model in ("0" * 32, "runs:/abc/model", "models:/oc20@champion"):
        with pytest.raises(
            BadInput, match=rf"{model}: there are no runs yet in sqlite:///.*mlflow\.db; go to the folder"
        ):
            load_model(model, stores)
    assert list(Path().iterdir()) == []


def test_the_folder_may_have_a_blank_in_its_name(
    workdir: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workdir / "a folder").mkdir()
    monkeypatch.chdir(workdir / "a folder")
    here = find_stores()
    (best,) = trained(here, configure, "small")
    load_potential(best, here)


def test_a_folder_comes_before_a_run(stores: Stores, configure: Configure) -> None:
    (best,) = trained(stores, configure, "small")
    Path(best).mkdir()
    with pytest.raises(BadInput, match=r"no potential there, potential\.json is missing"):
        load_model(best, stores)


def test_labels_have_the_names_that_the_models_study_gave_them(
    both: Stores, configure: Configure, files: dict[str, str], workdir: Path
) -> None:
    """Of a trial's run, of a registered model whose run has no files any more, and of an ensemble."""
    for split in ("train", "test", "other"):
        images = ase.io.read(files[split], ":")
        for atoms in images:
            atoms.info["REF_energy"] = atoms.get_potential_energy()
            atoms.calc = None
        ase.io.write(f"{split}.extxyz", images)
    name = f"names-{both.connection_file is None}"
    data = {"train": "train.extxyz", "test": "test.extxyz", "energy_key": "REF_energy"}
    best, other = trained(both, configure, name, 2, data=data)
    register(both, name)
    ensemble = record_ensemble(both, assemble(both, name, 2, 0.8))
    remove_artifacts(both, name, 1, dry_run=False)
    with pytest.raises(BadInput, match="was removed by"):
        load_model(other, both)
    for model in (best, f"runs:/{best}/model", f"models:/{name}@champion", f"models:/{name}/latest", ensemble):
        done = predict_file(model, "other.extxyz", Path("out.xyz"), both)
        assert (done.compared_with, done.sealed) == ({"energy": "REF_energy"}, 0), model
        done = predict_file(model, "test.extxyz", Path("out.xyz"), both)
        assert (done.errors, done.sealed) == ({}, 12), model
