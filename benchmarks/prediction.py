"""CPU milliseconds of one structure a call, as in molecular dynamics: energy and forces of a calculator in ASE.

python -m benchmarks.prediction [--repeats 7] [--seconds 0.3]

For a molecule of water, 64 atoms of silicon and a slab of 200 atoms of copper, which move a little before each call; on
one thread, with a network of the default size in single precision. Each is measured in turns, in one run, with

    ASE alone            a calculator that computes nothing
    all derivatives      forces from `sparse_derivatives`, as training has them, and torch's operations

and the medians of all turns count. Times are of the CPU, for other work on a machine disturbs those of a clock.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator, all_changes
from threadpoolctl import threadpool_limits

from bdqm_tune.config.descriptor_options import DescriptorOptions
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors import Descriptor, SymmetryFunctions, descriptor_from_options
from bdqm_tune.learning.calculator import PotentialCalculator
from bdqm_tune.learning.contributions import TorchContributions
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import make_network
from bdqm_tune.learning.scalers import fit_scaler
from bdqm_tune.learning.targets import NO_REFERENCES
from benchmarks.settings import SYMMETRY
from benchmarks.training import processor


class Nothing(Calculator):  # type: ignore[misc]
    """What ASE itself takes for each call."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  (ASE's own form)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3))}


def structures() -> dict[str, Atoms]:
    """The structures by name."""
    made = {
        "water, 3 atoms": molecule("H2O"),
        "silicon, 64 atoms": bulk("Si", cubic=True).repeat(2),
        "copper slab, 200 atoms": fcc111("Cu", size=(5, 5, 8), vacuum=8.0),
    }
    for atoms in made.values():
        atoms.positions += np.random.default_rng(0).normal(scale=0.05, size=atoms.positions.shape)
    return made


def descriptors(atoms: Atoms) -> dict[str, Descriptor]:
    """The descriptors by name, for the elements of a structure."""
    elements = sorted(set(atoms.get_chemical_symbols()))
    return {
        "gmp (default)": descriptor_from_options(DescriptorOptions()),
        "symmetry functions": SymmetryFunctions(elements, **SYMMETRY["sf_cosine"]),
    }


def potential_for(descriptor: Descriptor, atoms: Atoms) -> NetworkPotential:
    """A potential with the scaler of a training on such structures, and random weights."""
    features, random = [], np.random.default_rng(1)
    for _ in range(10):
        moved = atoms.copy()
        moved.positions += random.normal(scale=0.1, size=atoms.positions.shape)
        features.append(descriptor.compute(moved))
    rows, numbers = np.concatenate(features), np.tile(atoms.numbers, len(features))
    scaler = fit_scaler(lambda: [(rows, numbers)], "whiten")
    torch.manual_seed(0)
    options = Hyperparameters(initialization="xavier")
    network = make_network(descriptor.n_features, options, []).eval()
    known = tuple(sorted(set(atoms.numbers.tolist())))
    return NetworkPotential(descriptor, scaler, NO_REFERENCES, 1.0, options, network, 0.0, True, known)


def with_all_derivatives(potential: NetworkPotential, atoms: Atoms) -> Any:
    """Energy and forces by way of the derivatives of every feature, and by torch's operations."""
    features, derivatives = potential.descriptor.sparse_derivatives(atoms)
    inputs = potential.scaler(features, atoms.numbers)
    outputs, by_inputs = TorchContributions(potential.network)(inputs, atoms.numbers, True)
    assert by_inputs is not None
    return outputs.sum(), derivatives.forces(potential.scaler.by_features(by_inputs, features, atoms.numbers))


def in_turns(works: dict[str, Callable[[], object]], repeats: int, seconds: float) -> dict[str, float]:
    """CPU milliseconds of a call of each: medians of the turns, each of which takes about that many seconds."""
    times: dict[str, list[float]] = {name: [] for name in works}
    calls = {}
    for name, work in works.items():
        work()
        start = time.perf_counter()
        work()
        calls[name] = max(1, int(seconds / (time.perf_counter() - start)))
    for _ in range(repeats):
        for name, work in works.items():
            start = time.process_time()
            for _ in range(calls[name]):
                work()
            times[name].append((time.process_time() - start) / calls[name] * 1e3)
    return {name: median(each) for name, each in times.items()}


def row(name: str, kind: str, atoms: Atoms, descriptor: Descriptor, repeats: int, seconds: float) -> dict[str, object]:
    """A row of the table."""
    potential = potential_for(descriptor, atoms)
    random = np.random.default_rng(2)
    steps = random.normal(scale=0.01, size=(100, *atoms.positions.shape))
    at, start = iter(range(10**9)), atoms.positions.copy()

    def moved(calculator: Calculator, energy_only: bool = False) -> Callable[[], object]:
        own = atoms.copy()
        own.calc = calculator

        def work() -> object:
            own.positions = start + steps[next(at) % len(steps)]
            return own.get_potential_energy() if energy_only else own.get_forces()

        return work

    found = in_turns(
        {
            "ASE alone": moved(Nothing()),
            "energy": moved(PotentialCalculator(potential), energy_only=True),
            "energy and forces": moved(PotentialCalculator(potential)),
            "all derivatives": lambda: with_all_derivatives(potential, atoms),
        },
        repeats,
        seconds,
    )
    own = found["energy and forces"] - found["ASE alone"]
    return {
        "structure": name,
        "descriptor": f"{kind}, {descriptor.n_features}",
        **found,
        "less ASE": own,
        "ratio": found["all derivatives"] / own,
    }


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="turns (7)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement in a turn (0.3)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        rows = [
            row(name, kind, atoms, descriptor, options.repeats, options.seconds)
            for name, atoms in structures().items()
            for kind, descriptor in descriptors(atoms).items()
        ]
    print(f"{processor()}, one thread; CPU ms a call, medians of {options.repeats}")
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
