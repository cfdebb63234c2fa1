"""Processor time of predictions on this machine."""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.descriptors import Descriptor
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.known_elements import UnknownElement
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.potential import Potential
from bdqm_tune.threads import torch_threads

REPEATS = 5
PASSES = 10  # the least time of these counts, where models are compared
SAMPLE = 30  # structures
THREADS = 1  # more threads of a small network wait for each other


@dataclass(frozen=True)
class Cost:
    """Processor's seconds per atom, structure after structure as in a calculator: medians of `REPEATS` passes."""

    descriptor: float  # s/atom
    network: float  # s/atom, energies from features; of a model without a descriptor, energies
    with_forces: float  # s/atom, energies and forces, descriptor included

    def metrics(self) -> dict[str, float]:
        """The costs under the names that are logged, s/atom."""
        return {
            "descriptor_seconds_per_atom": self.descriptor,
            "network_seconds_per_atom": self.network,
            "inference_seconds_per_atom": self.descriptor + self.network,
            "inference_seconds_per_atom_with_forces": self.with_forces,
        }


def measure_cost(model: Potential | Ensemble, structures: list[Atoms]) -> Cost:
    """Measure predictions of `SAMPLE` structures, evenly spaced in their order, on the CPU in one thread.

    Their elements are not checked.
    """
    some = some_of(structures)
    parts, others = _parts(model)
    features = [(members, atoms, descriptor.compute(atoms)) for descriptor, members in parts for atoms in some]

    def describe() -> None:
        for descriptor, _ in parts:
            for atoms in some:
                descriptor.compute(atoms)

    def sum_up() -> None:
        for members, atoms, rows in features:
            for member in members:
                member.predict_features(rows, [atoms])
        for other in others:
            for atoms in some:
                other.evaluate(atoms, False)

    works = (describe, sum_up, lambda: model.predict(some, True, allow_unknown_elements=True))
    with torch_threads(THREADS), warnings.catch_warnings(action="ignore", category=UnknownElement):
        return Cost(*(_median_seconds(work) / sum(map(len, some)) for work in works))


def some_of(structures: list[Atoms]) -> list[Atoms]:
    """At most `SAMPLE` of the structures, evenly spaced in their order."""
    return structures[:: -(-len(structures) // SAMPLE)]


def descriptor_seconds(descriptor: Descriptor, structures: list[Atoms]) -> float:
    """Processor's seconds per atom for the features of structures, one after the other: the least of `PASSES`."""
    return _least_seconds(lambda: [descriptor.compute(atoms) for atoms in structures]) / sum(map(len, structures))


def energy_seconds(potential: Potential, structures: list[Atoms]) -> float:
    """Processor's seconds per atom for energies of structures, one after the other: the least of `PASSES`."""
    with torch_threads(THREADS):
        return _least_seconds(lambda: [potential.evaluate(atoms, False) for atoms in structures]) / sum(
            map(len, structures)
        )


def network_seconds(potential: NetworkPotential, structures: list[Atoms], features: list[NDArray[np.float64]]) -> float:
    """Processor's seconds per atom for energies from features, each (n_atoms, n_features): the least of `PASSES`."""
    pairs = list(zip(features, structures, strict=True))
    work = lambda: [potential.predict_features(rows, [atoms]) for rows, atoms in pairs]  # noqa: E731
    with torch_threads(THREADS):
        return _least_seconds(work) / sum(map(len, structures))


def _parts(model: Potential | Ensemble) -> tuple[list[tuple[Descriptor, list[NetworkPotential]]], list[Potential]]:
    """The networks of a model by the descriptors that they share, and what has no descriptor."""
    if isinstance(model, NetworkPotential):
        return [(model.descriptor, [model])], []
    if not isinstance(model, Ensemble):
        return [], [model]
    networks = [(descriptor, [member for _, member in members]) for descriptor, members in model.by_descriptor]
    return networks, [other for _, other in model.others]


def _least_seconds(work: Callable[[], object]) -> float:
    """Processor's seconds of this thread for one call: the least of `PASSES`.

    Other processes can only add to it: they take caches and memory.
    """
    return min(_seconds(work, PASSES, time.thread_time))


def _median_seconds(work: Callable[[], object]) -> float:
    """Processor's seconds of this process for one call: the median of `REPEATS`."""
    return statistics.median(_seconds(work, REPEATS, time.process_time))


def _seconds(work: Callable[[], object], passes: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of each call by a clock, without the first call, which may compile."""
    work()
    durations = []
    for _ in range(passes):
        start = clock()
        work()
        durations.append(clock() - start)
    return durations
