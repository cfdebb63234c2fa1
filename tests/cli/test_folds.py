"""Cross-validation from a file, through every command, as a user types it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pandas as pd
import pytest

from bdqm_tune.config.config import Config
from bdqm_tune.models.store import load_potential
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.run_contents import OUT_OF_FOLD
from bdqm_tune.study.study import load_study
from bdqm_tune.tracking.client import tracking_client
from bdqm_tune.tracking.result_runs import run_file
from tests.commands import Call

FOLDS = "data.validation.folds=4"


def test_a_study_with_folds_goes_through_every_command(
    call: Call, stores: Stores, files: dict[str, str], tmp_path: Path
) -> None:
    data = ["--train", files["train"], "--test", files["test"]]
    config = "descriptor: {orders: [0, 1], sigmas: 3, cutoff: 4.0}\nsearch: {num_layers: 1, num_nodes: {int: [4, 8]}}\n"
    Path("c.yaml").write_text(config + "training: {forces: false}\n")
    options = ["--config", "c.yaml", "--set", FOLDS, "--epochs", "5", "--cohort", "1"]

    def done(*arguments: str) -> str:
        code, out, err = call(*arguments)
        assert code == 0, err
        return out

    study = ["--study", "folded"]
    done("tune", *data, *options, *study, "--n-trials", "4", "--pruner", "none")
    assert json.loads(done("status", "folded", "--json"))["complete"] == 4

    trials = load_study(stores, "folded").get_trials()
    best = min(trials, key=lambda trial: trial.value)
    client = tracking_client(stores)
    run = client.get_run(best.user_attrs["mlflow_run_id"])
    validation = {one.tags[0].value: json.loads(one.dataset.profile) for one in run.inputs.dataset_inputs}["validation"]
    assert (validation["structures"], validation["folds"]) == (40, 4)
    frame = pd.read_csv(run_file(client, run.info.run_id, OUT_OF_FOLD, str(tmp_path)))
    true = np.array([atoms.get_potential_energy() for atoms in ase.io.read(files["train"], ":")])
    assert frame["image"].tolist() == list(range(40))
    assert frame["fold"].value_counts().to_dict() == {1: 10, 2: 10, 3: 10, 4: 10}
    assert frame["energy"].to_numpy() == pytest.approx(true)
    assert (frame["predicted"] - frame["energy"]).abs().mean() == pytest.approx(best.value, rel=1e-5)
    errors = best.user_attrs["result"]["validation_errors"]
    assert len(errors) == 40
    assert np.mean(errors) == pytest.approx(best.value, rel=1e-5)

    line = (
        r"eV are to be expected on new structures of the kind: the least of 4 validation errors, [\d.]+, is too low by"
    )
    assert re.search(line, done("compare", "folded"))
    record = json.loads(done("confirm", *study, "--best", "2", "--seeds", "2", "--json"))
    (note,) = record["notes"]
    assert re.search(line, note)
    done("evaluate", *study)
    done("report", "folded")
    report = Path("reports/folded/report.md").read_text()
    assert "by 4-fold cross-validation" in report
    assert "expected on new structures" in report
    assert "Cross-validation with 4 folds: each structure is validated once" in report
    assert "on the validation split" not in report

    done("ensemble", *study, "--best", "3")
    found = done("evaluate", *study, "--ensemble", "latest", "--reopen", "to see its intervals")
    assert "expected_coverage_low" in found
    assert "equal" in done("reproduce", run.info.run_id)
    code, _, err = call("tune", *data, *options[:2], "--epochs", "5", *study, "--n-trials", "1")
    assert code == 2
    assert "was made with other data" in err


def test_an_ensemble_is_calibrated_by_what_the_folds_leave_out(
    call: Call, stores: Stores, files: dict[str, str], configure: Callable[..., Config]
) -> None:
    from bdqm_tune.learning.dataset import prepare
    from bdqm_tune.models.ensembling import assemble
    from bdqm_tune.tuning.tune import tune

    config = configure(
        data={"train": files["train"], "validation": {"folds": 4}}, study={"name": "folded", "pruner": "none"}
    )
    study = tune(prepare(config, stores.home), config, stores)
    made = assemble(stores, "folded", best=3, coverage=0.8)
    client = tracking_client(stores)
    predicted = []
    for trial in study.get_trials():
        path = Path(str(trial.number))
        path.mkdir()
        frame = pd.read_csv(run_file(client, trial.user_attrs["mlflow_run_id"], OUT_OF_FOLD, str(path)))
        predicted.append(frame["predicted"].to_numpy())
    errors = np.mean(predicted, axis=0) - frame["energy"].to_numpy()
    assert made.metrics["val_energy_mae"] == pytest.approx(np.abs(errors).mean())
    assert made.metrics["calibration_structures"] == 40
    potentials = [load_potential(trial.user_attrs["mlflow_run_id"], stores) for trial in study.get_trials()]
    structures = ase.io.read(files["train"], ":")
    learned = np.mean([one.predict(structures, False).energies for one in potentials], axis=0)
    assert np.abs(learned - np.array([a.get_potential_energy() for a in structures])).mean() != pytest.approx(
        made.metrics["val_energy_mae"]
    ), "not that of the networks which have learned them"
