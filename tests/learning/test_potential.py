"""A potential: what physics asks of its energies, and that nothing is lost between saving and loading."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from scipy.spatial.transform import Rotation

from bdqm_tune.config.config import Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors import GMP
from bdqm_tune.descriptors.pseudodensity import PseudoDensity
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.batches import split_tensors
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.learning.description import WEIGHTS
from bdqm_tune.learning.fit import Fit
from bdqm_tune.learning.known_elements import UnknownElement
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import make_network
from bdqm_tune.learning.potential import DESCRIPTION
from bdqm_tune.learning.scalers import FeatureScaler, Scaler, fit_scaler
from bdqm_tune.learning.targets import ReferenceEnergies

NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "deep": {"num_layers": 6, "num_nodes": 7, "activation": "silu"},
    "batchnorm": {"batchnorm": True, "activation": "relu"},
    "dropout": {"dropout": True, "dropout_rate": 0.5, "activation": "gelu"},
    "per element": {"network": "per_element", "hidden_layers": [7, 3], "activation": "softplus"},
}
# For derivatives: relu has kinks, across which differences are no derivatives.
SMOOTH = {name: {**options, "activation": "tanh"} for name, options in NETWORKS.items()}


def random_potential(
    hyperparameters: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float64,
    log: bool = False,
    by_element: bool = False,
) -> NetworkPotential:
    """Random weights, scales and reference energies for H, O, Cu and Au."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    table = {z: PseudoDensity(np.array([1.0 + 0.1 * z]), np.array([1.0 + 0.02 * z])) for z in (1, 8, 29, 79)}
    descriptor = GMP([0, 1, 2, 3], [0.5, 1.0], 4.3, pseudodensities=table)
    given = {"initialization": "xavier", **(hyperparameters or {})}
    options = Hyperparameters(**(given if "hidden_layers" in given else {"num_nodes": 6, **given}))
    network = make_network(descriptor.n_features, options, [1, 8, 29]).to(dtype)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm1d):
            layer.running_mean = torch.randn_like(layer.running_mean)
            layer.running_var = torch.rand_like(layer.running_var) + 0.5
    examples = np.concatenate([descriptor.compute(atoms) for atoms in examples_of_all_kinds()])
    scaler: Scaler = FeatureScaler(
        examples.mean(axis=0), examples.std(axis=0), random.uniform(0.1, 1, descriptor.n_features) if log else None
    )
    if by_element:
        numbers = np.concatenate([atoms.numbers for atoms in examples_of_all_kinds()])
        scaler = fit_scaler(lambda: [(examples, numbers)], "log" if log else "normalise", per_element=True)
    references = ReferenceEnergies({1: -3.4, 8: -7.2, 29: -3.7}, -4.5)
    shift, known = 0.9 if by_element else 0.0, (1, 8, 29, 79)
    return NetworkPotential(
        descriptor, scaler, references, 1.7, options, network.eval(), shift=shift, known_elements=known
    )


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
    features = (potential.descriptor.compute(water) - potential.scaler.offset) / potential.scaler.divisor
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


