"""A potential: what physics asks of its energies, and that nothing is lost between saving and loading."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from scipy.spatial.transform import Rotation

from bdqm_tune.config import Training
from bdqm_tune.descriptors import GMP
from bdqm_tune.descriptors.pseudodensity import PseudoDensity
from bdqm_tune.errors import BadInput
from bdqm_tune.hyperparameters import Hyperparameters
from bdqm_tune.learning.batches import SplitTensors
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.fit import Fit
from bdqm_tune.learning.networks import SingleNN
from bdqm_tune.learning.potential import DESCRIPTION, WEIGHTS, Potential, PotentialCalculator
from bdqm_tune.learning.targets import FeatureScaler, ReferenceEnergies

NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "deep": {"num_layers": 6, "num_nodes": 7, "activation": "silu"},
    "batchnorm": {"batchnorm": True, "activation": "relu"},
    "dropout": {"dropout": True, "dropout_rate": 0.5, "activation": "gelu"},
}


def random_potential(
    hyperparameters: dict[str, Any] | None = None, dtype: torch.dtype = torch.float64, log: bool = False
) -> Potential:
    """Random weights, scales and reference energies for H, O, Cu and Au."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    table = {z: PseudoDensity(np.array([1.0 + 0.1 * z]), np.array([1.0 + 0.02 * z])) for z in (1, 8, 29, 79)}
    descriptor = GMP([0, 1, 2, 3], [0.5, 1.0], 4.3, pseudodensities=table)
    options = Hyperparameters(**{"num_nodes": 6, "initialization": "xavier", **(hyperparameters or {})})
    network = SingleNN(descriptor.n_features, options).to(dtype)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm1d):
            layer.running_mean = torch.randn_like(layer.running_mean)
            layer.running_var = torch.rand_like(layer.running_var) + 0.5
    examples = np.concatenate([descriptor.compute(atoms) for atoms in examples_of_all_kinds()])
    scaler = FeatureScaler(
        examples.mean(axis=0), examples.std(axis=0), random.uniform(0.1, 1, descriptor.n_features) if log else None
    )
    references = ReferenceEnergies({1: -3.4, 8: -7.2, 29: -3.7}, -4.5)
    return Potential(descriptor, scaler, references, 1.7, options, network.eval())


def examples_of_all_kinds() -> list[Atoms]:
    """A molecule, a crystal, an alloy and a slab, all disturbed."""
    alloy = bulk("Cu", cubic=True)
    alloy.symbols[1] = "Au"
    made = [molecule("H2O"), bulk("Cu"), alloy, fcc111("Cu", size=(1, 2, 2), vacuum=5.0)]
    for i, atoms in enumerate(made):
        atoms.positions += np.random.default_rng(i).normal(scale=0.1, size=(len(atoms), 3))
    return made


KINDS = ["molecule", "crystal", "alloy", "slab"]


@pytest.mark.parametrize("kind", range(1, 4), ids=KINDS[1:])
@pytest.mark.parametrize("network", NETWORKS)
def test_energy_is_extensive(kind: int, network: str) -> None:
    potential, atoms = random_potential(NETWORKS[network]), examples_of_all_kinds()[kind]
    (one,) = potential.predict([atoms]).energies
    for repeats in [(2, 1, 1), (1, 3, 1)]:
        (many,) = potential.predict([atoms.repeat(repeats)]).energies
        assert many == pytest.approx(max(repeats) * one, rel=1e-9)


def test_energies_of_molecules_far_apart_add_up() -> None:
    potential, water = random_potential(), molecule("H2O")
    far = molecule("H2O")
    far.rotate(40, "x")
    far.positions += [0, 0, 20]
    alone = potential.predict([water, far]).energies
    assert potential.predict([water + far]).energies[0] == pytest.approx(alone.sum(), rel=1e-12)


@pytest.mark.parametrize("kind", range(4), ids=KINDS)
def test_energy_does_not_change_with_rotation_translation_or_the_order_of_atoms(kind: int) -> None:
    potential, atoms, random = random_potential(), examples_of_all_kinds()[kind], np.random.default_rng(8)
    turn = Rotation.random(random_state=random).as_matrix()
    order = random.permutation(len(atoms))
    moved = Atoms(
        atoms.numbers[order],
        (atoms.positions[order] @ turn) + random.normal(size=3),
        cell=np.asarray(atoms.cell) @ turn,
        pbc=atoms.pbc,
    )
    here, there = potential.predict([atoms, moved]).energies
    assert there == pytest.approx(here, rel=1e-9)


