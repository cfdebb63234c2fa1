"""Trainings by mace-torch: the figures of its own command, resumed bit for bit, fine-tuned; or why there are none."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.backends import make_backend
from bdqm_tune.backends.mace import MaceBackend, MaceRun
from bdqm_tune.backends.mace_import import VARIABLE, import_mace
from bdqm_tune.backends.mace_model import Foundation
from bdqm_tune.backends.mace_potential import MacePotential
from bdqm_tune.config.backends import find_backend
from bdqm_tune.config.config import Config, load_config
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.checkpoint import NoCheckpoint, read_checkpoint, write_checkpoint
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.learning.fit import Diverged
from bdqm_tune.progress import interruptible
from tests import forked
from tests.backends.mace_data import SMALL, alloys, figures, mace_config, prepared, start


@pytest.fixture(scope="module")
def mace(require: Callable[[str], None]) -> None:
    require("mace")


@pytest.fixture(scope="module")
def data(mace: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Dataset]:
    return prepared(tmp_path_factory.mktemp("alloys"))


def assert_same(run: MaceRun, other: MaceRun) -> None:
    """The same records and, bit for bit, the same weights of the best epoch and of the training."""
    assert figures(run) == figures(other)
    assert run.best == other.best or (run.best and other.best and run.best.epoch == other.best.epoch)
    states = [each.checkpoint() for each in (run, other)]
    one, two = [state.epochs for state in states if state is not None]
    assert one.keys() == two.keys()
    assert [name for name, value in one.items() if not torch.equal(value, two[name])] == []


def test_without_mace_a_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, dataset = prepared(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    import_mace.cache_clear()
    for needs_it in (lambda: make_backend(config, dataset), lambda: MacePotential.load(tmp_path)):
        with pytest.raises(BadInput, match=r"^backend mace: mace-torch is not installed; pip install 'bdqm-tune\[mace"):
            needs_it()


def test_of_a_mace_that_cannot_be_imported_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "mace", None)
    import_mace.cache_clear()
    with pytest.raises(BadInput, match=r"mace-torch cannot be imported \(.*mace.*\); pip install"):
        import_mace()


def test_nothing_of_mace_is_imported_without_need(tmp_path: Path) -> None:
    """Not by its declaration, and not by a training of another backend."""
    mace_config(tmp_path)
    code = """
