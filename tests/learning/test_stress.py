"""The stress in the loss: by each trainer, against differences of energies, and where some structures have none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from bdqm_tune.backends import make_backend
from bdqm_tune.config.config import Config, Training, load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.batches import SplitTensors, split_tensors
from bdqm_tune.learning.compiled import CompiledEpochs
from bdqm_tune.learning.dataset import Dataset, Split, prepare, summary
from bdqm_tune.learning.fit import EpochRecord, Fit
from bdqm_tune.learning.memory_budget import MemoryBudget
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import make_network
from bdqm_tune.structures import digest
from tests.strained_alloys import labelled, strained_alloys

ConfigFor = Callable[..., Config]
CPU = torch.device("cpu")
CHOSEN = torch.tensor([3, 0, 5])
VOIGT = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
SMALL = {"hidden_layers": [7, 5], "initialization": "xavier", "batch_size": 4, "lr": 0.01}


def without_stress(images: list[Atoms], missing: list[int]) -> list[Atoms]:
    for i in missing:
        del images[i].calc.results["stress"]
    return images


def prepared(images: list[Atoms], config_for: ConfigFor, folder: Path, **groups: Any) -> Dataset:
    ase.io.write(folder / "train.traj", images)
    groups["training"] = {"forces": True, **groups.get("training", {})}
    return prepare(config_for(folder / "train.traj", **groups), folder / "home")


@pytest.fixture(scope="module")
def stress_data(config_for: ConfigFor, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepared(strained_alloys(16), config_for, tmp_path_factory.mktemp("stress"))


@pytest.fixture(scope="module")
def partial_data(config_for: ConfigFor, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Of 20 structures six have no stress; two of these are molecules."""
    images = without_stress(strained_alloys(18), [0, 3, 4, 9])
    molecules = [labelled(molecule("N2"), stress=False), labelled(molecule("CO"), stress=False)]
    training = {"stress": "partial"}
    return prepared([*images, *molecules], config_for, tmp_path_factory.mktemp("partial"), training=training)


def tensors(
    data: Dataset, split: Split, dtype: torch.dtype = torch.float64, room: MemoryBudget | None = None
) -> SplitTensors:
    return split_tensors(data, split, CPU, dtype, True, room, True)


def fit(data: Dataset, options: dict[str, Any], training: dict[str, Any], compiled: bool | None = None) -> Fit:
    splits = tensors(data, data.train), tensors(data, data.validation)
    trained = Training(**{"epochs": 4, "early_stopping": None, **training})
    return Fit(Hyperparameters(**SMALL | options), trained, *splits, data.scale, 0, compiled=compiled)


