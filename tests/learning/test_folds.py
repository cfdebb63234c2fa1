"""Cross-validation: networks of folds that do not see what they are validated on, and one of all that is kept."""

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.backends.native import NativeBackend, NativeRun
from bdqm_tune.config.config import Objective, load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.checkpoint import read_checkpoint, write_checkpoint
from bdqm_tune.learning.dataset import Dataset, prepare, summary
from bdqm_tune.learning.fit import Diverged
from bdqm_tune.learning.fold_epochs import FoldEpochs
from bdqm_tune.learning.network_potential import NetworkPotential
from tests.learning.conftest import rattled_alloys, small_config
from tests.learning.test_fit import numbers

FOLDS = {"validation": {"folds": 3}}
OPTIONS = {"num_nodes": 6, "num_layers": 2, "batch_size": 4, "lr": 0.01, "initialization": "xavier"}


def folded(images: list[Atoms], folder: Path, **groups: dict[str, Any]) -> Dataset:
    folder.mkdir(exist_ok=True)
    ase.io.write(folder / "train.traj", images)
    data = {"train": str(folder / "train.traj"), **FOLDS, **groups.pop("data", {})}
    config = small_config(folder / "train.traj", **groups, data=data, **{"": {"device": "cpu"}})
    return prepare(config, folder / "home")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """23 alloys with energies, in three folds."""
    return folded(rattled_alloys(23), tmp_path_factory.mktemp("folds"))


@pytest.fixture(scope="module")
def force_data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """14 alloys with forces, one of them without."""
    images = rattled_alloys(14)
    images[3].calc = SinglePointCalculator(images[3], energy=images[3].get_potential_energy())
    return folded(images, tmp_path_factory.mktemp("forces"), training={"forces": "partial"})


def start(dataset: Dataset, seed: int = 5, training: dict[str, Any] | None = None, **options: Any) -> NativeRun:
    groups = {"training": {"epochs": 6, "early_stopping": None, "precision": "float64"} | (training or {})}
    config = dataset.config.updated(groups)
    return NativeBackend(config, dataset.configured(config)).start(Hyperparameters(**(OPTIONS | options)), seed)


def epochs_of(run: NativeRun) -> FoldEpochs:
    epochs = run._fit._epochs
    assert isinstance(epochs, FoldEpochs)
    return epochs


def test_each_structure_is_held_out_once_and_trained_on_by_all_other_networks(data: Dataset) -> None:
    assert len(data.folds) == 3
    held_out = np.concatenate([fold.validation.indices for fold in data.folds])
    assert sorted(held_out.tolist()) == list(range(23))
    for fold in data.folds:
        both = np.concatenate([fold.train.indices, fold.validation.indices])
        assert sorted(both.tolist()) == list(range(23))
        assert fold.train.described is data.train.described, "features are computed once"
    for split in (data.train, data.validation):
        assert split.indices.tolist() == list(range(23))


def test_counts_digests_and_baselines_say_what_validation_is(data: Dataset, tmp_path: Path) -> None:
    found = summary(data)
    assert (found["training_structures"], found["validation_structures"], found["validation_folds"]) == (23, 23, 3)
    errors = []
    for fold in data.folds:  # by reference energies that are fitted without the fold
        structures = fold.validation.structures
        errors += np.abs(structures.energies - fold.references.of(structures.atoms)).tolist()
    assert found["validation_reference_energy_mae"] == pytest.approx(np.mean(errors))
    assert data.validation.describe()["folds"] == 3
    digests = {
        folded(rattled_alloys(23), tmp_path, data={"validation": options}).digest
        for options in ({"folds": 3}, {"folds": 4}, {"folds": 3, "seed": 1}, {"fraction": 0.3})
    }
    assert len(digests) == 4, "who is in which fold is part of it"
    assert data.digest in digests


def test_copies_are_in_one_fold(tmp_path: Path) -> None:
    images = rattled_alloys(12)
    dataset = folded([*images, *images[:3]], tmp_path)
    for fold in dataset.folds:
        held_out = set(fold.validation.indices.tolist())
        assert [i in held_out for i in range(3)] == [12 + i in held_out for i in range(3)]


