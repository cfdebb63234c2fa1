"""What a prediction costs on this machine."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from ase import Atoms

from bdqm_tune.descriptors import Descriptor
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.potential import Potential

REPEATS = 5
SAMPLE = 30  # structures
THREADS = 1  # those of small networks wait for each other


@dataclass(frozen=True)
class Cost:
    """Processor's seconds an atom, structure after structure, as in a calculator: medians of `REPEATS` passes."""

    descriptor: float  # s/atom
    network: float  # s/atom, energies from features
    with_forces: float  # s/atom, energies and forces, descriptor included

    def metrics(self) -> dict[str, float]:
        """As they are recorded."""
        return {
            "descriptor_seconds_per_atom": self.descriptor,
            "network_seconds_per_atom": self.network,
            "inference_seconds_per_atom": self.descriptor + self.network,
            "inference_seconds_per_atom_with_forces": self.with_forces,
        }


def measure_cost(model: Potential | Ensemble, structures: list[Atoms]) -> Cost:
    """Predict `SAMPLE` of the structures, evenly from their order, again and again on the CPU, in one thread."""
    some = structures[:: -(-len(structures) // SAMPLE)]
    parts = [(model.descriptor, [model])] if isinstance(model, Potential) else _parts(model)
    features = [(members, atoms, descriptor.compute(atoms)) for descriptor, members in parts for atoms in some]

    def describe() -> None:
        for descriptor, _ in parts:
            for atoms in some:
                descriptor.compute(atoms)

    def sum_up() -> None:
        for members, atoms, rows in features:
            for member in members:
                member.predict_features(rows, [atoms])

    n_atoms, threads = sum(map(len, some)), torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        works = (describe, sum_up, lambda: model.predict(some))
        return Cost(*(_median_seconds(work) / n_atoms for work in works))
    finally:
        torch.set_num_threads(threads)


def _parts(ensemble: Ensemble) -> list[tuple[Descriptor, list[Potential]]]:
    return [(descriptor, [member for _, member in members]) for descriptor, members in ensemble.by_descriptor]


def _median_seconds(work: Callable[[], object]) -> float:
    """Processor's seconds of one call, but for the first, which may compile."""
    work()
    found = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found)
