"""The command line: bad input in one line with exit status 2 and nothing made; good input end to end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import typer
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from mlflow.tracking import MlflowClient

from bdqm_tune.cli.main import app
from bdqm_tune.cli.shared import PLACES
from bdqm_tune.config.config import Config
from bdqm_tune.errors import BdqmError
from bdqm_tune.services.connection import Stores, find_stores
from bdqm_tune.study.study import load_study
from tests.commands import Call
from tests.forked import Forked
from tests.waiting import eventually

PROJECT = Path(__file__).parents[2]
QUICK = {"--n-trials": "2", "--epochs": "3", "--set": "num_layers=1,num_nodes=4"}


def labelled(energy: float | None = 1.0, **changes: Any) -> Atoms:
    atoms = Atoms("CuH", positions=[[0, 0, 0], [0, 0, 1.5]])
    for name, value in changes.items():
        setattr(atoms, name, value)
    if energy is not None:
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return atoms


def pairs_of_atoms(n: int) -> list[Atoms]:
    apart = np.array([[0, 0, 0], [0, 0, 2]])
    random = np.random.default_rng(n)
    return [labelled(float(i), positions=random.normal(size=(2, 3)) + apart) for i in range(n)]


def tune(**options: str) -> list[str]:
    return ["tune", *(text for pair in (QUICK | options).items() for text in pair)]


BAD_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "bad.xyz: no such file"),
    "empty": (lambda path: path.write_text(""), "bad.xyz"),
    "no structures": (lambda path: path.write_text("what is this\n"), "bad.xyz"),
    "no energies": (lambda path: ase.io.write(path, [labelled(None)] * 3), "bad.xyz, image 0: has no energy"),
    "an energy that is not finite": (
        lambda path: ase.io.write(path, [*pairs_of_atoms(2), labelled(float("nan"))]),
        "bad.xyz, image 2: the energy must be finite, got nan",
    ),
    "a position that is not finite": (
        lambda path: ase.io.write(path, [*pairs_of_atoms(2), labelled(positions=[[0, 0, 0], [0, 0, float("inf")]])]),
        "image 2: positions and cell must be finite",
    ),
    "an element beyond the table": (
        lambda path: ase.io.write(path, [*pairs_of_atoms(2), labelled(symbols="CuU")]),
        "image 2: element U is not supported",
    ),
    "an energy that is no number": (
        lambda path: path.write_text("1\nProperties=species:S:1:pos:R:3 energy=-1.5D+02\nCu 0 0 0\n"),
        "bad.xyz, image 0: the energy must be one number, got '-1.5D+02'",
    ),
    "atoms at one place": (
        lambda path: ase.io.write(path, [*pairs_of_atoms(2), labelled(positions=[[0, 0, 0], [0, 0, 0]])]),
        "bad.xyz, image 2: atom 0 (Cu) and atom 1 (H) are 0 Å apart",
    ),
    "one image": (lambda path: ase.io.write(path, pairs_of_atoms(1)), "at least 2 structures"),
    "nothing but copies": (lambda path: ase.io.write(path, [labelled()] * 20), "all 20 structures are copies of one"),
}


@pytest.mark.parametrize(("write", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_one_line_and_nothing_is_made(call: Call, write: Callable[[Path], Any], message: str) -> None:
    write(Path("bad.xyz"))
    before = sorted(Path().iterdir())
    code, out, err = call(*tune(**{"--train": "bad.xyz"}))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("bdqm-tune: ")
    assert message in err
    assert sorted(Path().iterdir()) == before


BAD_OPTIONS: dict[str, tuple[dict[str, str], list[str]]] = {
    "no trials": ({"--n-trials": "0"}, ["study.n_trials", "greater than or equal to 1", "0"]),
    "trials in words": ({"--n-trials": "abc"}, ["study.n_trials", "'abc'"]),
    "unknown sampler": ({"--sampler": "best"}, ["study.sampler", "'tpe', 'cmaes', 'random', 'gp', 'grid', 'qmc' or"]),
    "unknown pruner": ({"--pruner": "all"}, ["study.pruner", "'hyperband'"]),
    "unknown backend": ({"--backend": "mine"}, ["unknown backend 'mine'", "native"]),
    "no such GPU": ({"--device": "cuda:77"}, ["device cuda:77", "usable GPUs"]),
    "unknown hyperparameter": ({"--set": "depth=3"}, ["unknown hyperparameter 'depth'", "num_layers"]),
    "out of bounds": ({"--set": "lr=-1"}, ["lr", "greater than 0"]),
    "no value": ({"--set": "lr"}, ["NAME=VALUE", "'lr'"]),
    "missing configuration": ({"--config": "no.yaml"}, ["config no.yaml", "No such file"]),
    "test without train": ({"--test": "some.xyz"}, ["test some.xyz", "built-in"]),
}


@pytest.mark.parametrize(("options", "messages"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_a_bad_option_is_one_line_and_nothing_is_made(call: Call, options: dict[str, str], messages: list[str]) -> None:
    code, out, err = call(*tune(**options))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    for message in messages:
        assert message in err
    kept = [path for path in Path().rglob("*") if path.is_file() and not {"features", "test"} & {*path.parts}]
    assert kept == []


def test_a_search_space_outside_its_bounds_names_the_key(call: Call) -> None:
    Path("c.yaml").write_text("search: {num_layers: {int: [0, 3]}}\n")
    code, _, err = call(*tune(**{"--config": "c.yaml", "--set": ""}))
    assert code == 2
    assert "config c.yaml: search: num_layers: Input should be greater than or equal to 1, got 0" in err


@pytest.mark.parametrize("arguments", [["tune", "--learning-rate", "3"], ["fly"], ["predict"]])
def test_what_is_no_command_is_bad_input(call: Call, arguments: list[str]) -> None:
    code, _, err = call(*arguments)
    assert code == 2
    assert "Traceback" not in err


def test_an_unreachable_study_database_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BDQM_STORAGE", "mysql+pymysql://me:secret@127.0.0.1:9/optuna")
    code, _, err = call(*tune())
    assert code == 1
    assert "cannot open the study database mysql+pymysql://me:***@127.0.0.1:9/optuna" in err
    assert "secret" not in err
    monkeypatch.setenv("BDQM_STORAGE", "what")
    assert call(*tune())[0] == 2


def test_an_unreachable_tracking_server_is_one_line_and_makes_no_study(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, _, err = call(*tune(**{"--patience": "0.01"}))
    assert code == 1
    assert "bdqm-tune: cannot use the MLflow tracking store http://127.0.0.1:9: " in err
    # On a busy machine the data may take so long that their progress is shown, too.
    lines = [line for line in err.splitlines() if not line.startswith(("Features of ", "Derivatives of "))]
    assert len(lines) <= 2, lines
    assert not Path(".bdqm/optuna.db").exists()


def test_tune_evaluate_and_prepare_speak_json(call: Call) -> None:
    ase.io.write("train.xyz", pairs_of_atoms(30))
    ase.io.write("test.xyz", pairs_of_atoms(7))
    code, out, err = call(*tune(**{"--train": "train.xyz", "--test": "test.xyz", "--study": "s"}), "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["study"] == "s"
    assert found["best_val_energy_mae"] > 0
    assert err.count("trial 00") == 2
    code, out, _ = call("evaluate", "--study", "s", "--json")
    assert code == 0
    evaluated = json.loads(out)
    assert evaluated["test_energy_mae"] > 0
    assert (evaluated["opening"], evaluated["repeated"]) == (1, False)
    code, out, _ = call("prepare", "--train", "train.xyz", "--test", "test.xyz", "--json")
    assert code == 0
    summary = json.loads(out)
    assert [summary[f"{name}_structures"] for name in ("training", "validation", "test")] == [27, 3, 7]
    code, out, _ = call("prepare", "--train", "train.xyz", "--set", "data.validation.fraction=0.5", "--json")
    assert code == 0
    assert json.loads(out)["validation_structures"] == 15
    model = f"runs:/{found['best_run_id']}/model"
    assert call("predict", model, "test.xyz", "--out", "out.xyz")[0] == 0
    assert len(ase.io.read("out.xyz", ":")) == 7
    code, out, err = call("predict", found["best_run_id"], "test.xyz", "--json")
    assert code == 0
    assert json.loads(out)["columns"] == ["energy", "forces", "extrapolation"]
    assert "warning: this model was trained on energies only: its forces are the derivative of its energy" in err
    assert call("predict", model, "test.xyz", "--out", "nowhere/out.xyz")[0] == 2
    ase.io.write("close.xyz", [*pairs_of_atoms(1), labelled(None, positions=[[0, 0, 0], [0, 0, 0.1]])])
    code, _, err = call("predict", model, "close.xyz")
    assert (code, err.count("\n")) == (2, 1)
    assert "close.xyz, image 1: atom 0 (Cu) and atom 1 (H) are 0.1 Å apart" in err
    assert call("predict", model, "close.xyz", "--min-covalent-ratio", "0")[0] == 0
    assert call("evaluate", "--study", "other")[0] == 2


def test_an_ensemble_is_made_and_evaluated(call: Call) -> None:
    ase.io.write("train.xyz", pairs_of_atoms(40))
    ase.io.write("test.xyz", pairs_of_atoms(7))
    options = {"--train": "train.xyz", "--test": "test.xyz", "--study": "s", "--pruner": "none"}
    assert call(*tune(**options))[0] == 0
    assert call("evaluate", "--study", "s", "--ensemble", "latest")[0] == 2
    code, out, err = call("ensemble", "--study", "s", "--best", "2", "--coverage", "0.7", "--json")
    assert code == 0, err
    made = json.loads(out)
    assert (sorted(made["trials"]), made["coverage"], made["calibration_structures"]) == ([0, 1], 0.7, 4)
    code, out, _ = call("evaluate", "--study", "s", "--ensemble", made["run_id"], "--json")
    assert code == 0
    assert 0 <= json.loads(out)["test_coverage_low"] <= json.loads(out)["test_coverage"]
    code, out, _ = call("predict", made["run_id"], "test.xyz")
    assert code == 0
    assert "7 structures with energy, forces, energy_std, energy_low, energy_high, energy_coverage, forces_std" in out
    for option, message in {
        "--best": "--best must be a number, as 5; got 'x'",
        "--coverage": "as 0.9; got 'x'",
    }.items():
        code, out, err = call("ensemble", "--study", "s", option, "x")
        assert (code, out) == (2, "")
        assert message in err
    code, _, err = call("ensemble", "--study", "s", "--best", "2")
    assert code == 2
    assert "a coverage of 0.9 needs at least 9 structures to calibrate on, there are 4" in err


def test_the_lock_box_opens_for_one_model(call: Call) -> None:
    ase.io.write("train.xyz", pairs_of_atoms(40))
    ase.io.write("test.xyz", pairs_of_atoms(17))
    options = {"--train": "train.xyz", "--test": "test.xyz", "--study": "s", "--pruner": "none"}
    assert call(*tune(**options))[0] == 0
    for name in ("train.xyz", "test.xyz"):
        Path(name).rename(f"moved.{name}")
    code, _, err = call("evaluate", "--study", "s")
    assert code == 2
    assert "train.xyz: no such file" in err
    assert "--train FILE says where it is now" in err
    code, out, err = call("evaluate", "--study", "s", "--train", "moved.train.xyz", "--json")
    assert code == 0, err
    first = json.loads(out)
    assert first["test_energy_mae_low"] < first["test_energy_mae"] < first["test_energy_mae_high"]
    code, out, _ = call("evaluate", "--study", "s", "--json")
    assert code == 0
    assert json.loads(out) == first | {"repeated": True}

    assert call("ensemble", "--study", "s", "--best", "2", "--coverage", "0.7", "--train", "moved.train.xyz")[0] == 0
    ensemble = ("evaluate", "--study", "s", "--ensemble", "latest", "--train", "moved.train.xyz")
    code, out, err = call(*ensemble)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert f"was opened on {first['opened']} for trial {first['trial']} (run " in err
    code, out, err = call(*ensemble, "--reopen", "it was planned", "--json")
    assert code == 0, err
    second = json.loads(out)
    assert (second["opening"], second["repeated"]) == (2, False)
    tags = MlflowClient().get_run(second["run_id"]).data.tags
    assert json.loads(tags["test_reopen_reasons"]) == ["it was planned"]
    assert tags["test_opening"] == "2"


def test_an_element_that_training_lacks_is_warned_of(call: Call) -> None:
    ase.io.write("train.xyz", pairs_of_atoms(30))
    ase.io.write("test.xyz", [*pairs_of_atoms(7), labelled(symbols="CuO")])
    code, _, err = call("prepare", "--train", "train.xyz", "--test", "test.xyz")
    assert code == 0
    assert "warning: O in the test split but not in the training split: its reference energy is the mean" in err


def test_data_may_be_several_files_and_a_validation_file(call: Call) -> None:
    for name, n in (("a.xyz", 12), ("b.xyz", 9), ("c.xyz", 5)):
        ase.io.write(name, pairs_of_atoms(n))
    options = {"--train": "a.xyz,b.xyz@::2", "--validation": "c.xyz", "--test": "b.xyz@1::2"}
    code, out, err = call("prepare", *(text for pair in options.items() for text in pair), "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert [summary[f"{name}_structures"] for name in ("training", "validation", "test")] == [17, 5, 4]
    Path("c.yaml").write_text("data: {train: [a.xyz, b.xyz], validation_file: c.xyz}\n")
    code, out, err = call("prepare", "--config", "c.yaml", "--json")
    assert code == 0, err
    assert json.loads(out)["training_structures"] == 21


def test_help_and_mlproject_have_every_option_with_its_default() -> None:
    """The declaration in `config` is the one place; what is written beside it is checked against it."""
    entry = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"]["main"]
    command: Any = typer.main.get_command(app).commands["tune"]  # type: ignore[attr-defined]
    texts = {parameter.name.rstrip("_"): parameter.help for parameter in command.params}
    assert set(entry["parameters"]) == {*PLACES, "config", "set"}
    assert set(texts) == {*entry["parameters"], "as_json", "help"} - {"help"}
    for name in entry["parameters"]:
        assert f"--{name.replace('_', '-')} {{{name}}}" in " ".join(entry["command"].split())
    config = Config().model_dump()
    for name, (group, option) in PLACES.items():
        default = config[group][option] if group else config[option]
        stated = texts[name]
        if default is None:
            assert name in ("test", "validation", "objectives"), name
        else:
            default = int(default) if isinstance(default, float) else default
            assert any(f"{one}." in f"{stated}." for one in (f"efault: {default}", f"efault: `{default}`")) or (
                f"{default} (default)" in stated
            ), name


def test_help_says_what_an_option_takes_and_that_a_flag_takes_nothing() -> None:
    whole: Any = typer.main.get_command(app)
    commands = {**whole.commands, **whole.commands["services"].commands}
    assert len(commands) > 25
    for name, command in commands.items():
        parameters = command.get_params(command.make_context(name, [], resilient_parsing=True))
        assert parameters[-1].name == "help"
        options = [one for one in parameters if one.param_type_name == "option"]
        assert [one.name for one in options if one.is_flag != (one.metavar == "") or one.metavar is None] == [], name


def test_help_has_an_example_for_every_command(call: Call) -> None:
    for command in ("tune", "prepare", "evaluate", "ensemble", "predict"):
        code, out, _ = call(command, "--help")
        assert code == 0
        assert f"Example: bdqm-tune {command}" in out.replace("`", "")


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        pytest.param(signal.SIGTERM, 130, "interrupted", id="SIGTERM"),
        pytest.param(signal.SIGUSR1, 0, "the walltime is near", id="SIGUSR1", marks=pytest.mark.endurance),
    ],
)
def test_a_signal_hands_the_trial_back(workdir: Path, number: int, status: int, said: str) -> None:
    Path("endless.yaml").write_text("training: {epochs: 1000000, early_stopping: null}\n")
    options = {"--config": "endless.yaml", "--epochs": "", "--study": "long", "--pruner": "none"}
    process = Forked(["-m", "bdqm_tune", *tune(**options)])
    stores = find_stores()
    deadline = time.monotonic() + 120
    while not _first_trial_is_training(stores) and time.monotonic() < deadline:
        time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=180)
    assert process.returncode == status, err
    assert said in err.splitlines()[-1]
    assert [trial.state.name for trial in load_study(stores, "long").get_trials()] == ["WAITING"] * 2


def test_an_interruption_that_is_lost_in_a_callback_ends_the_work_all_the_same(
    monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    Path("endless.yaml").write_text("training: {epochs: 1000000, early_stopping: null}\n")
    options = {"--config": "endless.yaml", "--epochs": "", "--study": "long", "--pruner": "none"}
    monkeypatch.setattr("bdqm_tune.progress.told_to_end", told := threading.Event())
    stores = find_stores()

    def interrupt() -> None:
        while not _first_trial_is_training(stores):
            time.sleep(0.5)
        told.set()  # all that such an interruption leaves behind

    threading.Thread(target=interrupt, daemon=True).start()
    code, _, err = call(*tune(**options))
    assert code == 130
    assert "interrupted" in err.splitlines()[-1]
    assert {trial.state.name for trial in load_study(stores, "long").get_trials()} == {"WAITING"}


def test_an_interruption_anywhere_gives_the_same_status(workdir: Path) -> None:
    Path("interrupted.py").write_text(
        "import bdqm_tune.cli.main as cli\n"
        "def interrupted(**_):\n"
        "    exec('raise KeyboardInterrupt')\n"
        "cli.app = interrupted\n"
        "cli.main()\n"
    )
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    found = subprocess.run([sys.executable, "-m", "interrupted"], env=environ, capture_output=True, text=True)
    assert found.returncode == 130, found.stderr


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGTERM, 130, "interrupted"),
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGUSR1, 0, "the walltime is near"),
    ],
)
def test_a_signal_that_comes_while_the_command_is_imported_ends_it_as_any_other(
    workdir: Path, number: int, status: int, said: str
) -> None:
    """Over a slow file system that takes seconds."""
    Path("typer.py").write_text("from pathlib import Path; import time; Path('importing').touch(); time.sleep(60)\n")
    environ = os.environ | {"PYTHONPATH": str(workdir)}
    process = subprocess.Popen(
        [sys.executable, "-m", "bdqm_tune", *tune()], env=environ, stderr=subprocess.PIPE, text=True
    )
    eventually(Path("importing").exists)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert err == f"bdqm-tune: {said}; a trial that was running is requeued for the next tune of its study\n"
    assert not Path(".bdqm").exists()


def test_an_interruption_that_an_import_swallows_is_heeded_afterwards(workdir: Path) -> None:
    Path("interrupted.py").write_text(
        "import os, signal, sys\n"
        "sys.argv = ['bdqm-tune', 'studies']\n"
        "from bdqm_tune.cli.interruption import listen\n"
        "listen()\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
        "from bdqm_tune.cli.main import main\n"
        "main()\n"
    )
    found = subprocess.run([sys.executable, "interrupted.py"], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (130, "bdqm-tune: interrupted\n")


def test_an_interruption_that_comes_out_of_an_import_as_another_error_is_one(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    monkeypatch.setattr("bdqm_tune.cli.main.told_to_end", told)

    def interrupted(**_: object) -> None:
        told.set()
        raise ImportError("partially initialized module")

    monkeypatch.setattr("bdqm_tune.cli.main.app", interrupted)
    assert call("studies") == (130, "", "bdqm-tune: interrupted\n")


def test_an_interruption_in_a_callback_prints_no_traceback(workdir: Path) -> None:
    Path("collected.py").write_text(
        "import sys\n"
        "from bdqm_tune.cli.interruption import ignore_interruption\n"
        "sys.unraisablehook = ignore_interruption\n"
        "class Interrupted:\n"
        "    def __del__(self): raise KeyboardInterrupt\n"
        "class Failed:\n"
        "    def __del__(self): raise ValueError\n"
        "Interrupted(); Failed()\n"
    )
    found = subprocess.run([sys.executable, "collected.py"], capture_output=True, text=True)
    assert "KeyboardInterrupt" not in found.stderr
    assert "ValueError" in found.stderr


def _first_trial_is_training(stores: Stores) -> bool:
    if not (stores.home / "optuna.db").exists():
        return False
    try:
        trials = load_study(stores, "long").get_trials()
    except BdqmError:  # the study is being made
        return False
    return bool(trials) and "mlflow_run_id" in trials[0].user_attrs


def test_an_option_with_a_password_is_refused_and_not_repeated(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for option in ("--train", "--config", "--study"):
        code, out, err = call("tune", option, "mysql://me:t0ps3cret@host/x")
        assert (code, out) == (2, "")
        assert "holds a URL with a password, which MLflow would record" in err
        assert "t0ps3cret" not in err
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123")
    code, _, err = call("tune", "--train", "mysql://me:t0ps3cret@host/x")
    assert code == 2
    removed = "`mlflow runs delete --run-id 0123` and `mlflow gc --run-ids 0123` where MLflow's server is remove it"
    assert f"change the password; {removed}" in err
    assert list(Path().iterdir()) == []
