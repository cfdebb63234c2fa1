"""The project's own engine: devices, and trainings that learn and can be repeated."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bdqm_tune.backends import make_backend
from bdqm_tune.backends.native import NativeBackend, pick_device
from bdqm_tune.config.config import load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import Dataset, prepare

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
one_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")


def test_the_cpu_is_always_there() -> None:
    assert pick_device("cpu") == torch.device("cpu")


@no_gpu
def test_without_a_gpu_auto_is_the_cpu() -> None:
    assert pick_device("auto") == torch.device("cpu")


@one_gpu
def test_with_a_gpu_auto_is_the_gpu() -> None:
    assert pick_device("auto").type == "cuda"
    assert pick_device("cuda:0") == torch.device("cuda:0")


@no_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_gpu_is_refused_where_there_is_none(name: str) -> None:
    with pytest.raises(BadInput, match=f"device {name}: there are 0 usable GPUs here; use --device cpu or auto"):
        pick_device(name)


def test_a_gpu_beyond_the_last_is_refused() -> None:
    with pytest.raises(BadInput, match=r"device cuda:99: there are \d+ usable GPUs"):
        pick_device("cuda:99")


def backend_of(dataset: Dataset, **training: object) -> NativeBackend:
    config = dataset.config.updated({"training": {"epochs": 6, **training}, "": {"device": "cpu"}})
    backend = make_backend(config, dataset)
    assert isinstance(backend, NativeBackend)
    return backend


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_training_can_be_repeated(dataset: Dataset, precision: str) -> None:
    structures, energies = dataset.validation.structures.atoms, []
    backend = backend_of(dataset, precision=precision)
    assert backend.device == "cpu"
    for seed in (3, 3, 4):
        run = backend.start(Hyperparameters(num_nodes=8, lr=0.01), seed)
        assert run.best is None
        records = list(run)
        assert [record.epoch for record in records] == [1, 2, 3, 4, 5, 6]
        assert run.best == min(records, key=lambda record: record.val_energy_mae)
        assert run.n_parameters == 9 * 8 + 8 + 2 * (8 * 8 + 8) + 8 + 1
        energies.append(run.potential().predict(structures).energies.tolist())
    assert energies[0] == energies[1]
    assert energies[0] != energies[2]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_potential_of_a_run_scores_what_its_best_epoch_did(dataset: Dataset, precision: str) -> None:
    run = backend_of(dataset, precision=precision).start(Hyperparameters(num_nodes=8, lr=0.02), seed=0)
    list(run)
    assert run.best is not None
    held_out = dataset.validation.structures
    error = np.abs(run.potential().predict(held_out.atoms).energies - held_out.energies).mean()
    assert error == pytest.approx(run.best.val_energy_mae, rel=1e-3 if precision == "float32" else 1e-9)


def test_how_many_trials_are_stacked_is_measured_unless_it_is_given(dataset: Dataset) -> None:
    options: dict[str, dict[str, object]] = {"": {"device": "cpu"}, "search": {"num_layers": 2, "num_nodes": 4}}
    backend = NativeBackend(dataset.config.updated(options), dataset, batched=True)
    assert 1 <= backend.at_once <= 64
    not_to_be_batched = {**options, "search": {**options["search"], "optimizer": "lbfgs"}}
    assert NativeBackend(dataset.config.updated(not_to_be_batched), dataset, batched=True).at_once == 1


def test_looking_at_the_potential_during_training_changes_nothing(dataset: Dataset) -> None:
    backend = backend_of(dataset)
    options = Hyperparameters(num_nodes=8, lr=0.02, batchnorm=True)
    undisturbed = [record.val_energy_mae for record in backend.start(options, 0)]
    run, looked = backend.start(options, 0), []
    for record in run:
        looked.append(record.val_energy_mae)
        run.potential()
    assert looked == undisturbed


def test_on_the_builtin_data_a_few_epochs_beat_the_reference_energies(tmp_path: Path) -> None:
    groups = {"descriptor": {"orders": [0, 1, 2], "sigmas": 5, "cutoff": 4.0}, "training": {"epochs": 8}}
    data = prepare(load_config(None, {**groups, "": {"device": "cpu"}}), tmp_path)
    run = make_backend(data.config, data).start(Hyperparameters(), seed=0)
    list(run)
    assert run.best is not None
    potential = run.potential()
    for split in (data.train, data.validation):
        structures = split.structures
        baseline = np.abs(data.references.of(structures.atoms) - structures.energies).mean()
        predicted = potential.predict_features(split.features, structures.atoms)
        assert np.abs(predicted - structures.energies).mean() < 0.8 * baseline
