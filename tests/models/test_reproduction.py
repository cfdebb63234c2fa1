"""A training repeated from the tracking store alone, and taken away as an archive."""

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

import bdqm_tune as bt
from bdqm_tune.admin.artifact_gc import remove_artifacts
from bdqm_tune.config.config import Config, load_config
from bdqm_tune.confirmation.confirm import Options, confirm
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.models.archive import archive, export
from bdqm_tune.models.reproduction import DIFFERENT, EQUAL, WITHIN, differences, reproduce, verdict
from bdqm_tune.models.store import load_potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tuning.tune import tune
from tests import forked

Tuned = Callable[..., optuna.Study]


@pytest.fixture
def tuned(configure: Callable[..., Config]) -> Tuned:
    """`tuned(stores, name, …)`: a study of three complete trials, trained side by side."""

    def go(stores: Stores, name: str = "small", **groups: Any) -> optuna.Study:
        study = {"name": name, "n_trials": 3, "pruner": "none"} | groups.pop("study", {})
        config = configure(study=study, **({"training": {"epochs": 5}, "": {"cohort": 3}} | groups))
        return tune(prepare(config, stores.home), config, stores)

    return go


def test_a_trial_and_a_training_of_confirm_come_out_the_same(both: Stores, tuned: Tuned) -> None:
    name = f"again-{both.connection_file is None}"
    study = tuned(both, name, training={"epochs": 5, "forces": True})
    champion = confirm(both, name, Options(best=1, seeds=2)).champion
    trials = [trial.user_attrs["mlflow_run_id"] for trial in study.get_trials()]
    for run_id in (trials[1], champion.run_id):
        epochs: list[int] = []
        found = reproduce(both, run_id, on_epoch=lambda record, seen=epochs: seen.append(record.epoch))  # type: ignore[misc]
        assert found.verdict == EQUAL
        assert found.same_weights
        assert found.epochs == 5
        assert epochs == [1, 2, 3, 4, 5]
        assert {"train_loss", "val_energy_mae", "val_forces_mae", "lr"} <= set(found.differences["metric"])
        assert "epoch_seconds" not in set(found.differences["metric"])
        assert not [note for note in found.notes if " then, " in note]


def test_what_is_not_as_it_was_is_said(stores: Stores, tuned: Tuned, workdir: Path) -> None:
    study = tuned(stores)
    run_id = study.best_trial.user_attrs["mlflow_run_id"]
    client = MlflowClient()
    for tag, value in {"version.torch": "1.0", "cpu": "abacus", "git_commit": "abc", "git_dirty": "true"}.items():
        client.set_tag(run_id, tag, value)
    notes = reproduce(stores, run_id).notes
    assert any(note.startswith("torch 1.0 then, ") for note in notes)
    assert any(note.startswith("cpu abacus then, ") for note in notes)
    assert any(note.startswith("git_commit abc then, ") for note in notes)
    assert "the checkout had changes that were not committed then" in notes

    # A curve that was a little different, and one that was very different.
    folder = Path(client.download_artifacts(run_id, "", str(workdir)))
    history = pd.read_csv(folder / "history.csv")
    for factor, expected in ((1 + 1e-5, WITHIN), (1.1, DIFFERENT)):
        history.assign(train_loss=history["train_loss"] * factor).to_csv(workdir / "history.csv", index=False)
        client.log_artifact(run_id, str(workdir / "history.csv"))
        found = reproduce(stores, run_id)
        assert found.verdict == expected
        assert found.same_weights
        row = found.differences.set_index("metric").loc["train_loss"]
        assert (row["first_epoch"], row["relative"]) == (1, pytest.approx(factor - 1, rel=0.9))
        assert json.loads(json.dumps(found.record()))["verdict"] == expected
    assert reproduce(stores, run_id, tolerance=0.5).verdict == WITHIN