@pytest.mark.parametrize("kind", range(4), ids=KINDS)
@pytest.mark.parametrize("network", SMOOTH)
@pytest.mark.parametrize("log", [False, True])
def test_forces_are_minus_the_differences_of_the_energy(kind: int, network: str, log: bool) -> None:
    potential, atoms, step = random_potential(SMOOTH[network], log=log), examples_of_all_kinds()[kind], 1e-4
    (forces,) = potential.predict([atoms]).forces or []
    for k in {0, len(atoms) - 1}:
        for axis in range(3):
            ahead, behind = atoms.copy(), atoms.copy()
            ahead.positions[k, axis] += step
            behind.positions[k, axis] -= step
            above, below = potential.predict([ahead, behind], forces=False).energies
            assert forces[k, axis] == pytest.approx(-(above - below) / (2 * step), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kind", range(4), ids=KINDS)
def test_forces_turn_with_the_structure_follow_the_order_of_atoms_and_add_up_to_nothing(kind: int) -> None:
    potential, atoms, random = (
        random_potential(by_element=True),
        examples_of_all_kinds()[kind],
        np.random.default_rng(8),
    )
    turn = Rotation.random(random_state=random).as_matrix()
    order = random.permutation(len(atoms))
    moved = Atoms(
        atoms.numbers[order], atoms.positions[order] @ turn, cell=np.asarray(atoms.cell) @ turn, pbc=atoms.pbc
    )
    here, there = potential.predict([atoms, moved]).forces or []
    np.testing.assert_allclose(there, here[order] @ turn, atol=1e-9)
    np.testing.assert_allclose(here.sum(axis=0), 0, atol=1e-9)


@pytest.mark.parametrize("kind", range(1, 4), ids=KINDS[1:])
def test_forces_do_not_change_with_the_size_of_the_cell(kind: int) -> None:
    potential, atoms = random_potential(), examples_of_all_kinds()[kind]
    one, many = potential.predict([atoms, atoms.repeat((2, 1, 1))]).forces or []
    np.testing.assert_allclose(many, np.concatenate([one, one]), atol=1e-9)


def test_energies_are_the_same_with_and_without_forces() -> None:
    potential, structures = random_potential(), examples_of_all_kinds()
    with_forces, without = potential.predict(structures), potential.predict(structures, forces=False)
    assert without.forces is None
    np.testing.assert_allclose(with_forces.energies, without.energies, rtol=1e-12)
    assert [f.shape for f in with_forces.forces or []] == [(len(atoms), 3) for atoms in structures]


@pytest.mark.parametrize("kind", [1, 2, 3], ids=KINDS[1:])
def test_stress_is_the_derivative_of_the_energy_by_the_strain(kind: int) -> None:
    potential, atoms, step = random_potential(SMOOTH["deep"], log=True), examples_of_all_kinds()[kind], 1e-5
    stress = potential.stress(atoms)
    for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(np.asarray(atoms.cell) @ strain, scale_atoms=True)
            energies.append(potential.predict([strained], forces=False).energies[0])
        expected = (energies[0] - energies[1]) / (2 * step * atoms.get_volume())
        assert stress[k] == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_a_shift_is_added_to_every_structure() -> None:
    potential, (water, *_) = random_potential(), examples_of_all_kinds()
    shifted = dataclasses.replace(potential, shift=-600.0)
    assert shifted.predict([water]).energies[0] == pytest.approx(potential.predict([water]).energies[0] - 600.0)


def test_an_unknown_element_is_refused() -> None:
    with pytest.raises(BadInput, match="not trained on Pt, but on H, O, Cu, Au"):
        random_potential().predict([Atoms("Cu"), Atoms("Pt")])
    with (
        pytest.warns(UnknownElement, match="Pt"),
        pytest.raises(BadInput, match="no pseudo-density for element Pt; there are: H O Cu Au"),
    ):
        random_potential().predict([Atoms("Cu"), Atoms("Pt")], allow_unknown_elements=True)


def fit_of(dataset: Dataset, **hyperparameters: Any) -> tuple[Fit, Hyperparameters]:
    """A training in double precision that has not begun."""
    options = Hyperparameters(**(({} if "hidden_layers" in hyperparameters else {"num_nodes": 8}) | hyperparameters))
    train, validation = (
        split_tensors(dataset, split, torch.device("cpu"), torch.float64)
        for split in (dataset.train, dataset.validation)
    )
    return Fit(options, Training(epochs=8), train, validation, dataset.scale, seed=0), options


def test_before_training_a_zero_initialisation_predicts_the_reference_energies(dataset: Dataset) -> None:
    fit, options = fit_of(dataset, initialization="zero", batchnorm=True)
    potential = NetworkPotential.from_dataset(dataset, options, fit.best_network)
    structures = dataset.validation.structures.atoms
    assert potential.predict(structures).energies.tolist() == dataset.references.of(structures).tolist()


@pytest.mark.parametrize("hyperparameters", NETWORKS.values(), ids=NETWORKS)
def test_a_trained_potential_has_the_error_of_its_best_epoch(
    dataset: Dataset, hyperparameters: dict[str, Any], tmp_path: Path
) -> None:
    fit, options = fit_of(dataset, **{"lr": 0.02, **hyperparameters})
    records = list(fit)
    assert fit.best == min(records, key=lambda record: record.val_energy_mae)
    NetworkPotential.from_dataset(dataset, options, fit.best_network).save(tmp_path)
    held_out = dataset.validation.structures
    error = np.abs(NetworkPotential.load(tmp_path).predict(held_out.atoms).energies - held_out.energies)
    assert error.mean() == pytest.approx(fit.best.val_energy_mae, rel=1e-9)
    assert (error / held_out.n_atoms).mean() == pytest.approx(fit.best.val_energy_mae_per_atom, rel=1e-9)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("by_element", [False, True])
def test_what_is_saved_and_loaded_predicts_the_same_to_the_last_bit(
    tmp_path: Path, network: str, dtype: torch.dtype, log: bool, by_element: bool
) -> None:
    potential = random_potential(NETWORKS[network], dtype, log, by_element)
    potential.save(tmp_path / "new" / "folder")
    loaded = NetworkPotential.load(str(tmp_path / "new" / "folder"))
    structures = [*examples_of_all_kinds(), Atoms("CuAu", positions=[[0, 0, 0], [0, 0, 2.5]])]
    assert loaded.predict(structures).energies.tolist() == potential.predict(structures).energies.tolist()
    assert equal_forces(loaded.predict(structures).forces, potential.predict(structures).forces)
    assert loaded.hyperparameters == potential.hyperparameters
    assert loaded.references == potential.references
    assert next(loaded.network.parameters()).dtype == dtype
    assert not loaded.network.training


def equal_forces(left: Any, right: Any) -> bool:
    """Whether they are the same to the last bit, structure by structure."""
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("log", [False, True])
def test_what_the_first_version_wrote_is_read(tmp_path: Path, log: bool) -> None:
    potential = random_potential(log=log)
    potential.save(tmp_path)
    content = json.loads((tmp_path / DESCRIPTION).read_text(encoding="utf-8"))
    scaling = content.pop("scaling")
    for name in ("scaling_per_element", "shift", "elements", "mixed", "trained_on_forces", "trained_elements"):
        del content[name]
    old = {"feature_mean": "offset", "feature_deviation": "divisor", "feature_floor": "floor"}
    content |= {name: scaling[today] for name, today in old.items()} | {"format": 1}
    names = ("num_layers", "num_nodes", "activation", "batchnorm", "dropout", "dropout_rate", "initialization", "lr")
    names += ("batch_size", "scheduler", "gamma", "step_size")
    content["hyperparameters"] = {name: content["hyperparameters"][name] for name in names}
    (tmp_path / DESCRIPTION).write_text(json.dumps(content), encoding="utf-8")
    loaded = NetworkPotential.load(tmp_path)
    assert loaded.known_elements == (1, 8, 29), "those of its reference energies"
    structures = [atoms for atoms in examples_of_all_kinds() if 79 not in atoms.numbers]
    assert loaded.predict(structures).energies.tolist() == potential.predict(structures).energies.tolist()
    assert loaded.trained_on_forces is False, "it could not train on forces"


@pytest.mark.parametrize("trained", [True, False, None])
def test_it_is_kept_whether_it_was_trained_on_forces(tmp_path: Path, trained: bool | None) -> None:
    dataclasses.replace(random_potential(), trained_on_forces=trained).save(tmp_path)
    assert NetworkPotential.load(tmp_path).trained_on_forces is trained


def test_a_file_that_does_not_say_what_it_was_trained_on_is_read(tmp_path: Path) -> None:
    random_potential().save(tmp_path)
    content = json.loads((tmp_path / DESCRIPTION).read_text(encoding="utf-8"))
    del content["trained_on_forces"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(content), encoding="utf-8")
    assert NetworkPotential.load(tmp_path).trained_on_forces is None


def test_forces_without_weight_are_not_trained(
    config_for: Callable[..., Any], alloys: Callable[..., list[Atoms]], tmp_path: Path
) -> None:
    ase.io.write(tmp_path / "train.traj", alloys())
    data = prepare(config_for(tmp_path / "train.traj", training={"forces": True}), tmp_path / "home")
    for coefficient, trained in ((0.1, True), (0.0, False)):
        options = Hyperparameters(force_coefficient=coefficient)
        network = make_network(data.descriptor.n_features, options, [])
        assert NetworkPotential.from_dataset(data, options, network).trained_on_forces is trained


def test_the_files_hold_no_pickle_and_valid_json(tmp_path: Path) -> None:
    random_potential().save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([WEIGHTS, DESCRIPTION])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads((tmp_path / DESCRIPTION).read_text(encoding="utf-8"), parse_constant=refuse)
    assert content["format"] == 2
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
        NetworkPotential.load(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere: no potential there"):
        NetworkPotential.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION])