def test_energy_is_references_and_scaled_network_outputs() -> None:
    potential, (water, *_) = random_potential(), examples_of_all_kinds()
    features = (potential.descriptor.compute(water) - potential.scaler.mean) / potential.scaler.deviation
    contributions = potential.network(torch.tensor(features)).detach().numpy()
    expected = 2 * -3.4 - 7.2 + 1.7 * contributions.sum()
    assert potential.predict([water]).energies[0] == pytest.approx(expected, rel=1e-12)


def test_an_element_without_reference_energy_has_the_fallback() -> None:
    potential = random_potential({"initialization": "zero"})
    assert potential.predict([Atoms("CuAu")]).energies[0] == pytest.approx(-3.7 - 4.5)


def test_structures_do_not_influence_each_other() -> None:
    potential, structures = random_potential(NETWORKS["batchnorm"]), examples_of_all_kinds()
    together = potential.predict(structures).energies
    alone = [potential.predict([atoms]).energies[0] for atoms in structures]
    assert together.tolist() == alone
    features = np.concatenate([potential.descriptor.compute(atoms) for atoms in structures])
    np.testing.assert_allclose(potential.predict_features(features, structures), together, rtol=1e-12)


def test_no_structures_have_no_energies() -> None:
    assert random_potential().predict([]).energies.shape == (0,)


def test_an_unknown_element_is_refused() -> None:
    with pytest.raises(BadInput, match="no pseudo-density for element Pt; there are: H O Cu Au"):
        random_potential().predict([Atoms("Cu"), Atoms("Pt")])


def fit_of(dataset: Dataset, **hyperparameters: Any) -> tuple[Fit, Hyperparameters]:
    """A training in double precision that has not begun."""
    options = Hyperparameters(**{"num_nodes": 8, **hyperparameters})
    train, validation = (
        SplitTensors(
            dataset.scaler(split.features),
            split.structures.n_atoms,
            dataset.scaled_targets(split),
            torch.device("cpu"),
            torch.float64,
        )
        for split in (dataset.train, dataset.validation)
    )
    return Fit(options, Training(epochs=8), train, validation, dataset.scale, seed=0), options


def test_before_training_a_zero_initialisation_predicts_the_reference_energies(dataset: Dataset) -> None:
    fit, options = fit_of(dataset, initialization="zero", batchnorm=True)
    potential = Potential.from_dataset(dataset, options, fit.best_network)
    structures = dataset.validation.structures.atoms
    assert potential.predict(structures).energies.tolist() == dataset.references.of(structures).tolist()


@pytest.mark.parametrize("hyperparameters", NETWORKS.values(), ids=NETWORKS)
def test_a_trained_potential_has_the_error_of_its_best_epoch(
    dataset: Dataset, hyperparameters: dict[str, Any], tmp_path: Path
) -> None:
    fit, options = fit_of(dataset, **{"lr": 0.02, **hyperparameters})
    records = list(fit)
    assert fit.best == min(records, key=lambda record: record.val_energy_mae)
    Potential.from_dataset(dataset, options, fit.best_network).save(tmp_path)
    held_out = dataset.validation.structures
    error = np.abs(Potential.load(tmp_path).predict(held_out.atoms).energies - held_out.energies)
    assert error.mean() == pytest.approx(fit.best.val_energy_mae, rel=1e-9)
    assert (error / held_out.n_atoms).mean() == pytest.approx(fit.best.val_energy_mae_per_atom, rel=1e-9)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log", [False, True])
def test_what_is_saved_and_loaded_predicts_the_same_to_the_last_bit(
    tmp_path: Path, network: str, dtype: torch.dtype, log: bool
) -> None:
    potential = random_potential(NETWORKS[network], dtype, log)
    potential.save(tmp_path / "new" / "folder")
    loaded = Potential.load(str(tmp_path / "new" / "folder"))
    structures = [*examples_of_all_kinds(), Atoms("CuAu", positions=[[0, 0, 0], [0, 0, 2.5]])]
    assert loaded.predict(structures).energies.tolist() == potential.predict(structures).energies.tolist()
    assert loaded.hyperparameters == potential.hyperparameters
    assert loaded.references == potential.references
    assert next(loaded.network.parameters()).dtype == dtype
    assert not loaded.network.training