@pytest.mark.parametrize("engine", [{}, {"network": "per_element"}])
def test_what_is_held_out_does_not_change_the_network_that_is_validated_on_it(
    tmp_path: Path, engine: dict[str, str]
) -> None:
    images = rattled_alloys(15)
    one = folded(images, tmp_path / "one")
    changed = [atoms.copy() for atoms in images]
    for i, (atoms, before) in enumerate(zip(changed, images, strict=True)):
        odd = i in one.folds[0].validation.indices
        if odd:
            atoms.positions *= 1.1
            atoms.cell *= 1.1
        atoms.calc = SinglePointCalculator(atoms, energy=before.get_potential_energy() + (50.0 + 3 * i if odd else 0))
    other = folded(changed, tmp_path / "other")
    assert other.folds[0].validation.indices.tolist() == one.folds[0].validation.indices.tolist()
    states = []
    for dataset in (one, other):
        run = start(dataset, **engine)
        list(run)
        epochs = epochs_of(run)
        states.append((dataset.folds, [member.state() for member in (epochs._all, *epochs._of_folds)]))
    (folds, members), (other_folds, other_members) = states
    assert folds[0].references == other_folds[0].references
    assert (folds[0].scale, folds[0].scaler.key) == (other_folds[0].scale, other_folds[0].scaler.key)
    weights = [name for name in members[1] if not name.startswith("kept")]  # kept at an epoch that all folds choose
    assert all(torch.equal(members[1][name], other_members[1][name]) for name in weights)
    for i in (0, 2, 3):
        assert not all(torch.equal(members[i][name], other_members[i][name]) for name in weights)
    assert folds[1].scaler.key != other_folds[1].scaler.key


