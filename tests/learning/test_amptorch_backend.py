"""The published amptorch as a backend: the same training as the project's own, and nothing left behind."""

import importlib.util
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

import bdqm_tune as bt
from bdqm_tune.backends import Backend, make_backend
from bdqm_tune.backends.amptorch_adapters import import_amptorch
from bdqm_tune.backends.amptorch_inputs import split_images
from bdqm_tune.backends.native import NativeRun
from bdqm_tune.config.config import Config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.learning.network_potential import NetworkPotential
from tests.learning.conftest import rattled_alloys, small_config

# What both can do alike; by default the native backend does other things.
ALIKE: dict[str, dict[str, object]] = {
    "descriptor": {"smooth_cutoff": False},
    "training": {"energy_loss": "total", "energy_stage": 1.0, "smoothing": 1, "stress": False},
}


@pytest.fixture(scope="module")
def config_for() -> Callable[..., Config]:
    """As that of other tests, with what both backends can do alike."""

    def make(train: Path | str, **groups: dict[str, object]) -> Config:
        names = ALIKE.keys() | groups.keys()
        return small_config(train, **{name: {**ALIKE.get(name, {}), **groups.get(name, {})} for name in names})

    return make


@pytest.fixture(scope="module")
def dataset(config_for: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("alloys")
    ase.io.write(folder / "train.traj", rattled_alloys())
    return prepare(config_for(folder / "train.traj"), folder / "home")


@pytest.fixture
def amptorch(require: Callable[[str], None]) -> None:
    require("amptorch")


def backend_of(dataset: Dataset, name: str = "amptorch", **training: object) -> Backend:
    config = dataset.config.updated({"training": {"epochs": 6, **training}, "": {"device": "cpu", "backend": name}})
    return make_backend(config, dataset)


def test_without_amptorch_a_line_says_how_to_get_it(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput) as caught:
        backend_of(dataset)
    message = str(caught.value)
    assert message.startswith("backend amptorch: amptorch is not installed; install it with: pip install 'bdqm-tune[")
    assert message.endswith("git+https://github.com/ulissigroup/amptorch")
    assert "\n" not in message


def test_of_an_amptorch_that_cannot_be_imported_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    for name in ("amptorch", "amptorch.trainer"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadInput, match=r"amptorch cannot be imported \(.*amptorch.*\); install it with"):
        import_amptorch()


def test_a_gpu_is_refused(dataset: Dataset) -> None:
    config = dataset.config.updated({"": {"device": "cuda", "backend": "amptorch"}})
    with pytest.raises(BadInput, match="device cuda: backend amptorch trains on the CPU only; use --device cpu or"):
        make_backend(config, dataset)


@pytest.fixture(scope="module")
def with_forces(
    dataset: Dataset, config_for: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory
) -> Dataset:
    """The same alloys with derivatives, by amptorch's scaling."""
    config = config_for(
        dataset.config.data.train,
        training={"forces": True},
        descriptor={"scaling": "normalise", "scaling_per_element": True},
        target={"reference_energies": "none", "scaling": "mean_deviation"},
    )
    return prepare(config, tmp_path_factory.mktemp("home"))


SAME: dict[str, dict[str, Any]] = {
    "default": {},
    "batchnorm": {"batchnorm": True, "activation": "gelu"},
    "per_element": {"network": "per_element", "activation": "softplus", "initialization": "xavier"},
    "layers": {"hidden_layers": [7, 3], "activation": "silu", "scheduler": "cosine", "initialization": "default"},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "scheduler": "one_cycle"},
    "plateau": {"scheduler": "plateau", "step_size": 1, "gamma": 0.5, "lr": 0.1},
    "step": {"scheduler": "step", "step_size": 2, "gamma": 0.3},
}