import sys
from pathlib import Path
import bdqm_tune.api
from bdqm_tune.backends import make_backend
from bdqm_tune.config.config import load_config
from bdqm_tune.learning.dataset import prepare
load_config(None, {"": {"backend": "mace"}})
options = {"data": {"train": "train.traj"}, "descriptor": {"orders": [0], "sigmas": 2}, "training": {"epochs": 1}}
config = load_config(None, options)
backend = make_backend(config, prepare(config, Path("home")))
list(backend.start(config.declared.hyperparameters(), 0))
print(sorted({"mace", "e3nn", "torch_ema", "matscipy"} & sys.modules.keys()))
"""
    done = forked.run(["-c", code], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_the_import_leaves_nothing_behind(mace: None) -> None:
    assert VARIABLE not in os.environ
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"training": {"loss": "mse"}}, "training.loss: backend mace does not follow it; leave it out"),
        ({"target": {"scaling": "mean_deviation"}}, "target.scaling: backend mace scales by the forces"),
        ({"data": {"validation": {"folds": 3}}}, "data.validation.folds: backend mace trains one network on one split"),
        ({"": {"cohort": 2}}, "cohort: mace trains one trial at a time, got 2"),
        ({"search": {"r_max": None}}, "search.r_max: null needs backend_options.foundation_model"),
        (
            {"search": {"descriptor.cutoff": {"float": [4.0, 5.0]}}},
            "backend mace trains on no descriptor",
        ),
        ({"search": {"channels": 4}}, "unknown hyperparameter 'channels'; there are: r_max, num_channels"),
        (
            {"": {"backend_options": {"foundation_model": "x"}}, "search": {"r_max": 5.0}},
            "search.r_max: is that of the foundation model; leave it out",
        ),
    ],
)
def test_what_it_does_not_do_is_refused(groups: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_config(None, {**groups, "": {"backend": "mace", **groups.get("", {})}})
    assert message in str(caught.value)


def test_a_stored_configuration_with_a_pickle_needs_consent() -> None:
    declared = find_backend("mace")
    assert declared.runs_code({"foundation_model": "x.model"}) == "x.model"
    assert declared.runs_code({}) == ""


def test_with_a_foundation_model_its_architecture_is_not_searched() -> None:
    config = load_config(None, {"": {"backend": "mace", "backend_options": {"foundation_model": "x.model"}}})
    assert sorted(config.spaces) == ["batch_size", "energy_weight", "lr", "stress_weight"]
    assert config.spaces["lr"].high < 0.01
    assert config.study.enqueue == [{"lr": 1e-3}]
    assert load_config(None, {"": config.given()}) == config


def test_a_batch_that_is_never_full_is_refused(data: tuple[Config, Dataset]) -> None:
    config, dataset = data
    message = "batch_size 10: mace leaves out batches that are not full, and there are 9 training structures"
    with pytest.raises(BadInput, match=message):
        MaceBackend(config.updated({"search": {"batch_size": 10}}), dataset)
    with pytest.raises(BadInput, match=message):
        start(config, dataset, batch_size=10)


def test_a_training_can_be_repeated_and_its_potential_scores_what_its_best_epoch_did(
    data: tuple[Config, Dataset],
) -> None:
    runs = [start(*data, seed=seed) for seed in (3, 3, 4)]
    for run in runs:
        assert run.best is None
        assert [record.epoch for record in run] == [1, 2, 3, 4]
    assert_same(runs[0], runs[1])
    assert figures(runs[0]) != figures(runs[2])
    run, held_out = runs[0], data[1].validation.structures
    assert run.best is not None
    assert run.best.value("val_energy_forces") == min(r.value("val_energy_forces") for r in run.records)
    found = run.potential().predict(held_out.atoms)
    assert np.abs(found.energies - held_out.energies).mean() == pytest.approx(run.best.val_energy_mae, rel=1e-9)
    assert found.forces is not None
    assert held_out.forces is not None
    errors = np.concatenate(found.forces) - np.concatenate(held_out.forces)
    assert np.abs(errors).mean() == pytest.approx(run.best.val_forces_mae, rel=1e-9)
    stresses = np.array([run.potential().stress(atoms) for atoms in held_out.atoms])
    assert np.abs(stresses - held_out.stresses).mean() == pytest.approx(run.best.val_stress_mae, rel=1e-9)
    single = run.held_out()
    assert single is not None
    assert np.mean(single.by_group("val_energy_forces")) == pytest.approx(run.best.value("val_energy_forces"), rel=1e-9)
    assert torch.get_default_dtype() == torch.float32


def test_a_missing_label_is_no_error(mace: None, tmp_path: Path) -> None:
    """Half have no forces: they count with their energies alone, in the loss and in the errors."""
    images = alloys(12, 1)
    for atoms in images[::2]:
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy())
    partial = {"forces": "partial", "stress": "partial", "epochs": 1}
    run = start(*prepared(tmp_path, images=images, training=partial))
    list(run)
    validation, potential = run._dataset.validation.structures, run.potential()
    pairs = list(zip(validation.forces or [], validation.atoms, strict=True))
    known = [(forces, atoms) for forces, atoms in pairs if np.isfinite(forces).all()]
    assert 0 < len(known) < len(pairs)
    errors = [np.abs(potential.results(atoms)["forces"] - forces).mean() for forces, atoms in known]
    assert run.best is not None
    assert run.best.val_forces_mae == pytest.approx(np.mean(errors), rel=1e-9)


def test_it_trains_on_energies_alone(mace: None, tmp_path: Path) -> None:
    run = start(*prepared(tmp_path, training={"forces": False, "epochs": 2, "precision": "float32"}))
    records = list(run)
    assert records[-1].val_forces_mae is None
    assert not run.potential().trained_on_forces
    assert run.held_out() is not None


def test_the_last_epochs_weigh_the_energies_more(data: tuple[Config, Dataset]) -> None:
    config, dataset = data
    losses = []
    for energy_stage in (1.0, 0.5):
        staged = config.updated({"training": {"epochs": 2, "energy_stage": energy_stage}})
        losses.append([record.train_loss for record in start(staged, dataset)])
    assert losses[0][0] == losses[1][0]
    assert losses[1][1] < 0.5 * losses[0][1]


def test_a_training_that_diverges_says_so(data: tuple[Config, Dataset]) -> None:
    with pytest.raises(Diverged, match=r"diverged in epoch \d"):
        list(start(*data, lr=10.0, clip_grad=1e9, forces_weight=1e9, ema=False, correlation=3, num_interactions=2))


@pytest.mark.parametrize(
    "options",
    [
        {"scheduler": "plateau", "scheduler_patience": 0, "lr_factor": 0.5, "max_L": 1},
        {"scheduler": "exponential", "ema": False, "amsgrad": False},
    ],
)
def test_a_training_resumes_bit_for_bit(data: tuple[Config, Dataset], tmp_path: Path, options: dict[str, Any]) -> None:
    undisturbed, left = start(*data, **options), start(*data, **options)
    list(undisturbed)
    list(islice(left, 2))
    checkpoint = left.checkpoint()
    assert checkpoint is not None
    write_checkpoint(tmp_path / "checkpoint", checkpoint, left.key)
    list(left)  # which does not change what is in the checkpoint
    resumed = start(*data, **options)
    resumed.restore(read_checkpoint(tmp_path / "checkpoint", resumed.key))
    assert len(list(resumed)) == 2
    assert_same(left, undisturbed)
    assert_same(resumed, undisturbed)
    with pytest.raises(NoCheckpoint, match="of a training with another hyperparameters"):
        read_checkpoint(tmp_path / "checkpoint", start(*data, lr=0.02).key)


RESUME = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from bdqm_tune.backends.mace_import import import_mace
from bdqm_tune.learning.checkpoint import read_checkpoint, write_checkpoint
from tests.backends.mace_data import prepared, start
run = start(*prepared(Path(".")))
run.restore(read_checkpoint(Path("checkpoint"), run.key))
assert len(list(run)) == 2
write_checkpoint(Path("resumed"), run.checkpoint(), run.key)
"""


