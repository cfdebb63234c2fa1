"""A study of the version before the rooms (`16cbecd`), in files: two trials complete, one cut off after 4 of 6 epochs.

Made by `bdqm-tune tune --train train.xyz --test test.xyz --study old --n-trials 3 --epochs 6 --set
num_layers=1,num_nodes=4 --sampler random --pruner none` in `/tmp/study`, and an interruption.
"""

import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from bdqm_tune.services.connection import find_stores
from bdqm_tune.study.results import load_results
from bdqm_tune.study.study import load_study
from tests.commands import Call

ARCHIVE = Path(__file__).with_name("earlier_study.tar.xz")
MADE_IN = "/tmp/study"
OPTIONS = ("--train", "train.xyz", "--test", "test.xyz", "--study", "old", "--epochs", "6", "--sampler", "random")
OPTIONS += ("--pruner", "none", "--set", "num_layers=1,num_nodes=4")


@pytest.fixture
def earlier(workdir: Path) -> None:
    """The study in the working folder, to which MLflow's addresses of artifacts lead."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(workdir, filter="data")
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, '{MADE_IN}', '{workdir}')")


@pytest.mark.usefixtures("earlier")
def test_a_study_of_an_earlier_version_is_read_goes_on_and_is_evaluated(call: Call) -> None:
    status, out, err = call("status", "old", "--json")
    assert status == 0, err
    found = json.loads(out)
    assert [found[state] for state in ("waiting", "running", "complete", "failed")] == [1, 0, 2, 0]
    before = load_results(find_stores(), "old")
    assert before.trials["epochs"].fillna(0).tolist() == [6, 6, 0]
    best = before.trials.loc[before.trials["val_energy_mae"].idxmin()]

    status, _, err = call("tune", *OPTIONS, "--n-trials", "1")
    assert status == 0, err
    assert "study 'old' goes on with the defaults of the version that made it" in err
    after = load_results(find_stores(), "old")
    assert after.trials["state"].tolist() == ["complete"] * 4
    assert after.trials["val_energy_mae"].tolist()[:2] == before.trials["val_energy_mae"].tolist()[:2]
    history = MlflowClient().get_metric_history(after.trials["run_id"][2], "val_energy_mae")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5, 6]
    added = MlflowClient().get_run(after.trials["run_id"][3]).data.params
    then = {"descriptor_smooth_cutoff": "False", "descriptor_scaling": "log", "energy_loss": "total", "forces": "False"}
    then |= {"descriptor_orders": "[0, 1, 2, 3]", "descriptor_sigmas": "8", "scheduler": "step", "smoothing": "1"}
    assert {name: added[name] for name in then} == then
    drawn = load_study(find_stores(), "old").trials[3].distributions
    assert {"batchnorm", "dropout"} <= drawn.keys(), "the search space of then"
    assert drawn["activation"].choices == ("tanh", "relu", "gelu", "silu")
    assert added["objective"] == "val_energy_mae"
    status, out, err = call("tune", *OPTIONS, "--n-trials", "1", "--set", "descriptor.smooth_cutoff=true")
    assert (status, out) == (2, ""), err
    assert "study 'old' was made with other descriptor" in err
    assert call("reproduce", best["run_id"])[0] == 0

    status, out, err = call("evaluate", "--study", "old", "--trial", str(best["number"]), "--json")
    assert status == 0, err
    assert json.loads(out)["trial"] == best["number"]
    assert call("doctor")[0] == 0