def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    random_potential().save(tmp_path)
    with pytest.raises(BadInput, match=name):
        NetworkPotential.load(tmp_path / name)


def drop(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {k: v for k, v in content.items() if k != key}


def put(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {**content, key: value}


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{f"no {key}": drop(key) for key in ("format", "descriptor", "scaling", "reference_energies", "scale")},
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
    "scaler of another width": lambda content: {**content, "scaling": {**content["scaling"], "offset": [0.0]}},
    "a divisor of zero": lambda content: {**content, "scaling": {**content["scaling"], "divisor": [0.0] * 8}},
    "a floor of another width": lambda content: {**content, "scaling": {**content["scaling"], "floor": [1.0]}},
    "a scaler for no element": lambda content: {**content, "scaling_per_element": {"Xx": content["scaling"]}},
    "networks for no elements": put("elements", ["Xx"]),
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
        NetworkPotential.load(tmp_path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", [b"", b"{", b"not json", b"\xff\xfe\xfa"])
@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION])
def test_files_that_are_none_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    random_potential().save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match="not a potential that can be read"):
        NetworkPotential.load(tmp_path)


def test_weights_cut_short_or_of_another_network_are_refused(tmp_path: Path) -> None:
    random_potential().save(tmp_path / "small")
    random_potential({"num_nodes": 9}).save(tmp_path / "large")
    (tmp_path / "small" / WEIGHTS).write_bytes((tmp_path / "large" / WEIGHTS).read_bytes())
    whole = (tmp_path / "large" / WEIGHTS).read_bytes()
    (tmp_path / "large" / WEIGHTS).write_bytes(whole[: len(whole) - 40])
    for folder in ("small", "large"):
        with pytest.raises(BadInput, match="not a potential that can be read") as caught:
            NetworkPotential.load(tmp_path / folder)
        assert folder in str(caught.value)


def test_a_potential_keeps_what_it_was_made_of(dataset: Dataset) -> None:
    fit, options = fit_of(dataset)
    potential = NetworkPotential.from_dataset(dataset, options, fit.best_network)
    assert potential.references == dataset.references
    assert potential.scaler is dataset.scaler
    assert potential.scale == dataset.scale
    assert not potential.network.training
    with pytest.raises(dataclasses.FrozenInstanceError):
        potential.scale = 2.0