@pytest.mark.parametrize("options", [{}, {"network": "per_element"}, {"scheduler": "plateau", "step_size": 1}])
def test_the_model_is_that_of_a_training_on_all_structures_at_the_epoch_that_the_folds_choose(
    data: Dataset, options: dict[str, Any]
) -> None:
    run = start(data, training={"epochs": 12}, lr=0.05, **({"scheduler": "none"} | options))
    records = list(run)
    best = run.best
    assert best is not None
    assert best == min(records, key=lambda record: record.val_energy_mae)
    if "scheduler" in options:
        assert len({record.lr for record in records}) > 1
        for epochs in epochs_of(run)._of_folds:
            assert epochs.optimizer.param_groups[0]["lr"] == records[-1].lr, "all networks have the same schedule"
        return
    alone = start(dataset_without_folds(data), training={"epochs": 12}, lr=0.05, **({"scheduler": "none"} | options))
    list(islice(alone, best.epoch))
    alone._fit._epochs.keep()
    for a, b in zip(run.potential().network.parameters(), alone.potential().network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert run.potential().known_elements == (29, 79)


def dataset_without_folds(data: Dataset) -> Dataset:
    from dataclasses import replace

    return replace(data, folds=())


@pytest.mark.parametrize("objective", ["val_energy_mae", "val_energy_forces", "val_forces_mae"])
def test_errors_are_those_of_the_networks_without_the_fold(force_data: Dataset, objective: Objective) -> None:
    config = force_data.config.updated(
        {"target": {"objective": objective}, "training": {"epochs": 5, "precision": "float64", "smoothing": 1}}
    )
    run = NativeBackend(config, force_data).start(Hyperparameters(**OPTIONS), 1)
    list(run)
    best = run.best
    assert best is not None
    energies, per_atom, forces = [], [], []
    for fold, network in zip(force_data.folds, epochs_of(run).kept_networks, strict=True):
        structures = fold.validation.structures
        predicted = NetworkPotential.from_dataset(fold, Hyperparameters(**OPTIONS), network).predict(structures.atoms)
        errors = np.abs(predicted.energies - structures.energies)
        energies += errors.tolist()
        per_atom += (errors / structures.n_atoms).tolist()
        assert predicted.forces is not None
        assert structures.forces is not None
        for found, true in zip(predicted.forces, structures.forces, strict=True):
            forces += np.abs(found - true)[~np.isnan(true)].tolist()
    assert len(energies) == 14
    assert best.val_energy_mae == pytest.approx(np.mean(energies), rel=1e-8)
    assert best.val_energy_mae_per_atom == pytest.approx(np.mean(per_atom), rel=1e-8)
    assert best.val_forces_mae == pytest.approx(np.mean(forces), rel=1e-6)
    held_out = run.held_out()
    assert np.mean(held_out.by_group(objective)) == pytest.approx(best.value(objective), rel=1e-6)
    order = np.argsort(np.concatenate([fold.validation.indices for fold in force_data.folds]))
    assert np.abs(held_out.energies) == pytest.approx(np.array(energies)[order], rel=1e-6)


def test_without_folds_the_errors_are_those_of_the_validation_split(dataset: Dataset) -> None:
    run = start(dataset, training={"smoothing": 1})
    list(run)
    assert run.best is not None
    assert len(run.held_out().by_group("val_energy_mae")) == len(dataset.validation.structures)
    for name in ("val_energy_mae", "val_energy_mae_per_atom"):
        assert np.mean(run.held_out().by_group(name)) == pytest.approx(run.best.value(name), rel=1e-8)


def test_many_structures_are_grouped_and_the_mean_stays(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdqm_tune.learning.held_out.MOST_GROUPS", 4)
    run = start(data)
    list(run)
    assert run.best is not None
    groups = run.held_out().by_group("val_energy_mae")
    assert len(groups) == 4
    assert np.mean(groups) == pytest.approx(run.best.val_energy_mae, rel=1e-8)


def test_training_errors_are_means_over_all_networks(data: Dataset) -> None:
    (record,) = start(data, training={"epochs": 1}, lr=1e-13)
    by_network = []
    for part in (data, *data.folds):
        epoch = next(iter(start(dataset_without_folds(part), training={"epochs": 1}, lr=1e-13)))
        by_network.append((len(part.train.structures), epoch.train_energy_mae))
    total = sum(n * error for n, error in by_network) / sum(n for n, _ in by_network)
    assert record.train_energy_mae == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize(
    "options",
    [{}, {"dropout": True, "batchnorm": True, "scheduler": "plateau", "step_size": 1}, {"optimizer": "lbfgs"}],
)
def test_a_training_resumes_bit_for_bit(data: Dataset, tmp_path: Path, options: dict[str, Any]) -> None:
    undisturbed, left, resumed = (start(data, **options) for _ in range(3))
    list(undisturbed)
    list(islice(left, 3))
    checkpoint = left.checkpoint()
    assert checkpoint is not None
    list(left)
    write_checkpoint(tmp_path / "checkpoint", checkpoint, left.key)
    resumed.restore(read_checkpoint(tmp_path / "checkpoint", resumed.key))
    list(resumed)
    for run in (left, resumed):
        assert numbers(run.records) == numbers(undisturbed.records)
        for a, b in zip(
            run.potential().network.parameters(), undisturbed.potential().network.parameters(), strict=True
        ):
            assert torch.equal(a, b)
        assert run.held_out().by_group("val_energy_mae") == undisturbed.held_out().by_group("val_energy_mae")


@pytest.mark.parametrize("which", [0, 1, 3])
def test_a_network_that_diverges_ends_all(data: Dataset, which: int) -> None:
    run = start(data)
    next(iter(run))
    epochs = epochs_of(run)
    members: list[Any] = [epochs._all, *epochs._of_folds]
    members[which]._state.p[:] = math.nan
    with pytest.raises(Diverged):
        next(iter(run))


def test_an_element_of_one_fold_is_named(tmp_path: Path, alloys: Callable[..., list[Atoms]]) -> None:
    images = alloys(9)
    energy = images[4].get_potential_energy()
    images[4].symbols[0] = "Pt"
    images[4].calc = SinglePointCalculator(images[4], energy=energy)
    dataset = folded(images, tmp_path)
    (warning,) = [text for text in dataset.warnings if "Pt" in text]
    assert warning.startswith("Pt in one fold only: ")
    run = start(dataset)
    assert all(math.isfinite(record.val_energy_mae) for record in run)


def test_what_goes_with_no_folds_is_refused(tmp_path: Path) -> None:
    folds = {"validation": {"folds": 5}}
    with pytest.raises(BadInput, match=r"validation\.folds: 5 .*validation_file is a validation split of its own"):
        load_config(None, {"data": {**folds, "validation_file": "held.traj"}})
    with pytest.raises(BadInput, match=r"data\.validation\.folds: backend amptorch trains one network .* got 5 folds"):
        load_config(None, {"data": folds, "": {"backend": "amptorch"}})
    for n in (1, 21):
        with pytest.raises(BadInput, match=r"data\.validation\.folds: .*, got"):
            load_config(None, {"data": {"validation": {"folds": n}}})
    with pytest.raises(BadInput, match=r"3 folds need at least as many structures that differ; got 2"):
        folded(rattled_alloys(2), tmp_path)