def test_the_stress_of_a_batch_is_that_of_the_potential(stress_data: Dataset) -> None:
    torch.manual_seed(1)
    options = Hyperparameters(hidden_layers=[6, 4], initialization="xavier")
    network = make_network(stress_data.descriptor.n_features, options, []).double()
    batch = tensors(stress_data, stress_data.train).batch(CHOSEN)
    assert batch.stress is not None
    features = batch.features.requires_grad_()
    (gradient,) = torch.autograd.grad(network(features, None).sum(), features)
    found = batch.stress.virials(gradient)
    potential = NetworkPotential.from_dataset(stress_data, options, network)
    for place, i in enumerate(CHOSEN.tolist()):
        atoms = stress_data.train.structures.atoms[i]
        expected = potential.stress(atoms) * atoms.get_volume() / len(atoms)
        np.testing.assert_allclose(found[place] * stress_data.scale, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("scaling", ["whiten", "log", "standardise"])
@pytest.mark.parametrize("per_element", [False, True])
def test_the_stress_is_the_difference_of_energies_under_a_strain(
    config_for: ConfigFor, tmp_path: Path, scaling: str, per_element: bool
) -> None:
    descriptor = {"scaling": scaling, "scaling_per_element": per_element}
    data = prepared(strained_alloys(6), config_for, tmp_path, descriptor=descriptor)
    torch.manual_seed(2)
    options = Hyperparameters(hidden_layers=[6, 4], initialization="xavier", activation="tanh")
    network = make_network(data.descriptor.n_features, options, []).double()
    batch, step = tensors(data, data.train).batch(torch.tensor([1])), 1e-5
    assert batch.stress is not None
    features = batch.features.requires_grad_()
    (gradient,) = torch.autograd.grad(network(features, None).sum(), features)
    (found,) = batch.stress.virials(gradient)

    def energy(strain: np.ndarray) -> float:
        atoms = data.train.structures.atoms[1].copy()
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        inputs = torch.as_tensor(data.scaler(data.descriptor.compute(atoms), atoms.numbers))
        with torch.no_grad():
            return float(network(inputs, None).sum()) / len(atoms)

    for component, (a, b) in enumerate(VOIGT):
        strain = np.zeros((3, 3))
        strain[a, b] += step / 2
        strain[b, a] += step / 2
        assert float(found[component]) == pytest.approx((energy(strain) - energy(-strain)) / (2 * step), rel=1e-4)


@pytest.mark.parametrize("loss", ["mae", "mse"])
@pytest.mark.parametrize("compiled", [True, False])
def test_the_loss_is_that_of_energies_forces_and_stress_times_volume_per_atom(
    partial_data: Dataset, loss: str, compiled: bool
) -> None:
    # The network gives 0 at first, and such a small learning rate leaves it there.
    options = {"initialization": "zero", "lr": 1e-13, "force_coefficient": 0.3, "batch_size": 64}
    options |= {"stress_coefficient": 0.7}
    (record,) = fit(partial_data, options, {"epochs": 1, "loss": loss}, compiled)
    structures, power = partial_data.train.structures, {"mae": 1, "mse": 2}[loss]
    assert structures.forces is not None
    known = ~np.isnan(structures.stresses).any(axis=1)
    assert 0 < known.sum() < len(known)
    volumes = np.array([atoms.cell.volume for atoms in structures.atoms]) / structures.n_atoms
    virials = (structures.stresses * volumes[:, None])[known] / partial_data.scale
    targets = partial_data.scaled_targets(partial_data.train) / structures.n_atoms
    forces = np.concatenate(structures.forces) / partial_data.scale
    parts = [np.mean(np.abs(part) ** power) for part in (targets, forces, virials)]
    assert record.train_loss == pytest.approx(parts[0] + 0.3 * parts[1] + 0.7 * parts[2], rel=1e-9)
    assert record.train_stress_mae == pytest.approx(np.abs(structures.stresses[known]).mean(), rel=1e-9)
    held_out = partial_data.validation.structures.stresses
    assert record.val_stress_mae == pytest.approx(np.nanmean(np.abs(held_out)), rel=1e-9)


def test_the_gradient_is_that_of_the_loss_by_the_weights(partial_data: Dataset) -> None:
    data, n = tensors(partial_data, partial_data.train), len(partial_data.train.structures)
    options = Hyperparameters(**SMALL | {"stress_coefficient": 3.0, "activation": "tanh", "batchnorm": True})
    epochs = CompiledEpochs(options, Training(loss="mse"), data, data, 0, 1.0)
    p = epochs._state.p
    start = p.copy()

    def loss(weights: np.ndarray) -> float:
        p[:] = weights
        return epochs._epoch(epochs._train, np.arange(n), np.array([n]), True, 0.0, 7)[0] / n

    loss(start)
    gradient = epochs._state.gradient.copy()
    for i in np.random.default_rng(0).choice(len(p), 40, replace=False):
        step = np.zeros_like(p)
        step[i] = 1e-6
        numeric = (loss(start + step) - loss(start - step)) / 2e-6
        assert gradient[i] == pytest.approx(numeric, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("loss", ["mae", "mse", "huber"])
@pytest.mark.parametrize("options", [{}, {"batchnorm": True}, {"batch_size": 1}, {"batch_size": 64}])
def test_compiled_epochs_are_those_of_torch(partial_data: Dataset, loss: str, options: dict[str, Any]) -> None:
    """In batches of 1 some have no stress at all."""
    training = {"loss": loss, "huber_delta": 0.1}
    ours, theirs = (list(fit(partial_data, options, training, compiled)) for compiled in (True, False))
    for one, other in zip(ours, theirs, strict=True):
        for name, value in other.metrics().items():
            if name != "epoch_seconds":
                assert one.metrics()[name] == pytest.approx(value, rel=1e-6), name


def test_a_stress_counts_without_forces(config_for: ConfigFor, tmp_path: Path) -> None:
    images = strained_alloys(12)
    for i in (1, 2, 6, 7):
        del images[i].calc.results["forces"]
    data = prepared(images, config_for, tmp_path, training={"forces": "partial"})
    assert data.config.training.stress is True
    for size in (1, 4):
        ours, theirs = (list(fit(data, {"batch_size": size}, {}, compiled)) for compiled in (True, False))
        for one, other in zip(ours, theirs, strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, rel=1e-6)
            assert one.train_stress_mae == pytest.approx(other.train_stress_mae, rel=1e-6)


def test_derivatives_left_on_the_disk_give_the_same(partial_data: Dataset) -> None:
    loaded = tensors(partial_data, partial_data.train, torch.float32)
    on_disk = tensors(partial_data, partial_data.train, torch.float32, MemoryBudget(0))
    assert loaded.loaded
    assert not on_disk.loaded
    kept, read = (split.batch(CHOSEN).stress for split in (loaded, on_disk))
    assert kept is not None
    assert read is not None
    for name in ("centre", "owner", "values", "targets", "known", "density"):
        assert torch.equal(getattr(kept, name), getattr(read, name)), name


def test_what_is_scored_is_the_stress_of_the_potential(partial_data: Dataset) -> None:
    training = fit(partial_data, {"network": "per_element"}, {})
    list(training)
    held_out, options = partial_data.validation.structures, Hyperparameters(**SMALL | {"network": "per_element"})
    potential = NetworkPotential.from_dataset(partial_data, options, training.best_network)
    known = np.flatnonzero(~np.isnan(held_out.stresses).any(axis=1))
    errors = [np.abs(potential.stress(held_out.atoms[i]) - held_out.stresses[i]) for i in known]
    assert training.best is not None
    assert np.mean(errors) == pytest.approx(training.best.val_stress_mae, rel=1e-8)


def trained(data: Dataset, config: Config, seed: int) -> tuple[list[EpochRecord], NetworkPotential]:
    options = Hyperparameters(num_layers=2, num_nodes=16, stress_coefficient=1.0)
    run = make_backend(config, data.configured(config)).start(options, seed)
    return list(run), run.potential()


def test_training_on_the_stress_gives_a_better_stress(config_for: ConfigFor, tmp_path: Path) -> None:
    """Of strained structures that were held out, beside training on energies and forces alone."""
    descriptor = {"orders": [0, 1, 2, 3], "sigmas": [0.4, 0.6, 0.9, 1.3]}
    data = prepared(strained_alloys(60), config_for, tmp_path, descriptor=descriptor, **{"": {"device": "cpu"}})
    assert data.config.training.stress is True
    held_out = strained_alloys(40, seed=9)
    errors = {}
    for stress in (True, False):
        config = data.config.updated({"training": {"stress": stress}})
        found = [trained(data, config, seed) for seed in range(2)]
        potentials = [potential for _, potential in found]
        errors[stress] = np.mean(
            [np.abs(potential.stress(atoms) - atoms.get_stress()) for potential in potentials for atoms in held_out]
        )
        assert all((record.val_stress_mae is not None) is stress for records, _ in found for record in records)
    assert errors[True] < 0.5 * errors[False]


def test_the_stress_is_trained_where_every_periodic_structure_has_one(config_for: ConfigFor, tmp_path: Path) -> None:
    def decided(images: list[Atoms], name: str, **training: Any) -> Dataset:
        folder = tmp_path / name
        folder.mkdir()
        return prepared(images, config_for, folder, training=training)

    free = [labelled(molecule("N2"), stress=False)]
    every = decided([*strained_alloys(8), *free], "all")
    assert (every.given.training.stress, every.config.training.stress) == ("auto", True)
    assert summary(every)["stress"] is True
    assert not any("stress" in warning for warning in every.warnings)
    assert decided(strained_alloys(8), "no forces", forces=False).config.training.stress is False
    some = decided(without_stress(strained_alloys(8), [2]), "some")
    assert some.config.training.stress is False
    assert "stress" not in summary(some)
    (note,) = some.warnings
    assert note.endswith(
        "7 of 8 images in a periodic cell have a stress, which is not trained on; training.stress: partial trains on it"
    )
    none = decided(without_stress(strained_alloys(8), list(range(8))), "none")
    assert (none.config.training.stress, none.warnings) == (False, [])
    in_gigapascal = strained_alloys(8)
    for atoms in in_gigapascal:
        atoms.calc.results["stress"] *= 160.2
    other_unit = decided(in_gigapascal, "GPa")
    assert other_unit.config.training.stress is False
    (note,) = other_unit.warnings
    assert "the stress is not trained on, as" in note
    assert decided(in_gigapascal, "GPa, wanted", stress=True).config.training.stress is True
    assert decided(strained_alloys(8), "forces too", forces="auto", stress=True).config.training.forces is True


def test_structures_without_the_stress_that_is_wanted_are_refused(config_for: ConfigFor, tmp_path: Path) -> None:
    images = without_stress(strained_alloys(8), [2, 5])
    with pytest.raises(BadInput, match=r"image 2: has no stress, as 2 of 8 images.*training.stress: partial trains"):
        prepared(images, config_for, tmp_path, training={"stress": True})
    images = without_stress(images, [i for i in range(8) if i not in (2, 5)])
    for given in ("partial", True):
        with pytest.raises(BadInput, match=rf"training.stress: {str(given).lower()} needs a stress .*no image has one"):
            prepared(images, config_for, tmp_path, training={"stress": given})
    assert not (tmp_path / "home").exists()


def test_a_split_without_a_stress_is_refused_or_reported(config_for: ConfigFor, tmp_path: Path) -> None:
    plain = prepared(strained_alloys(12), config_for, tmp_path)
    held_out, kept = (part.structures.images.tolist() for part in (plain.validation, plain.train))
    partial = {"training": {"stress": "partial"}}
    images = without_stress(strained_alloys(12), kept)
    with pytest.raises(BadInput, match="no structure of the training split has a stress"):
        prepared(images, config_for, tmp_path, **partial)
    ase.io.write(tmp_path / "test.traj", without_stress(strained_alloys(4, seed=7), [0, 1, 2, 3]))
    images = without_stress(strained_alloys(12), held_out)
    data = prepared(images, config_for, tmp_path, **partial, data={"test": str(tmp_path / "test.traj")})
    in_test, in_validation = data.warnings
    assert "no test structure has a stress: there will be no test_stress_mae" in in_test
    assert "there will be no val_stress_mae" in in_validation
    records = list(fit(data, {}, {"epochs": 1}))
    assert records[0].val_stress_mae is None
    assert records[0].train_stress_mae is not None


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"training": {"forces": False, "stress": True}}, "training.stress: true needs training.forces: true"),
        ({"training": {"forces": False, "stress": "partial"}}, "training.stress: partial needs training.forces: true"),
        ({"training": {"stress": "some"}}, "training.stress: must be true or false, 'partial' or 'auto', got 'some'"),
        (
            {"training": {"forces": True, "stress": True}, "": {"backend": "amptorch"}},
            "training.stress: true needs backend: native; with amptorch it is false",
        ),
        (
            {"training": {"stress": False}, "search": {"stress_coefficient": {"float": [0.5, 1.0]}}},
            "search.stress_coefficient: a range needs training.stress: true",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(groups: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_config(None, groups)
    assert message in str(caught.value)


def test_its_weight_is_searched_where_it_is_trained() -> None:
    config = load_config(None, {})
    assert config.decided(True, True).spaces["stress_coefficient"].low == 0.03
    assert "stress_coefficient" not in config.decided(True).spaces
    assert "stress_coefficient" not in config.decided(False).spaces
    assert config.decided(True).training.stress is False
    assert load_config(None, {"": {"backend": "amptorch"}}).training.stress is False


def test_data_prepared_without_it_cannot_train_it(dataset: Dataset) -> None:
    with pytest.raises(BadInput, match="prepared without it"):
        split_tensors(dataset, dataset.train, CPU, torch.float64, with_stress=True)


def test_it_counts_in_the_digest_only_where_it_is_trained(config_for: ConfigFor, tmp_path: Path) -> None:
    """Files with a stress were good for studies of energies and forces before, which go on."""
    images = strained_alloys(8)
    alone, with_it = (prepared(images, config_for, tmp_path, training={"stress": given}) for given in (False, True))
    assert alone.digest != with_it.digest
    assert alone.digest == prepared(without_stress(images, list(range(8))), config_for, tmp_path).digest
    structures = with_it.train.structures
    assert structures.stress is not None
    assert structures.stress[0] is not None
    before = digest(structures)
    structures.stress[0][2] += 1e-9
    assert digest(structures) != before


def test_a_checkpoint_of_before_there_was_one_fits(stress_data: Dataset) -> None:
    config = stress_data.config.updated({"training": {"stress": False}, "": {"device": "cpu"}})
    key = make_backend(config, stress_data).start(Hyperparameters(), 0).key
    assert "stress" not in key["training"]
    assert "stress_coefficient" not in key["hyperparameters"]
    config = stress_data.config.updated({"": {"device": "cpu"}})
    key = make_backend(config, stress_data).start(Hyperparameters(), 0).key
    assert key["training"]["stress"] is True
    assert key["hyperparameters"]["stress_coefficient"] == 0.3
