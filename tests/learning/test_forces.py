"""Forces of a batch: those of dense derivatives, of energy differences, and with memory for pairs only."""

from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from bdqm_tune.config.config import Config, Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.batches import SplitTensors, split_tensors
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.learning.fit import Fit
from bdqm_tune.learning.memory_budget import MemoryBudget
from bdqm_tune.learning.metrics import force_deviations
from bdqm_tune.learning.networks import make_network

Alloys = Callable[..., list[Atoms]]
ConfigFor = Callable[..., Config]
CHOSEN = torch.tensor([3, 0, 5])


def prepared(images: list[Atoms], config_for: ConfigFor, folder: Path, **descriptor: object) -> Dataset:
    ase.io.write(folder / "train.traj", images)
    config = config_for(folder / "train.traj", training={"forces": True}, descriptor=descriptor)
    return prepare(config, folder / "home")


@pytest.fixture(scope="module")
def force_data(alloys: Alloys, config_for: ConfigFor, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepared(alloys(12), config_for, tmp_path_factory.mktemp("forces"))


def tensors(data: Dataset, dtype: torch.dtype = torch.float64) -> SplitTensors:
    return split_tensors(data, data.train, torch.device("cpu"), dtype, with_forces=True)


def test_forces_are_those_of_the_dense_derivatives(force_data: Dataset) -> None:
    batch = tensors(force_data).batch(CHOSEN)
    assert batch.forces is not None
    gradient = torch.randn(batch.features.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, place = [], 0
    for i in CHOSEN.tolist():
        atoms = force_data.train.structures.atoms[i]
        features = force_data.descriptor.compute(atoms)
        own = force_data.scaler.by_features(gradient[place : place + len(atoms)].numpy(), features, atoms.numbers)
        expected.append(-np.einsum("if,ifjx->jx", own, force_data.descriptor.derivatives(atoms)))
        place += len(atoms)
    np.testing.assert_allclose(batch.forces.forces(gradient), np.concatenate(expected), rtol=1e-10, atol=1e-10)


def test_labels_are_the_forces_in_units_of_the_energy_scale(force_data: Dataset) -> None:
    batch, structures = tensors(force_data).batch(CHOSEN), force_data.train.structures
    assert batch.forces is not None
    assert structures.forces is not None
    expected = np.concatenate([structures.forces[i] for i in CHOSEN.tolist()])
    np.testing.assert_allclose(batch.forces.targets * force_data.scale, expected, rtol=1e-12)


@pytest.mark.parametrize("scaling", ["log", "standardise", "normalise"])
@pytest.mark.parametrize("per_element", [False, True])
def test_forces_of_a_batch_are_minus_the_differences_of_its_energies(
    alloys: Alloys, config_for: ConfigFor, tmp_path: Path, scaling: str, per_element: bool
) -> None:
    data = prepared(alloys(6), config_for, tmp_path, scaling=scaling, scaling_per_element=per_element)
    torch.manual_seed(1)
    options = Hyperparameters(
        hidden_layers=[6, 4], initialization="xavier", network="per_element" if per_element else "single"
    )
    network = make_network(data.descriptor.n_features, options, [29, 79]).double()
    split = tensors(data)
    batch = split.batch(torch.tensor([1]), by_element=True)
    assert batch.forces is not None
    features = batch.features.requires_grad_()
    (gradient,) = torch.autograd.grad(network(features, batch.numbers).sum(), features)
    forces = batch.forces.forces(gradient)
    atoms, step = data.train.structures.atoms[1].copy(), 1e-4

    def energy() -> float:
        inputs = torch.as_tensor(data.scaler(data.descriptor.compute(atoms), atoms.numbers))
        with torch.no_grad():
            return float(network(inputs, torch.as_tensor(atoms.numbers)).sum())

    for k, axis in [(0, 0), (1, 1), (2, 2), (3, 0)]:
        atoms.positions[k, axis] += step
        ahead = energy()
        atoms.positions[k, axis] -= 2 * step
        behind = energy()
        atoms.positions[k, axis] += step
        assert float(forces[k, axis]) == pytest.approx(-(ahead - behind) / (2 * step), rel=1e-5, abs=1e-6)


def test_derivatives_left_on_the_disk_give_the_same(force_data: Dataset) -> None:
    loaded = tensors(force_data, torch.float32).batch(CHOSEN)
    read = split_tensors(force_data, force_data.train, torch.device("cpu"), torch.float32, True, MemoryBudget(0)).batch(
        CHOSEN
    )
    assert loaded.forces is not None
    assert read.forces is not None
    for name in ("centre", "atom", "values", "targets"):
        assert torch.equal(getattr(loaded.forces, name), getattr(read.forces, name))


def test_memory_grows_with_the_pairs_not_with_the_square_of_the_atoms(
    alloys: Alloys, config_for: ConfigFor, tmp_path: Path
) -> None:
    entries = []
    for repeats in (3, 6, 12):
        folder = tmp_path / str(repeats)
        folder.mkdir()
        images = []
        for image in alloys(2):
            copy = bulk("Cu", cubic=True).repeat((3, 3, repeats))
            copy.positions += 0.01 * image.positions[0]
            copy.calc = image.calc
            image.calc.atoms = copy.copy()
            image.calc.results["forces"] = np.zeros((len(copy), 3))
            images.append(copy)
        batch = tensors(prepared(images, config_for, folder)).batch(torch.tensor([0]))
        assert batch.forces is not None
        entries.append(len(batch.forces.values))
    assert entries[1] == 2 * entries[0]
    assert entries[2] == 4 * entries[0]


def test_validation_holds_few_derivatives_at_once(force_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    split = tensors(force_data)
    assert split.forces is not None
    monkeypatch.setattr("bdqm_tune.learning.batches.NUMBERS_AT_ONCE", 2.5 * split.forces.derivatives.numbers_an_image)
    assert [len(batch.targets) for batch in split.in_order()] == [2, 2, 2, 2, 1]


def test_data_prepared_without_derivatives_cannot_train_forces(dataset: Dataset) -> None:
    with pytest.raises(BadInput, match="prepared without derivatives"):
        tensors(dataset)


def test_images_without_forces_are_refused_where_forces_are_trained(
    alloys: Alloys, config_for: ConfigFor, tmp_path: Path
) -> None:
    images = alloys(4)
    del images[2].calc.results["forces"]
    with pytest.raises(BadInput, match=r"train\.traj, image 2: has no forces, as 1 of 4 images; .*forces: partial"):
        prepared(images, config_for, tmp_path)
    assert not (tmp_path / "home").exists()


def without_some_forces(alloys: Alloys, n: int, missing: list[int]) -> list[Atoms]:
    images = alloys(n)
    for i in missing:
        del images[i].calc.results["forces"]
    return images


def test_images_without_forces_count_with_their_energies_alone(
    alloys: Alloys, config_for: ConfigFor, tmp_path: Path
) -> None:
    images = without_some_forces(alloys, 16, [0, 3, 4, 9, 12])
    ase.io.write(tmp_path / "train.traj", images)
    config = config_for(tmp_path / "train.traj", training={"forces": "partial", "precision": "float64"})
    data = prepare(config, tmp_path / "home")
    train, validation = data.train.structures, data.validation.structures
    splits = [
        split_tensors(data, split, torch.device("cpu"), torch.float64, True) for split in (data.train, data.validation)
    ]
    options = Hyperparameters(batch_size=16, initialization="zero", force_coefficient=0.3, num_layers=2, num_nodes=4)
    # Before the first step the network is 0: the errors are the labels themselves, in one batch of all.
    labels = {i: images[i].calc.results.get("forces") for i in range(16)}
    known = [
        np.concatenate([f for i in part.images if (f := labels[int(i)]) is not None]) for part in (train, validation)
    ]
    targets = data.scaled_targets(data.train) / train.n_atoms
    for compiled in (False, True):
        (record,) = list(Fit(options, Training(epochs=1, forces="partial"), *splits, data.scale, 0, compiled=compiled))
        assert record.train_forces_mae == pytest.approx(np.abs(known[0]).mean())
        expected = np.abs(targets).mean() + 0.3 * np.abs(known[0]).mean() / data.scale
        assert record.train_loss == pytest.approx(expected)
    # Of a network that is not 0, every batch by both trainers; some batches have no forces at all.
    options = Hyperparameters(batch_size=2, initialization="xavier", force_coefficient=0.3, num_layers=2, num_nodes=4)
    for loss in ("mae", "mse", "huber"):
        training = Training(epochs=3, forces="partial", loss=loss, huber_delta=0.1)
        ours, theirs = (
            list(Fit(options, training, *splits, data.scale, 0, compiled=compiled)) for compiled in (True, False)
        )
        for one, other in zip(ours, theirs, strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, rel=1e-6)
            assert one.val_forces_mae == pytest.approx(other.val_forces_mae, rel=1e-6)
    predicted = [np.zeros((len(atoms), 3)) for atoms in validation.atoms]
    assert validation.forces is not None
    found = force_deviations(predicted, validation.forces).metrics()
    assert found["forces_mae"] == pytest.approx(np.abs(known[1]).mean())


def test_what_has_no_forces_at_all_is_said(alloys: Alloys, config_for: ConfigFor, tmp_path: Path) -> None:
    partial = {"training": {"forces": "partial"}}
    ase.io.write(tmp_path / "none.traj", without_some_forces(alloys, 8, list(range(8))))
    with pytest.raises(BadInput, match=r"none\.traj: training\.forces: partial needs forces .* no image has any"):
        prepare(config_for(tmp_path / "none.traj", **partial), tmp_path / "home")
    ase.io.write(tmp_path / "train.traj", alloys(12))
    plain = prepare(config_for(tmp_path / "train.traj"), tmp_path / "home")
    held_out = plain.validation.structures.images.tolist()
    ase.io.write(tmp_path / "train.traj", without_some_forces(alloys, 12, held_out))
    ase.io.write(tmp_path / "test.traj", without_some_forces(lambda n: alloys(n, seed=7), 4, [2]))
    given = {**partial, "data": {"test": str(tmp_path / "test.traj")}}
    by_energies = {**given, "target": {"objective": "val_energy_mae_per_atom"}}
    data = prepare(config_for(tmp_path / "train.traj", **by_energies), tmp_path / "home")
    missing, no_validation = data.warnings
    assert "test.traj: 1 of 4 test structures have no forces, image 2 the first: test_forces_mae" in missing
    assert "no structure of the validation split has forces: there will be no val_forces_mae" in no_validation
    with pytest.raises(BadInput, match=r"no structure of the validation split has forces; another data\.validation"):
        prepare(config_for(tmp_path / "train.traj", **given), tmp_path / "home")


def test_the_digest_of_images_without_forces_stays(alloys: Alloys, config_for: ConfigFor, tmp_path: Path) -> None:
    """Of studies of energies, which such files were good for before."""
    images = without_some_forces(alloys, 8, [1])
    ase.io.write(tmp_path / "some.traj", images)
    for atoms in images:
        atoms.calc.results.pop("forces", None)
    ase.io.write(tmp_path / "none.traj", images)
    digests = {prepare(config_for(tmp_path / name), tmp_path / "home").digest for name in ("some.traj", "none.traj")}
    assert len(digests) == 1
    partial = prepare(config_for(tmp_path / "some.traj", training={"forces": "partial"}), tmp_path / "home")
    assert partial.digest not in digests