def test_a_pruned_trial_is_trained_as_far_as_it_was(stores: Stores, tuned: Tuned) -> None:
    study = tuned(stores, study={"n_trials": 6, "pruner": "halving"}, training={"epochs": 9}, **{"": {"cohort": 1}})
    pruned = [trial for trial in study.get_trials() if trial.state == optuna.trial.TrialState.PRUNED]
    found = reproduce(stores, pruned[0].user_attrs["mlflow_run_id"])
    assert (found.verdict, found.epochs) == (EQUAL, pruned[0].user_attrs["result"]["epochs"])
    assert found.epochs < 9


def test_curves_are_compared_epoch_by_epoch() -> None:
    then = pd.DataFrame({"epoch": [1, 2, 3], "loss": [2.0, 1.0, 0.0], "epoch_seconds": [1.0, 1.0, 1.0]})
    same = differences(then, then)
    assert same.to_dict("records") == [
        {"metric": "loss", "epochs": 3, "first_epoch": None, "absolute": 0.0, "relative": 0.0}
    ]
    now = then.assign(loss=[2.0, 1.5, 0.0])
    (row,) = differences(then, now).to_dict("records")
    assert (row["first_epoch"], row["absolute"], row["relative"]) == (2, 0.5, 0.5)
    assert verdict(same, True, True, 0.1) == EQUAL
    assert verdict(same, False, True, 0.1) == WITHIN
    assert verdict(same, True, False, 0.1) == DIFFERENT
    assert verdict(differences(then, now), True, True, 0.1) == DIFFERENT
    assert verdict(differences(then, now), True, True, 0.6) == WITHIN


def test_what_cannot_be_repeated_is_said(stores: Stores, tuned: Tuned, files: dict[str, str], workdir: Path) -> None:
    with pytest.raises(BadInput, match="there are no runs yet"):
        reproduce(stores, "0" * 32)
    images = ase.io.read(files["train"], ":")
    ase.io.write("mine.traj", images)
    study = tuned(stores, data={"train": "mine.traj"})
    client = tracking_client(stores)
    best = study.best_trial.user_attrs["mlflow_run_id"]
    with pytest.raises(BadInput, match=f"no run {'0' * 32}"):
        reproduce(stores, "0" * 32)
    parent = client.get_run(best).data.tags["mlflow.parentRunId"]
    with pytest.raises(BadInput, match="the run small is study; one of a trial or of `confirm` is needed"):
        reproduce(stores, parent)
    with pytest.raises(BadInput, match="--tolerance must be between 0 and 1, got 2"):
        reproduce(stores, best, tolerance=2)
    Path("mine.traj").rename("moved.traj")
    with pytest.raises(BadInput, match=r"mine\.traj: no such file .*--train FILE says where it is now"):
        reproduce(stores, best)
    assert reproduce(stores, best, train="moved.traj").verdict == EQUAL
    with pytest.raises(BadInput, match=r"other\.traj: has other structures"):
        export(stores, best, workdir / "a.tar.gz", files["other"])
    for file, message in (("a.zip", "must end with .tar.gz"), ("no/a.tar.gz", "there is no folder no")):
        with pytest.raises(BadInput, match=message):
            export(stores, best, Path(file), "moved.traj")
    remove_artifacts(stores, "small", 1, dry_run=False)
    worst = max(study.get_trials(), key=lambda trial: trial.value).user_attrs["mlflow_run_id"]
    with pytest.raises(BadInput, match="removed by `bdqm-tune gc`"):
        reproduce(stores, worst, train="moved.traj")