def test_a_training_resumes_bit_for_bit_in_another_process(mace: None, workdir: Path) -> None:
    undisturbed = start(*prepared(Path()))
    for record in undisturbed:
        if record.epoch == 2:
            checkpoint = undisturbed.checkpoint()
            assert checkpoint is not None
            write_checkpoint(Path("checkpoint"), checkpoint, undisturbed.key)
    done = forked.run(["-c", RESUME, str(Path(__file__).parents[2])])
    assert done.returncode == 0, done.stderr
    resumed = start(*prepared(Path()))
    resumed.restore(read_checkpoint(Path("resumed"), resumed.key))
    assert_same(resumed, undisturbed)


def test_an_interrupted_epoch_is_trained_again(data: tuple[Config, Dataset]) -> None:
    undisturbed, run = start(*data), start(*data)
    list(undisturbed)
    checks = iter([False] * 6)

    def is_over() -> bool:
        return next(checks, True)

    with pytest.raises(KeyboardInterrupt), interruptible(is_over):
        for _ in run:
            from bdqm_tune import progress

            progress._over_since.set(-1e9)  # the time of grace is over
    checkpoint = run.checkpoint()
    assert checkpoint is not None
    assert 0 < len(checkpoint.records) < 4
    resumed = start(*data)
    resumed.restore(checkpoint)
    list(resumed)
    assert_same(resumed, undisturbed)


