"""Studies of MACE: killed, pruned, confirmed, evaluated, used, and beside a study of the native backend."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from bdqm_tune.api import load_calculator
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import Stores, find_stores
from bdqm_tune.study.study import LOSSES, RUN_ID, load_study
from bdqm_tune.tuning.tune import tune
from tests.backends.mace_data import SMALL, alloys, mace_config
from tests.commands import Call
from tests.forked import Forked


@pytest.fixture(autouse=True)
def _mace(require: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    require("mace")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def curve(run_id: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in MlflowClient().get_metric_history(run_id, "val_energy_forces")]


OFTEN = """
from bdqm_tune.cli.main import main
from bdqm_tune.study import checkpoints
checkpoints.EVERY = 0.05
main()
"""


def test_another_worker_resumes_the_trial_of_one_that_was_killed(stores: Stores) -> None:
    training: dict[str, Any] = {"epochs": 20, "early_stopping": None}
    config = mace_config(Path(), training=training, study={"name": "s", "n_trials": 1, "pruner": "none"})
    Path("config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    Path("often.py").write_text(OFTEN)
    worker = Forked(["often.py", "tune", "--config", "config.yaml"])
    deadline = time.monotonic() + 120
    while (
        not list(stores.home.glob("checkpoints/*/trial-000.checkpoint"))
        and worker.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    _, err = worker.communicate(timeout=180)
    assert worker.returncode == -signal.SIGKILL, err
    (checkpoint,) = stores.home.glob("checkpoints/*/trial-000.checkpoint")
    assert checkpoint.stat().st_size > 10_000
    other = Forked(["-m", "bdqm_tune", "tune", "--config", "config.yaml"])  # one trial more, after that
    _, err = other.communicate(timeout=180)
    assert other.returncode == 0, err
    first, second = load_study(stores, "s").get_trials()
    assert [first.state, second.state] == [TrialState.COMPLETE] * 2
    assert first.user_attrs[LOSSES] == 1
    assert first.value == second.value, "both have the same hyperparameters and seed"
    curves = [curve(trial.user_attrs[RUN_ID]) for trial in (first, second)]
    assert [step for step, _ in curves[0]] == list(range(1, 21))
    assert curves[0] == curves[1]


def test_a_trial_is_pruned_at_a_rung(stores: Stores) -> None:
    study = {
        "name": "s",
        "n_trials": 4,
        "pruner": "halving",
        "enqueue": [{"lr": lr} for lr in (0.03, 0.02, 1e-6, 1e-7)],
    }
    search = {"lr": {"float": [1e-8, 0.1], "log": True}}
    base = mace_config(Path()).search
    config = mace_config(Path(), study=study, search=base | search, training={"epochs": 9})
    made = tune(prepare(config, stores.home), config, stores)
    states = [trial.state for trial in made.get_trials()]
    assert states[0] == TrialState.COMPLETE
    assert TrialState.PRUNED in states
    pruned = made.get_trials()[states.index(TrialState.PRUNED)]
    run = MlflowClient().get_run(pruned.user_attrs[RUN_ID])
    assert run.data.tags["reason"].startswith("halving pruner at epoch ")
    assert len(curve(pruned.user_attrs[RUN_ID])) < 9
    assert run.data.params["backend"] == "mace"


def test_from_a_study_to_a_model_in_use_and_beside_a_native_one(call: Call, workdir: Path) -> None:
    ase.io.write("train.traj", alloys(12, 0))
    ase.io.write("test.traj", alloys(5, 1))
    search = SMALL | {"lr": {"float": [0.01, 0.02]}}
    data = {"train": "train.traj", "test": "test.traj", "validation": {"fraction": 0.25}}
    common: dict[str, Any] = {"data": data, "device": "cpu", "training": {"epochs": 2}}
    own = {"descriptor": {"orders": [0, 1], "sigmas": 2}, "search": {"num_nodes": 8, "num_layers": 1}}
    given = {"equivariant": {**common, "backend": "mace", "search": search}, "native": {**common, **own}}
    for name, content in given.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump({**content, "study": {"name": name, "n_trials": 2}}))
        status, _, err = call("tune", "--config", f"{name}.yaml")
        assert status == 0, err

    shown = {}
    for line in (
        "confirm --study equivariant --best 1 --seeds 2 --random none",
        "evaluate --study equivariant",
        "register --study equivariant",
        "predict models:/equivariant@champion test.traj",
        "report equivariant",
        "compare equivariant native",
    ):
        status, out, err = call(*line.split())
        assert status == 0, (line, err)
        shown[line.split()[0]] = out
    assert "champion  trial-00" in shown["confirm"]
    for name in ("test_energy_mae_per_atom", "test_forces_mae", "test_stress_mae", "with_forces"):
        assert name in shown["evaluate"]
    (requirements,) = Path("mlruns").rglob("requirements.txt")
    assert [line.partition("==")[0] for line in requirements.read_text().split()] == [
        "bdqm-tune",
        "mlflow",
        "mace-torch",
    ]
    assert "5 structures with energy, forces, stress" in shown["predict"]
    assert "backend mace" in shown["compare"]
    assert "search." not in shown["compare"], "what another backend does not have tells nothing"
    models = pd.read_csv("figures/compare-equivariant-native/models.csv", index_col="study")
    assert models["backend"].to_dict() == {"equivariant": "mace", "native": "native"}
    measured = models[[*("val_energy_mae_per_atom", "val_forces_mae", "training_seconds", "n_parameters")]]
    assert (measured > 0).all(axis=None)
    assert (models[["energy_seconds_per_atom", "forces_seconds_per_atom"]] > 0).all(axis=None)
    predicted = ase.io.read("predicted.xyz", ":")
    calculator = load_calculator("models:/equivariant@champion")
    for atoms in predicted:
        energy = atoms.get_potential_energy()
        assert calculator.get_potential_energy(atoms) == pytest.approx(energy, abs=1e-5)
    run_id = load_study(find_stores(), "equivariant").best_trial.user_attrs[RUN_ID]
    status, out, err = call("reproduce", run_id, "--tolerance", "1e-9")
    assert status == 0, (out, err)