@pytest.mark.parametrize("loss", ["mae", "mse"])
@pytest.mark.parametrize("forces", [False, True], ids=["energies", "forces"])
@pytest.mark.parametrize("name", SAME)
def test_in_batches_of_all_structures_both_backends_give_the_same_numbers(
    amptorch: None,
    dataset: Dataset,
    with_forces: Dataset,
    name: str,
    forces: bool,
    loss: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "bdqm_tune.learning.fit.can_compile", lambda *_: False
    )  # for the loss of torch's can be exchanged
    data = with_forces if forces else dataset
    given = {"lr": 0.01, "batch_size": 1000, "force_coefficient": 0.1, **SAME[name]}
    options = Hyperparameters(**given)
    tolerance = 1e-3 if forces else 1e-9  # amptorch sets derivatives below 1e-5 to 0
    training = {"precision": "float64", "loss": loss, "forces": forces}
    ours, theirs = (backend_of(data, backend, **training).start(options, seed=3) for backend in ("native", "amptorch"))
    assert ours.n_parameters == theirs.n_parameters
    # Half of it, as amptorch's: Adam's epsilon makes a small difference of it.
    assert isinstance(ours, NativeRun)
    epochs: Any = ours._fit._epochs
    whole = epochs._loss
    epochs._loss = lambda found, wanted: whole(found, wanted) / 2
    for expected, record in zip(ours, theirs, strict=True):
        metrics = expected.metrics() | {"train_loss": 2 * expected.train_loss}
        assert record.epoch == expected.epoch
        assert record.metrics().keys() == metrics.keys()
        for metric in metrics.keys() - {"epoch_seconds"}:
            assert record.metrics()[metric] == pytest.approx(metrics[metric], rel=tolerance), metric
    structures = data.validation.structures.atoms
    np.testing.assert_allclose(
        theirs.potential().predict(structures).energies,
        ours.potential().predict(structures).energies,
        rtol=tolerance,
    )


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("options", [{"dropout": True}, {"network": "per_element", "batchnorm": True}])
def test_a_training_can_be_repeated_and_its_potential_saved(
    amptorch: None, dataset: Dataset, tmp_path: Path, precision: str, options: dict[str, object]
) -> None:
    held_out, energies = dataset.validation.structures, []
    backend = backend_of(dataset, precision=precision)
    assert backend.device == "cpu"
    for seed in (3, 3, 4):
        run = backend.start(Hyperparameters(num_nodes=8, lr=0.01, batch_size=4, **options), seed)
        assert run.best is None
        records = list(run)
        assert [record.epoch for record in records] == [1, 2, 3, 4, 5, 6]
        assert run.records == records
        assert run.checkpoint() is None
        assert run.best == min(records, key=lambda record: record.val_energy_mae)
        run.potential().save(tmp_path)
        energies.append(NetworkPotential.load(tmp_path).predict(held_out.atoms, forces=False).energies)
        error = np.abs(energies[-1] - held_out.energies).mean()
        assert error == pytest.approx(run.best.val_energy_mae, rel=1e-3 if precision == "float32" else 1e-6)
    assert energies[0].tolist() == energies[1].tolist()
    assert energies[0].tolist() != energies[2].tolist()


def test_the_forces_of_the_potential_are_those_that_were_trained(amptorch: None, with_forces: Dataset) -> None:
    run = backend_of(with_forces, precision="float64", forces=True).start(
        Hyperparameters(num_nodes=8, num_layers=3, lr=0.01, activation="tanh"), 0
    )
    list(run)
    assert run.best is not None
    held_out = with_forces.validation.structures
    assert held_out.forces is not None
    predicted = run.potential().predict(held_out.atoms).forces
    assert predicted is not None
    error = np.abs(np.concatenate(predicted) - np.concatenate(held_out.forces)).mean()
    assert error == pytest.approx(run.best.val_forces_mae, rel=1e-3)


def test_it_stops_early(amptorch: None, dataset: Dataset) -> None:
    run = backend_of(dataset, epochs=100, early_stopping=2).start(Hyperparameters(num_nodes=8, lr=1.0), 0)
    records = list(run)
    assert run.best is not None
    assert len(records) == run.best.epoch + 2 < 100


def state_of_the_process() -> list[object]:
    import skorch.net

    return [
        torch.get_default_dtype(),
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # type: ignore[index]
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        Path.cwd(),
        sorted(Path().iterdir()),
        skorch.net.to_tensor,
        sys.modules.get("torch_scatter"),
        sys.stdout,
    ]


