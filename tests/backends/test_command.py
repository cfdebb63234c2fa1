"""Any program as a backend: a script that knows nothing of bdqm-tune, tuned by the command line."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import psutil
import pytest
import yaml
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial, TrialState

from bdqm_tune.backends.command import CommandRun
from bdqm_tune.config.config import load_config
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.learning.potential import read_potential
from bdqm_tune.services.connection import find_stores
from bdqm_tune.study.study import load_study
from bdqm_tune.tuning.tune import tune
from tests.commands import Call
from tests.forked import Forked
from tests.waiting import eventually

_FOUND = shutil.which("mace_run_train", path=os.pathsep.join([os.environ["PATH"], os.environ.get("BDQM_MACE", "")]))
MACE = "" if _FOUND is None else str(Path(_FOUND).parent)
HERE = Path(__file__).parent
TRAIN = (
    "python training_program.py --train {train} --valid {validation} --out {out} --epochs {epochs} --seed {seed} "
    "--device {device} --lr {lr} --mode {mode}"
)
METRICS = {
    "file": "{out}/results.jsonl",
    "columns": {"val_energy_mae_per_atom": "mae"},
    "scale": {"val_energy_mae_per_atom": 1e-3},
    "where": {"mode": "eval"},
}
PATTERN = {
    "pattern": r"Epoch (?P<epoch>\d+): MAE_E_per_atom= *(?P<mae>\S+) meV",
    "columns": {"val_energy_mae_per_atom": "mae"},
    "scale": {"val_energy_mae_per_atom": 1e-3},
}


@pytest.fixture(autouse=True)
def _programs(workdir: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("training_program.py", "linear_model.py"):
        shutil.copy(HERE / name, workdir)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    yield
    sys.modules.pop("linear_model", None)


def content(files: dict[str, str], **groups: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose trials take a second."""
    defaults: dict[str, dict[str, Any]] = {
        "data": {"train": files["train"], "test": files["test"]},
        "training": {"epochs": 6},
        "search": {"lr": {"float": [0.01, 0.5], "log": True}, "mode": "good"},
        "study": {"name": "s", "n_trials": 2, "pruner": "none", "sampler": "random"},
        "backend_options": {"train": TRAIN, "metrics": METRICS, "grace": 5},
    }
    merged = {name: {**defaults.get(name, {}), **groups.get(name, {})} for name in defaults | groups}
    return {"backend": "command", **merged}


def write(files: dict[str, str], **groups: dict[str, Any]) -> list[str]:
    """The arguments of `tune` with this configuration."""
    Path("config.yaml").write_text(yaml.safe_dump(content(files, **groups)))
    return ["tune", "--config", "config.yaml"]


def trials() -> list[FrozenTrial]:
    return load_study(find_stores(), "s").get_trials()


def model_of(trial: FrozenTrial) -> Path:
    place = Path(f"model-{trial.number}")
    place.mkdir(exist_ok=True)
    return Path(MlflowClient().download_artifacts(trial.user_attrs["mlflow_run_id"], "model", str(place)))


