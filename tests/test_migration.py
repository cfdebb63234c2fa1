"""docs/migration.md: what it says to type, to write and to run is done, on files of the names that it uses."""

import pathlib
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import optuna
import pytest
import torch
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from pydantic import BaseModel

from bdqm_tune.amptorch_import import load_amptorch_checkpoint, translate
from bdqm_tune.config.config import Config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.services.connection import find_stores
from bdqm_tune.study.results import load_results
from tests.commands import Call

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "migration.md"
SIGMAS = [0.02, 0.2, 0.4, 0.69, 1.1, 1.66, 2.66, 4.4]
AMPOPT = {  # the configuration of a trial of AmpOpt, with the descriptor by which it featurises
    "model": {
        "name": "singlenn", "get_forces": False, "num_layers": 6, "num_nodes": 20, "dropout": 1, "dropout_rate": 0.1,
        "initialization": "xavier", "activation": "torch.nn.Tanh",
    },
    "optim": {
        "gpus": 0, "lr": 1e-3, "batch_size": 256, "loss": "mae", "epochs": 100,
        "scheduler": {"policy": "StepLR", "params": {"step_size": 20, "gamma": 0.75}},
    },
    "dataset": {
        "val_split": 0.1,
        "fp_scheme": "gmp",
        "fp_params": {
            "MCSHs": {str(n): {"groups": [*range(1, max(n, 1) + 1)], "sigmas": SIGMAS} for n in range(3)},
            "atom_gaussians": {"Cu": "data/GMP/valence_gaussians/Cu_pseudodensity_4.g"},
            "cutoff": 5,
        },
        "scaling": {"type": "normalize", "range": [0, 1]},
    },
    "cmd": {"seed": 12, "identifier": "example", "dtype": "torch.DoubleTensor"},
}  # fmt: skip


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)


def copper(n: int, seed: int) -> list[Atoms]:
    random, images = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += random.normal(scale=0.1, size=(4, 3))
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        images.append(atoms)
    return images


@pytest.fixture
def project(workdir: Path) -> Path:
    """A folder with the files of the page: structures, settings, a configuration of amptorch, a study of AmpOpt."""
    (workdir / "data").mkdir()
    ase.io.write("data/train.traj", copper(30, 0))
    ase.io.write("data/test.traj", copper(10, 1))
    (settings,) = blocks("yaml")
    (workdir / "ampopt.yaml").write_text(settings)
    (workdir / "amptorch_config.py").write_text(repr(AMPOPT).replace("'torch.nn.Tanh'", "nn.Tanh"))
    with sqlite3.connect(workdir / "old.db") as old:  # which optuna 2.10.1 wrote, in a space like AmpOpt's
        old.executescript((Path(__file__).parent / "optuna_2_10.sql").read_text())
    old.close()
    return workdir


def test_the_settings_are_those_of_ampopt() -> None:
    imported = Config(**translate(AMPOPT).options)
    (settings,) = blocks("yaml")
    here = Config(**yaml.safe_load(settings))
    assert here.descriptor == imported.descriptor
    assert here.training == imported.training
    assert here.objective == imported.objective
    assert here.target.model_dump(exclude={"objective"}) == imported.target.model_dump(exclude={"objective"})
    assert here.data == imported.data
    assert here.study.seed == imported.study.seed
    searched = {"num_layers", "num_nodes", "dropout_rate", "lr", "gamma"}
    fixed = (
        imported.search.keys() - searched - {"force_coefficient", "stress_coefficient"}
    )  # which are for training on forces
    default = Hyperparameters()
    assert {name: here.search.get(name, getattr(default, name)) for name in fixed} == {
        name: imported.search[name] for name in fixed
    }
    assert all(isinstance(here.search[name], dict | BaseModel) for name in searched)


def test_arrays_become_structures(workdir: Path) -> None:
    images = copper(3, 0)
    np.savez(
        "mine.npz",
        numbers=[atoms.numbers for atoms in images],
        positions=[atoms.positions for atoms in images],
        cells=[atoms.cell.array for atoms in images],
        energies=[atoms.get_potential_energy() for atoms in images],
        forces=[atoms.get_forces() for atoms in images],
    )
    exec(compile(blocks("python")[0], PAGE.name, "exec"), {})
    for written, given in zip(ase.io.read("mine.xyz", ":"), images, strict=True):
        assert written.get_potential_energy() == pytest.approx(given.get_potential_energy())
        np.testing.assert_allclose(written.get_forces(), given.get_forces(), atol=1e-7)
        np.testing.assert_allclose(written.positions, given.positions, atol=1e-7)


@pytest.mark.endurance
def test_the_commands_do_what_the_page_says(project: Path, shared: Path, call: Call) -> None:
    shutil.copytree(shared / "data" / "GMP" / "valence_gaussians", project / "data" / "GMP" / "valence_gaussians")
    for block in blocks("bash"):
        if "continued.yaml" in block:
            exec(compile(blocks("python")[1], PAGE.name, "exec"), {})
        for line in block.splitlines():
            run(shlex.split(line), call)
    status, output, _ = call("studies", "--json")
    assert status == 0
    assert all(name in output for name in ("example", "one", "imported", "continued"))
    assert "fixed-params" not in output

    old = optuna.load_study(study_name="example", storage="sqlite:///old.db")
    new = yaml.safe_load(Path("continued.yaml").read_text())["study"]["enqueue"]
    assert new[0] == old.best_params
    assert len(new) == 5
    first = load_results(find_stores(), "continued").study.get_trials()[0]
    assert first.params == pytest.approx(old.best_params)


def run(command: list[str], call: Call) -> None:
    """One line of the page; short of two things that would only take long here."""
    match command:
        case ["bdqm-tune", "compare", study]:
            assert call("compare", study)[0] == 0
            assert Path("figures", study, "history.png").exists()
        case ["bdqm-tune", *arguments]:
            quick = [] if "--epochs" in arguments or arguments[0] != "tune" else ["--epochs", "3"]
            status, _, error = call(*arguments, *quick)
            assert status == 0, (command, error)
        case ["optuna", *arguments]:
            subprocess.run([Path(sys.executable).parent / "optuna", *arguments], check=True)
        case _:
            raise AssertionError(f"the page has a command that is not tested: {command}")


def test_the_schema_of_an_old_study_must_be_brought_up_first(project: Path) -> None:
    with pytest.raises(RuntimeError, match="storage upgrade"):
        optuna.load_study(study_name="example", storage="sqlite:///old.db")


def test_a_checkpoint_with_more_than_data_is_refused_by_name(shared: Path, workdir: Path) -> None:
    source = next(path for path in sorted((shared / "reference" / "amptorch_checkpoints").iterdir()) if path.is_dir())
    shutil.copytree(source, "checkpoint")
    torch.save({"dataset": {"lmdb_path": [pathlib.PurePosixPath("train.lmdb")]}}, "checkpoint/config.pt")
    with pytest.raises(BadInput, match="pathlib"):
        load_amptorch_checkpoint("checkpoint")
