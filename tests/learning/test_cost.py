"""The cost of a prediction: of the parts that are said, and of one thread."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ase import Atoms

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.cost import _least_seconds, measure_cost, network_seconds
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import make_network


@pytest.fixture
def potential(dataset: Dataset) -> NetworkPotential:
    options = Hyperparameters(num_nodes=5, initialization="default")
    return NetworkPotential.from_dataset(dataset, options, make_network(dataset.descriptor.n_features, options, []))


def test_a_large_network_takes_longer(dataset: Dataset, alloys: Callable[..., list[Atoms]]) -> None:
    structures = alloys(n=6)
    features = [dataset.descriptor.compute(atoms) for atoms in structures]

    def seconds(num_layers: int) -> float:
        options = Hyperparameters(num_layers=num_layers, num_nodes=50)
        network = make_network(dataset.descriptor.n_features, options, [])
        return network_seconds(NetworkPotential.from_dataset(dataset, options, network), structures, features)

    assert seconds(100) > 2 * seconds(1)


def test_what_another_thread_does_meanwhile_does_not_count() -> None:
    """Work that waits takes nothing of the processor, though another thread takes all that it can."""
    done = threading.Event()
    worker = threading.Thread(target=lambda: [sum(range(1000)) for _ in iter(done.is_set, True)])
    worker.start()
    try:
        assert _least_seconds(lambda: time.sleep(0.05)) < 0.01
    finally:
        done.set()
        worker.join()


@pytest.mark.parametrize("kind", ["potential", "ensemble"])
def test_each_part_has_its_own_time(
    potential: NetworkPotential, dataset: Dataset, alloys: Callable[..., list[Atoms]], kind: str, monkeypatch: Any
) -> None:
    model = potential if kind == "potential" else Ensemble({"a": potential, "b": potential})
    structures = alloys(n=6)
    n_atoms = sum(map(len, structures))
    compute, threads = type(potential.descriptor).compute, torch.get_num_threads()
    seen = set()

    def slowly(descriptor: Any, atoms: Atoms) -> Any:
        seen.add(torch.get_num_threads())
        start = time.process_time()
        while time.process_time() < start + 0.02:
            pass
        return compute(descriptor, atoms)

    monkeypatch.setattr(type(potential.descriptor), "compute", slowly)
    cost = measure_cost(model, structures)
    assert seen == {1}
    assert torch.get_num_threads() == threads
    assert cost.descriptor > 0.02 * len(structures) / n_atoms, "members that share a descriptor compute it once"
    assert cost.descriptor < 2 * 0.02 * len(structures) / n_atoms
    assert 0 < cost.network < cost.descriptor
    assert cost.with_forces > 0
    assert cost.metrics()["inference_seconds_per_atom"] == cost.descriptor + cost.network