def programs() -> list[psutil.Process]:
    """What was started in this folder and still runs, but for this process and the workers."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            is_ours = Path(process.cwd()) == Path.cwd() and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            continue
        if is_ours and ("training_program.py" in words or "import time; time.sleep(600)" in words):
            found.append(process)
    return found


def test_a_study_is_tuned_evaluated_and_confirmed(
    call: Call, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"train": TRAIN, "metrics": METRICS, "calculator": "linear_model:Linear"}
    code, _, err = call(*write(files, backend_options=options))
    assert code == 0, err
    first, second = trials()
    assert [first.state, second.state] == [TrialState.COMPLETE] * 2
    assert first.params.keys() == {"lr"}
    assert 0 < first.user_attrs["result"]["value"] < 10  # eV/atom, not meV/atom
    run = MlflowClient().get_run(first.user_attrs["mlflow_run_id"])
    assert run.data.params["mode"] == "good"
    assert not [name for name in run.data.params if name.startswith("descriptor")]
    history = MlflowClient().get_metric_history(run.info.run_id, "val_energy_mae_per_atom")
    assert [metric.step for metric in history] == list(range(1, 7))
    folder = model_of(first)
    assert {"model.json", "results.jsonl", "output.txt"} <= {file.name for file in (folder / "files").iterdir()}
    assert not list(find_stores().home.glob("checkpoints/*/*"))

    code, _, err = call("evaluate", "--study", "s")
    assert code == 2
    assert "linear_model:Linear" in err
    assert "BDQM_ALLOW_COMMANDS=1" in err
    assert "linear_model" not in sys.modules
    code, _, err = call("confirm", "--study", "s", "--seeds", "2")
    assert code == 2
    assert "BDQM_ALLOW_COMMANDS=1" in err

    monkeypatch.setenv("BDQM_ALLOW_COMMANDS", "1")
    code, out, err = call("evaluate", "--study", "s", "--json")
    assert code == 0, err
    weights = json.loads((model_of(load_study(find_stores(), "s").best_trial) / "files/model.json").read_text())
    images = ase.io.read(files["test"], ":")
    predicted = [sum(weights["weights"][int(z == 79)] for z in atoms.numbers) for atoms in images]
    errors = np.abs([e - atoms.get_potential_energy() for e, atoms in zip(predicted, images, strict=True)])
    assert json.loads(out)["test_energy_mae"] == pytest.approx(errors.mean(), rel=1e-6)


def test_a_command_predicts(files: dict[str, str], monkeypatch: pytest.MonkeyPatch, workdir: Path) -> None:
    predict = "python linear_model.py {structures} {predicted} {out}"
    keys = {"energy": "my_energy", "forces": "my_forces"}
    options = {"train": TRAIN, "metrics": METRICS, "predict": predict, "predicted_keys": keys, "keep": ["*.json"]}
    training = trained(content(files, backend_options=options))
    images = ase.io.read(files["test"], ":")
    own = training.potential().predict(images)  # of the user's own configuration: needs no consent
    training.potential().save(workdir / "m")
    assert {file.name for file in (workdir / "m/files").iterdir()} == {"model.json"}
    with pytest.raises(BadInput, match="BDQM_ALLOW_COMMANDS=1"):
        read_potential(workdir / "m")
    monkeypatch.setenv("BDQM_ALLOW_COMMANDS", "1")
    model = read_potential(workdir / "m")
    assert model.predict(images).energies == pytest.approx(own.energies)
    assert model.results(images[0])["forces"].shape == (4, 3)
    assert model.known_elements == (29, 79)
    (workdir / "linear_model.py").write_text("import sys; sys.exit('no model today')")
    images[0].rattle(0.01)  # or what was predicted before is given again
    with pytest.raises(Exception, match=r"ended with status 1: no model today"):
        model.predict(images)


def test_a_model_without_a_way_to_predict_says_so(files: dict[str, str], workdir: Path) -> None:
    training = trained(content(files))
    training.potential().save(workdir / "m")
    with pytest.raises(BadInput, match="neither calculator nor predict"):
        read_potential(workdir / "m")


def trained(given: dict[str, Any]) -> CommandRun:
    from bdqm_tune.backends import make_backend

    config = load_config(None, {"": given})
    dataset = prepare(config, find_stores().home)
    config = config.decided(bool(dataset.config.training.forces), bool(dataset.config.training.stress))
    run = make_backend(config, dataset).start(config.declared.hyperparameters(lr=0.1, mode="good"), 0)
    assert isinstance(run, CommandRun)
    assert [record.epoch for record in run] == list(range(1, config.training.epochs + 1))
    return run


@pytest.mark.parametrize("metrics", [METRICS, PATTERN], ids=["file", "output"])
def test_the_ends_of_a_program(call: Call, files: dict[str, str], metrics: dict[str, Any]) -> None:
    search = {"lr": 0.1, "mode": {"choice": ["early", "fail", "good"]}}
    study = {"n_trials": 3, "sampler": "grid"}
    code, _, err = call(*write(files, search=search, study=study, backend_options={"train": TRAIN, "metrics": metrics}))
    assert code == 0, err
    results = {trial.params["mode"]: (trial.state.name, trial.user_attrs["result"]) for trial in trials()}
    assert {mode: (state, result["epochs"]) for mode, (state, result) in results.items()} == {
        "early": ("COMPLETE", 2),
        "fail": ("FAIL", 2),
        "good": ("COMPLETE", 6),
    }
    reason = results["fail"][1]["reason"]
    assert "python ended with status 3 after epoch 2 of 6" in reason
    assert "out of memory at layer 7" in reason


def test_a_value_is_one_argument_whatever_it_holds(call: Call, files: dict[str, str], workdir: Path) -> None:
    evil = [
        "$(touch hacked) `touch hacked`; touch hacked",
        "' --mode fail '",
        "a b\n--mode=fail",
        "{seed} {lr}",
        "ä \\",
    ]
    train = f"{TRAIN} --text={{text}}"
    search = {"lr": 0.1, "mode": "good", "text": {"choice": evil}}
    study = {"n_trials": len(evil), "sampler": "grid"}
    code, _, err = call(
        *write(files, search=search, study=study, training={"epochs": 1}, backend_options={"train": train})
    )
    assert code == 0, err
    assert not Path("hacked").exists()
    assert {trial.state for trial in trials()} == {TrialState.COMPLETE}
    assert {trial.params["text"] for trial in trials()} == set(evil)
    for trial in trials():
        assert (model_of(trial) / "files/text").read_text() == trial.params["text"]


def test_a_value_from_others_is_no_option_of_the_program(files: dict[str, str]) -> None:
    config = load_config(None, {"": content(files)})
    dataset = prepare(config, find_stores().home)
    from bdqm_tune.backends import make_backend

    backend = make_backend(config, dataset)
    for value in ("--restart", "-x", "a\0b"):
        with pytest.raises(BadInput, match="option|zero byte"):
            backend.start(config.declared.hyperparameters(lr=0.1, mode=value), 0)
    backend.start(config.declared.hyperparameters(lr="-0.1", mode="good"), 0)  # a number


def test_the_pruner_ends_a_program(call: Call, files: dict[str, str]) -> None:
    """The last trial is worse from its first epoch, and would never end by itself."""
    search = {"lr": {"float": [1e-9, 0.5]}, "mode": {"choice": ["good", "loop"]}}
    tried = [{"lr": 0.5, "mode": "good"}] * 2 + [{"lr": 1e-9, "mode": "loop"}]
    study = {"n_trials": 3, "pruner": "halving", "enqueue": tried}
    code, _, err = call(*write(files, search=search, study=study))
    assert code == 0, err
    assert [trial.state.name for trial in trials()] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert not programs()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL], ids=str)
def test_a_program_ends_with_its_worker(files: dict[str, str], how: signal.Signals) -> None:
    arguments = write(files, search={"lr": 0.1, "mode": "loop"})
    worker = Forked(["-m", "bdqm_tune", *arguments])
    eventually(lambda: len(programs()) >= 2 or worker.poll() is not None)
    assert worker.poll() is None, worker.communicate()
    worker.send_signal(how)
    _, err = worker.communicate(timeout=120)
    assert worker.returncode == {signal.SIGUSR1: 0, signal.SIGKILL: -9}.get(how, 130), err
    eventually(lambda: not programs(), 60)
    if how != signal.SIGKILL:
        assert [trial.state.name for trial in trials()] == ["WAITING"] * 2


@pytest.mark.parametrize("resumes", [True, False])
def test_a_training_goes_on_where_it_was_stopped(files: dict[str, str], resumes: bool) -> None:
    resume = {"resume": f"{TRAIN} --restart"} if resumes else {}
    options = {"train": TRAIN, "metrics": METRICS, **resume}
    search = {"lr": 0.1, "mode": {"choice": ["slow", "good"]}}
    study = {"n_trials": 1, "enqueue": [{"mode": "slow"}]}
    arguments = write(files, search=search, study=study, training={"epochs": 12}, backend_options=options)
    worker = Forked(["-m", "bdqm_tune", *arguments])
    home = find_stores().home

    def epochs() -> int:
        return sum(len(file.read_text().splitlines()) for file in home.glob("checkpoints/*/*/*/results.jsonl"))

    eventually(lambda: epochs() >= 4 or worker.poll() is not None)
    worker.send_signal(signal.SIGINT)
    _, err = worker.communicate(timeout=120)
    assert worker.returncode == 130, err
    assert len(list(home.glob("checkpoints/*/trial-000.checkpoint"))) == (1 if resumes else 0)
    config = load_config("config.yaml", {"study": {"n_trials": 1, "enqueue": []}})
    results = []
    tune(prepare(config, home), config, find_stores(), lambda result, _: results.append(result))
    assert len(trials()) == 2
    assert {trial.state for trial in trials()} == {TrialState.COMPLETE}
    output = (model_of(trials()[0]) / "files/output.txt").read_text()
    assert output.count("40 structures" if "40 structures" in output else "36 structures") == (2 if resumes else 1)
    history = MlflowClient().get_metric_history(trials()[0].user_attrs["mlflow_run_id"], "val_energy_mae_per_atom")
    assert [metric.step for metric in history] == list(range(1, 13))
    assert not list(home.glob("checkpoints/*/*"))


def test_a_program_without_a_new_epoch_fails_after_a_time(call: Call, files: dict[str, str]) -> None:
    options = {"train": TRAIN, "metrics": METRICS, "silence": 4}
    search, study = {"lr": 0.1, "mode": "loop"}, {"n_trials": 1}
    code, _, err = call(*write(files, search=search, study=study, backend_options=options))
    assert code == 0, err
    reason = trials()[0].user_attrs["result"]["reason"]
    assert reason.startswith("BdqmError: the program wrote no epoch after 2 for 4 s")
    assert not programs()


def test_two_workers_share_a_study(files: dict[str, str]) -> None:
    arguments = write(files, study={"n_trials": 3})
    workers = [Forked(["-m", "bdqm_tune", *arguments]) for _ in range(2)]
    for worker in workers:
        _, err = worker.communicate(timeout=240)
        assert worker.returncode == 0, err
    assert [trial.state for trial in trials()] == [TrialState.COMPLETE] * 6
    assert len(list(find_stores().home.glob("splits/*/train.extxyz"))) == 1
    assert not programs()


def test_mace_is_tuned_by_its_command_line(files: dict[str, str], monkeypatch: pytest.MonkeyPatch, mace: str) -> None:
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{mace}")
    train = (
        "mace_run_train --name bdqm --train_file {train} --valid_file {validation} --work_dir {out} --E0s average "
        "--energy_key REF_energy --forces_key REF_forces --stress_key REF_stress --r_max 3.0 --num_interactions 1 "
        "--correlation 2 --max_L 0 --num_channels {channels} --batch_size 4 --lr 0.01 --max_num_epochs {epochs} "
        "--eval_interval 1 --error_table PerAtomMAE --default_dtype float64 --seed {seed} --device {device}"
    )
    options = {
        "train": train,
        "metrics": {
            "file": "{out}/results/bdqm_run-{seed}_train.txt",
            "columns": {"val_energy_mae_per_atom": "mae_e_per_atom", "val_forces_mae": "mae_f"},
            "where": {"mode": "eval"},
            "first_epoch": 0,
        },
        **{f"{name}_key": f"REF_{name}" for name in ("energy", "forces", "stress")},
    }
    given = content(files, backend_options=options, training={"epochs": 2, "forces": True})
    given["search"] = {"channels": 4}
    given["study"]["n_trials"] = 1
    Path("config.yaml").write_text(yaml.safe_dump({**given, "device": "cpu"}))
    worker = Forked(["-m", "bdqm_tune", "tune", "--config", "config.yaml"])
    _, err = worker.communicate(timeout=300)
    assert worker.returncode == 0, err
    (trial,) = trials()
    result = trial.user_attrs["result"]
    assert result["epochs"] == 2
    assert result["val_forces_mae"] > 0
    assert (model_of(trial) / "files/bdqm.model").exists()


@pytest.fixture
def mace() -> str:
    """The folder of MACE's commands; skips where there are none."""
    if not MACE:
        pytest.skip("no mace_run_train on the PATH or in $BDQM_MACE")
    return MACE