def test_nothing_is_left_behind(
    amptorch: None, dataset: Dataset, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state_of_the_process()
    backend = backend_of(dataset, precision="float64", epochs=100)
    assert state_of_the_process() == before
    run = backend.start(Hyperparameters(num_nodes=8), seed=0)
    assert state_of_the_process() == before
    for record in run:
        assert state_of_the_process() == before
        if record.epoch == 3:
            break
    assert state_of_the_process() == before
    assert run.best is not None
    run.potential()
    assert capsys.readouterr() == ("", "")


COMBINATIONS: dict[str, object] = {
    "g2": {"etas": [0.05, 1.0], "rs": [0.0]},
    "g4": {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [-1.0, 1.0]},
}
DESCRIPTORS: dict[str, dict[str, object]] = {
    "gmp, surface harmonics": {"solid": False},
    "gmp, roots": {"square": False},
    "groups": {"name": "gmp_groups", "groups": {0: [1], 1: [1], 3: [3, 1]}, "scaling": "standardise"},
    "symmetry functions": {"name": "symmetry_functions", "cutoff": 5.0, **COMBINATIONS},
    "polynomial cutoff": {
        "name": "symmetry_functions",
        "cutoff": 4.0,
        "cutoff_function": "polynomial",
        "gamma": 2.0,
        **COMBINATIONS,
    },
}


def alloys_described(
    dataset: Dataset, config_for: Callable[..., Config], home: Path, options: dict[str, object]
) -> Dataset:
    config = config_for(dataset.config.data.train)
    given = config.descriptor.model_dump() if "name" not in options else {}
    if options.get("name") == "gmp_groups":
        given = {"sigmas": [0.5, 1.0], "cutoff": 4.1, "smooth_cutoff": False}
    return prepare(Config(**config.model_dump() | {"descriptor": given | options}), home)


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_amptorch_computes_the_features_that_are_configured(
    amptorch: None, dataset: Dataset, config_for: Callable[..., Config], tmp_path: Path, name: str
) -> None:
    data = alloys_described(dataset, config_for, tmp_path, DESCRIPTORS[name])
    run = backend_of(data, epochs=1).start(Hyperparameters(num_nodes=4), 0)
    assert len(list(run)) == 1


def test_features_that_differ_in_every_copy_are_refused_with_the_image(
    amptorch: None, dataset: Dataset, config_for: Callable[..., Config], tmp_path: Path
) -> None:
    data = alloys_described(dataset, config_for, tmp_path, {"name": "gmp_groups", "groups": {6: [1]}})
    first = data.train.structures.images[0]
    with pytest.raises(
        BadInput,
        match=rf"backend amptorch: .*train.traj image {first}, its gmp_groups: feature [01] is not that of the "
        r"descriptor, but off by 1.0e.00 of the largest value, in shifted copies too; .*`amptorch_features: own`",
    ):
        backend_of(data)


@pytest.fixture(scope="module")
def at_faces(
    config_for: Callable[..., Config], alloys: Callable[..., list[Atoms]], tmp_path_factory: pytest.TempPathFactory
) -> Dataset:
    """Alloys with forces; in images 3 and 5 an atom is just below a face, and image 6 is far out of an open cell."""
    images = alloys(8)
    for i in (3, 5, 6):
        results = images[i].calc.results
        images[i].positions[:, 2] -= images[i].positions[0, 2] + 1e-8
        if i == 6:
            images[i].pbc = False
            images[i].positions += 20
        images[i].calc = SinglePointCalculator(images[i], **results)
    folder = tmp_path_factory.mktemp("faces")
    ase.io.write(folder / "train.traj", images)
    return prepare(config_for(folder / "train.traj", training={"forces": True}), folder)


@pytest.mark.parametrize("forces", [False, True])
def test_where_amptorch_loses_atoms_it_is_given_a_shifted_copy(
    amptorch: None, at_faces: Dataset, forces: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    backend_of(at_faces, forces=forces)
    assert "shifted copies of 3 of 8 structures of " in (said := capsys.readouterr().err)
    assert "(images 3, 5, 6)" in said
    assert said.count("\n") == 1
    for split in (at_faces.train, at_faces.validation):
        found = split_images(at_faces, split, torch.float64, forces)
        ours = at_faces.scaler(np.asarray(split.features), split.numbers)
        theirs = np.concatenate([image.fingerprint.numpy() for image in found])
        np.testing.assert_allclose(theirs, ours, atol=1e-8)
        if forces:
            for atoms, image in zip(split.structures.atoms, found, strict=True):
                features, sparse = at_faces.descriptor.sparse_derivatives(atoms)
                n, width = features.shape
                by_position = sparse.dense(n).reshape(n, width, 3 * n).transpose(0, 2, 1)
                expected = at_faces.scaler.of_inputs(by_position, features, atoms.numbers).transpose(0, 2, 1)
                # amptorch sets what is below 1e-5, before it is scaled, to 0.
                unit = np.broadcast_to(np.eye(width), (n, width, width))
                grows = np.abs(at_faces.scaler.of_inputs(unit, features, atoms.numbers)).sum(axis=1).max()
                ours = image.fprimes.to_dense().reshape(n, width, 3 * n)
                np.testing.assert_allclose(ours, expected, atol=1.1e-5 * grows)


def test_its_own_features_are_taken_as_they_are_where_that_is_wanted(
    amptorch: None, at_faces: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    config = at_faces.config.updated({"": {"backend": "amptorch", "amptorch_features": "own"}})
    assert config.trained_by == "amptorch, its own features"
    make_backend(config, at_faces)
    assert "amptorch's features of 3 of 8 structures of " in (said := capsys.readouterr().err)
    assert "(images 3, 5, 6) are not those of the descriptor, and taken as they are" in said
    for split in (at_faces.train, at_faces.validation):
        found = split_images(at_faces, split, torch.float64, forces=False, own=True)
        ours = np.split(
            at_faces.scaler(np.asarray(split.features), split.numbers), np.cumsum(split.structures.n_atoms)[:-1]
        )
        for i, image, expected in zip(split.structures.images, found, ours, strict=True):
            # Image 6, which amptorch cannot describe at all, is given as a copy here as well.
            assert np.allclose(image.fingerprint, expected, atol=1e-8) is (i not in (3, 5)), i


def test_derivatives_that_are_not_those_of_the_features_are_refused(
    amptorch: None, at_faces: Dataset, tmp_path: Path
) -> None:
    """amptorch's derivatives of the square of order 0."""
    options = {"name": "gmp_groups", "groups": {0: [1], 1: [1]}, "square": True, "sigmas": [0.5, 1.0], "cutoff": 4.1}
    options["smooth_cutoff"] = False
    config = Config(**at_faces.config.model_dump() | {"descriptor": options})
    data = prepare(config, tmp_path)
    with pytest.raises(BadInput, match=r"image \d, its gmp_groups: the derivatives of feature [01] are not those of"):
        backend_of(data, forces=True)
    backend_of(data, forces=False)
    make_backend(config.updated({"": {"backend": "amptorch", "amptorch_features": "own"}}), data)


def test_features_that_are_wrong_without_derivatives_are_computed_with_them(
    amptorch: None,
    dataset: Dataset,
    config_for: Callable[..., Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for options, wrong in (
        ({"name": "gmp_groups", "groups": {5: [4]}}, "order 5, group 4"),
        ({"orders": [9]}, "order 9 of solid harmonics"),
    ):
        data = alloys_described(dataset, config_for, tmp_path, options)
        for own, done in (("checked", "computed with derivatives"), ("own", "taken as they are")):
            config = data.config.updated({"": {"backend": "amptorch", "amptorch_features": own}})
            make_backend(config, data)
            said = capsys.readouterr().err
            assert f"without derivatives, amptorch's features of {wrong} are wrong; they are {done}" in said
            assert ("of 24 structures" in said) is (own == "own")


def test_a_study_runs_on_it(amptorch: None, dataset: Dataset, workdir: Path) -> None:
    config = dataset.config.updated(
        {"": {"backend": "amptorch"}, "study": {"name": "on amptorch", "n_trials": 2}, "training": {"epochs": 3}}
    )
    study = bt.tune(prepare(config, workdir), study="on amptorch", n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