def test_the_command_says_it_by_its_status(stores: Stores, tuned: Tuned, workdir: Path) -> None:
    run_id = tuned(stores).best_trial.user_attrs["mlflow_run_id"]

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return forked.run(["-m", "bdqm_tune", "reproduce", run_id, *arguments])

    done = call()
    assert done.returncode == 0, done.stderr
    assert "equal, 5 epochs compared" in done.stdout
    assert "weights: the same to the last bit" in done.stdout
    client = MlflowClient()
    folder = Path(client.download_artifacts(run_id, "", str(workdir)))
    history = pd.read_csv(folder / "history.csv")
    history.assign(val_energy_mae=1.0).to_csv(workdir / "history.csv", index=False)
    client.log_artifact(run_id, str(workdir / "history.csv"))
    done = call("--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["verdict"] == "different"
    assert call("--tolerance", "x").returncode == 2


def test_the_archive_is_all_that_is_needed(
    stores: Stores, tuned: Tuned, files: dict[str, str], workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tuned(stores)
    run_id = study.best_trial.user_attrs["mlflow_run_id"]
    client = MlflowClient()
    evaluation = client.create_run(study.user_attrs["mlflow_experiment_id"], tags={"kind": "evaluation"})
    client.set_tag(evaluation.info.run_id, "model_run_id", run_id)
    client.log_text(evaluation.info.run_id, "a figure", "parity.png")
    names = export(stores, run_id, Path("paper.tar.gz"))
    before = Path("paper.tar.gz").read_bytes()
    export(stores, run_id, Path("paper.tar.gz"))
    assert Path("paper.tar.gz").read_bytes() == before
    with tarfile.open("paper.tar.gz") as tar:
        assert tar.getnames() == [f"paper/{name}" for name in names]
        tar.extractall("elsewhere", filter="data")
    there = Path("elsewhere/paper")
    assert (there / "evaluation-1" / "parity.png").read_text() == "a figure"

    # The model is the run's.
    test = ase.io.read(files["test"], 0)
    test.calc = bt.load_calculator(there / "model")
    assert test.get_potential_energy() == load_potential(run_id, stores).predict([test], False).energies[0]

    # The splits and digests are those of the file.
    data = json.loads((there / "data.json").read_text())
    config = load_config(there / "config.yaml")
    assert (data["source"], config.data.train, config.data.test) == ("train.traj", "train.traj", None)
    kept = client.get_run(run_id).data
    assert data["training"]["digest"] == kept.tags["train_digest"]
    images = ase.io.read(files["train"], ":")
    dataset = prepare(config.updated({"data": {"train": files["train"]}}), stores.home)
    for name, split in (("training", dataset.train), ("validation", dataset.validation)):
        assert len(data[name]["images"]) == data[name]["structures"] == len(split.structures)
        for image, energy in zip(data[name]["images"], split.structures.energies, strict=True):
            assert images[image].get_potential_energy() == energy
    assert json.loads((there / "result.json").read_text())["metrics"] == kept.metrics
    assert json.loads((there / "environment.json").read_text())["version.torch"] == kept.tags["version.torch"]

    # And what its README says gives the same numbers.
    (command,) = [line.split() for line in (there / "README.md").read_text().splitlines() if " tune " in line]
    monkeypatch.chdir(there)
    arguments = [files["train"] if part == "TRAIN" else part for part in command[1:]]
    done = forked.run(["-m", "bdqm_tune", *arguments])
    assert done.returncode == 0, done.stderr
    best = study.best_trial
    assert f"({best.value:.4f} eV) at epoch {best.user_attrs['result']['best_epoch']}" in done.stderr


def test_an_archives_bytes_depend_on_its_content_alone() -> None:
    contents = {"b/c.txt": b"1", "a.txt": np.arange(100).tobytes()}
    packed = archive(contents, "top")
    assert packed == archive(dict(reversed(contents.items())), "top")
    assert packed != archive(contents | {"a.txt": b""}, "top")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert tar.getnames() == ["top/a.txt", "top/b/c.txt"]
        assert {(entry.mtime, entry.uid, entry.uname, entry.mode) for entry in tar.getmembers()} == {(0, 0, "", 0o644)}
    assert packed[4:8] == bytes(4), "gzip's time"