def test_the_files_hold_no_pickle_and_valid_json(tmp_path: Path) -> None:
    random_potential().save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([WEIGHTS, DESCRIPTION])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads((tmp_path / DESCRIPTION).read_text(encoding="utf-8"), parse_constant=refuse)
    assert content["format"] == 1
    assert content["units"] == {"energy": "eV", "length": "Å"}
    assert content["reference_energies"] == {"H": -3.4, "O": -7.2, "Cu": -3.7}
    assert content["reference_energy_fallback"] == -4.5
    assert content["descriptor"]["name"] == "gmp"
    assert content["precision"] == "float64"


@pytest.mark.parametrize("missing", [WEIGHTS, DESCRIPTION])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    random_potential().save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(BadInput, match=f"no potential there, {missing} is missing"):
        Potential.load(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere: no potential there"):
        Potential.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION])
def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    random_potential().save(tmp_path)
    with pytest.raises(BadInput, match=name):
        Potential.load(tmp_path / name)


def drop(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {k: v for k, v in content.items() if k != key}


def put(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {**content, key: value}


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{f"no {key}": drop(key) for key in ("format", "descriptor", "feature_mean", "reference_energies", "scale")},
    "no hyperparameters": drop("hyperparameters"),
    "another format": put("format", 99),
    "unknown precision": put("precision", "float16"),
    "unknown hyperparameter": put("hyperparameters", {"num_layers": 2, "depth": 3}),
    "other hyperparameters": put("hyperparameters", {"num_layers": 2}),
    "null hyperparameters": put("hyperparameters", None),
    "no element": put("reference_energies", {"Xx": 1.0}),
    "references in a list": put("reference_energies", [1.0]),
    "descriptor without table": put("descriptor", {"name": "gmp"}),
    "descriptor in a list": put("descriptor", []),
    "null descriptor": put("descriptor", None),
    "scaler of another width": put("feature_mean", [0.0]),
    "a deviation of zero": lambda content: {**content, "feature_deviation": [0.0] * len(content["feature_mean"])},
    "scale in words": put("scale", "large"),
    "null scale": put("scale", None),
    "a list": lambda content: [content],
    "null": lambda content: None,
}


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_description_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    random_potential().save(tmp_path)
    content = json.loads((tmp_path / DESCRIPTION).read_text(encoding="utf-8"))
    (tmp_path / DESCRIPTION).write_text(json.dumps(change(content)), encoding="utf-8")
    with pytest.raises(BadInput, match=str(tmp_path)) as caught:
        Potential.load(tmp_path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", [b"", b"{", b"not json", b"\xff\xfe\xfa"])
@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION])
def test_files_that_are_none_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    random_potential().save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match="not a potential that can be read"):
        Potential.load(tmp_path)


def test_weights_cut_short_or_of_another_network_are_refused(tmp_path: Path) -> None:
    random_potential().save(tmp_path / "small")
    random_potential({"num_nodes": 9}).save(tmp_path / "large")
    (tmp_path / "small" / WEIGHTS).write_bytes((tmp_path / "large" / WEIGHTS).read_bytes())
    whole = (tmp_path / "large" / WEIGHTS).read_bytes()
    (tmp_path / "large" / WEIGHTS).write_bytes(whole[: len(whole) - 40])
    for folder in ("small", "large"):
        with pytest.raises(BadInput, match="not a potential that can be read") as caught:
            Potential.load(tmp_path / folder)
        assert folder in str(caught.value)


def test_the_calculator_gives_what_the_potential_predicts() -> None:
    potential = random_potential()
    calculator = PotentialCalculator(potential)
    water, _, alloy, slab = examples_of_all_kinds()
    for atoms in (water, alloy, slab):
        (expected,) = potential.predict([atoms]).energies
        atoms.calc = calculator
        assert atoms.get_potential_energy() == expected
        atoms.positions[0] += 0.2
        (moved,) = potential.predict([atoms]).energies
        assert moved != expected
        assert atoms.get_potential_energy() == moved


def test_the_calculator_says_that_it_has_no_forces() -> None:
    atoms = molecule("H2O")
    atoms.calc = PotentialCalculator(random_potential())
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_forces()


def test_a_potential_keeps_what_it_was_made_of(dataset: Dataset) -> None:
    fit, options = fit_of(dataset)
    potential = Potential.from_dataset(dataset, options, fit.best_network)
    assert potential.references == dataset.references
    assert potential.scaler is dataset.scaler
    assert potential.scale == dataset.scale
    assert not potential.network.training
    with pytest.raises(dataclasses.FrozenInstanceError):
        potential.scale = 2.0
