"""confirm and register as a user types them, and the script that `mlflow run -e confirm` calls."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from bdqm_tune import api
from bdqm_tune.cli.main import app
from bdqm_tune.cli.results import confirmation_lines
from bdqm_tune.compilation import cache
from bdqm_tune.config.config import Config
from bdqm_tune.confirmation.confirm import Confirmation
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.services.connection import Stores
from bdqm_tune.study.selection import Champion
from bdqm_tune.tuning.tune import tune
from tests.forked import run

PROJECT = Path(__file__).parents[2]


def call(*command: str) -> "subprocess.CompletedProcess[str]":
    return run(["-m", *command])


def test_from_confirm_to_a_registered_champion(stores: Stores, configure: Callable[..., Config]) -> None:
    config = configure(study={"n_trials": 2, "pruner": "none"}, training={"epochs": 2})
    tune(prepare(config, stores.home), config, stores)
    done = call("bdqm_tune", "confirm", "--study", "small", "--best", "2", "--seeds", "2", "--register", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert "registered as models:/small@champion, version 1" in done.stderr

    entry = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"]["confirm"]
    given = dict.fromkeys(entry["parameters"], "''") | {"study": "small", "best": "2", "seeds": "2"}
    words = entry["command"].format(**given).split()
    done = call(*("" if word == "''" else word for word in words[2:]))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("trained before") == 6
    assert f"run {record['champion']['run_id']}" in done.stdout
    kept = json.loads(Path("figures/small/confirmation.json").read_text())
    assert kept == record
    finalists = pd.read_csv("figures/small/finalists.csv")
    assert finalists["mean"].tolist() == [one["mean"] for one in record["candidates"]]

    done = call("bdqm_tune", "register", "--study", "small", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["known"], made["version"], made["run_id"]) == (True, "1", record["champion"]["run_id"])
    lines = call("bdqm_tune", "register", "--study", "small").stdout.splitlines()
    assert "version  1, registered before" in lines
    assert not any(line.startswith("known") for line in lines)
    lines = call("bdqm_tune", "register", "--study", "small", "--name", "slabs").stdout.splitlines()
    assert "version  1, new" in lines
    for arguments, message in {
        ("bdqm_tune", "confirm", "--study", "none"): "no study 'none' in ",
        ("bdqm_tune", "confirm", "--study", "small", "--seeds", "many"): "--seeds must be a number, as 5; got 'many'",
        ("bdqm_tune", "register", "--study", "none"): "no study 'none' in ",
        ("bdqm_tune", "confirm", "--out", "figures/", "--study", "none"): "no study 'none' in ",
    }.items():
        done = call(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_table_shows_what_is_missing() -> None:
    nan = float("nan")
    rows = [
        (1, "trial-001", "finalist", 100, 2, 0.125, 0.1, 0.15, 0.12),
        (2, "default", "default", 2000, 1, 0.5, nan, nan, 0.5),
        (3, "trial-002", "finalist", 7, 0, nan, nan, nan, nan),
    ]
    columns = ["rank", "name", "kind", "n_parameters", "seeds", "mean", "low", "high", "best"]
    champion = Champion(1, 1, "abc", 0.12, 0.125, ["abc"], "def", 2, "trial-001 is the only finalist")
    frame = pd.DataFrame(rows, columns=columns)
    made = Confirmation("s", "val_energy_mae", "eV", [1, 2], frame, frame, champion, "trial-001", ["y"], "no search")
    assert confirmation_lines(replace(made, notes=["a doubt"]))[-1] == "note: a doubt"
    lines = confirmation_lines(made)
    assert lines[2].split() == ["*", "1", "trial-001", "0.1250", "0.1000", "to", "0.1500", "0.1200", "100"]
    assert lines[3].split() == ["2", "default", "0.5000", "0.5000", "2000", "1", "of", "2", "seeds"]
    assert lines[4].split() == ["3", "trial-002", "7", "0", "of", "2", "seeds"]
    assert "champion  trial-001: trial-001 is the only finalist" in lines


@pytest.mark.parametrize(
    ("objective", "stored", "words"),
    [
        ("val_energy_forces", "eV/atom", ["12.50", "10.00", "to", "15.00", "12.00"]),
        ("val_energy_mae_per_atom", "eV/atom", ["12.50", "10.00", "to", "15.00", "12.00"]),
        ("val_forces_mae", "eV/Å", ["0.0125", "0.0100", "to", "0.0150", "0.0120"]),
    ],
)
def test_the_table_has_energies_per_atom_in_mev(objective: str, stored: str, words: list[str]) -> None:
    columns = ["rank", "name", "kind", "n_parameters", "seeds", "mean", "low", "high", "best"]
    frame = pd.DataFrame([(1, "trial-001", "finalist", 100, 2, 0.0125, 0.01, 0.015, 0.012)], columns=columns)
    champion = Champion(1, 1, "abc", 0.012, 0.0125, ["abc"], "def", 2, "trial-001 is the only finalist")
    made = Confirmation("s", objective, stored, [1, 2], frame, frame, champion, "trial-001", ["y"], "no search")
    lines, unit = confirmation_lines(made), stored.replace("eV/atom", "meV/atom")
    assert lines[0].endswith(f"mean, interval and best in {unit}")
    assert lines[2].split() == ["*", "1", "trial-001", *words, "100"]
    assert f"with seed 1: {words[-1]} {unit}, run abc" in lines[-1]


@pytest.mark.parametrize("way", ["confirm", "reproduce", "python"])
def test_loops_are_compiled_ahead_of_a_training_again(way: str, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that compiles them itself rounds otherwise, and a training that is repeated would seem different."""

    def compile_ahead() -> None:
        raise BadInput("compiled first")

    monkeypatch.setattr(cache, "compile_ahead", compile_ahead)
    monkeypatch.setattr(api, "compile_ahead", compile_ahead)
    commands = {"confirm": ["confirm", "--study", "s"], "reproduce": ["reproduce", "0" * 32]}
    with pytest.raises(BadInput, match="compiled first"):
        api.confirm("s") if way == "python" else app(commands[way], standalone_mode=False)


@pytest.mark.parametrize("command", ["confirm", "register", "reproduce"])
def test_help_has_an_example(command: str) -> None:
    done = call("bdqm_tune", command, "--help")
    assert done.returncode == 0
    assert f"Example: bdqm-tune {command}" in " ".join(done.stdout.split())