def test_the_figures_are_those_of_maces_own_command(mace: None, workdir: Path) -> None:
    """Given the same files, energies of the elements and seed: in double precision to eight digits and more."""
    for name, images in {"train": alloys(12, 0), "valid": alloys(4, 1)}.items():
        for atoms in images:
            atoms.info["REF_energy"], atoms.arrays["REF_forces"] = atoms.get_potential_energy(), atoms.get_forces()
            atoms.calc = None
        ase.io.write(f"{name}.xyz", images)
    e0s, options = {"Cu": -0.3, "Au": 0.2}, SMALL | {"max_ell": 2, "max_L": 1, "num_interactions": 2}
    shared_options = {
        **{name: options[name] for name in ("r_max", "num_channels", "max_L", "correlation", "max_ell", "batch_size")},
        **{"num_radial_basis": options["num_radial_basis"], "num_interactions": 2, "energy_weight": 100.0},
        **{"forces_weight": 100.0, "ema_decay": 0.9, "scheduler_patience": 0, "lr_factor": 0.5, "lr": 0.01},
    }
    given = {
        **shared_options,
        **{"name": "own", "train_file": "train.xyz", "valid_file": "valid.xyz", "E0s": "{29: -0.3, 79: 0.2}"},
        **{"model": "MACE", "default_dtype": "float64", "seed": 7, "device": "cpu", "max_num_epochs": 2},
        **{"scheduler": "ReduceLROnPlateau", "energy_key": "REF_energy", "forces_key": "REF_forces"},
        **{"error_table": "PerAtomMAE", "work_dir": ".", "plot": "False"},
    }
    options_given = ["--ema", "--amsgrad", *(f"--{name}={value}" for name, value in given.items())]
    command = [sys.executable, "-m", "mace.cli.run_train", *options_given]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    (log,) = Path("results").glob("own*_train.txt")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    theirs = [line for line in lines if line["mode"] == "eval" and line["epoch"] is not None]

    config = mace_config(
        Path(),
        data={
            **{"train": "train.xyz", "validation_file": "valid.xyz", "validation": {}},
            **{"energy_key": "REF_energy", "forces_key": "REF_forces"},
        },
        target={"reference_energies": e0s},
        training={"epochs": 2, "energy_stage": 1.0, "stress": False},
        search={**shared_options, "scheduler": "plateau"},
    )
    run = start(config, prepare(config, Path("home")), seed=7)
    ours = list(run)
    assert len(ours) == len(theirs) == 2
    for record, line in zip(ours, theirs, strict=True):
        assert record.val_energy_mae_per_atom == pytest.approx(line["mae_e_per_atom"], rel=1e-8)
        assert record.val_forces_mae == pytest.approx(line["mae_f"], rel=1e-8)
    assert run._epochs._validation_loss == pytest.approx(theirs[-1]["loss"], rel=1e-8)


@pytest.fixture(scope="module")
def foundation(data: tuple[Config, Dataset], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MacePotential]:
    """A small model of copper and gold, as mace writes it, and the potential that it is."""
    config, dataset = data
    run = start(config.updated({"training": {"epochs": 6}}), dataset, lr=0.02)
    list(run)
    file = tmp_path_factory.mktemp("foundation") / "small.model"
    torch.save(run.potential().to_mace(), file)
    return file, run.potential()


def test_fine_tuning_begins_at_the_foundation_model(foundation: tuple[Path, MacePotential], tmp_path: Path) -> None:
    """On copper alone, with energies of another zero."""
    file, potential = foundation
    images = alloys(12, 5, ("Cu", "Cu"))
    for atoms in images:
        results = {"energy": atoms.get_potential_energy() - 1000.0 * len(atoms), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
    groups: dict[str, Any] = {
        "": {"backend": "mace", "device": "cpu", "backend_options": {"foundation_model": str(file)}},
        "data": {"train": str(tmp_path / "train.traj"), "validation": {"fraction": 0.25}},
        "training": {"epochs": 2, "precision": "float64"},
    }
    ase.io.write(tmp_path / "train.traj", images)
    config = load_config(None, groups)
    dataset = prepare(config, tmp_path / "home")
    for precision, tolerance in (("float64", 1e-9), ("float32", 1e-3)):
        model, arguments = Foundation(str(file)).start([29], precision)  # type: ignore[arg-type]
        copper = MacePotential(model, arguments, precision, potential.references, "", True, (29,))  # type: ignore[arg-type]
        expected = potential.predict(images)
        found = copper.predict(images)
        assert found.energies == pytest.approx(expected.energies, abs=tolerance)
        assert np.concatenate(found.forces or []) == pytest.approx(np.concatenate(expected.forces or []), abs=tolerance)
    run = start(config, dataset, lr=1e-4, batch_size=4)
    first, *_ = list(run)
    assert run.key["foundation model"] == Foundation(str(file)).digest
    scratch = mace_config(tmp_path, data=groups["data"], training={"epochs": 1})
    (other,) = list(start(scratch, dataset))
    assert first.train_loss < other.train_loss
    run.potential().save(tmp_path / "tuned")
    assert json.loads((tmp_path / "tuned" / "potential.json").read_text())["foundation"] == run.key["foundation model"]


def test_a_foundation_model_that_cannot_be_used_is_refused(
    foundation: tuple[Path, MacePotential], tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"foundation_model: .*none.model: No such file or directory"):
        Foundation(str(tmp_path / "none.model"))
    (tmp_path / "text.model").write_text("no model")
    with pytest.raises(BadInput, match=r"foundation_model: .*text.model: not a model of mace \("):
        Foundation(str(tmp_path / "text.model"))
    with pytest.raises(BadInput, match=r"small.model: does not have Ag, but Cu, Au"):
        Foundation(str(foundation[0])).start([29, 47], "float64")
