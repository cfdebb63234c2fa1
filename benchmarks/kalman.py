"""Whether a Kalman filter trains small networks better than Adam: errors on molybdenum and silicon.

python -m benchmarks.kalman [--data ../shared/data] [--only Mo Si] [--nodes 16] [--epochs 8] [--seeds 1]

A global extended Kalman filter (Blank and Brown, J. Chemometrics 8, 391 (1994)) on the features that a study whitens,
one update a structure: its energy and a random fifth of the components of its forces, with deviations of 0.005 eV/atom
and 0.15 eV/Å; forgetting from 0.98 to 1, P₀ = 1. Derivatives by the weights are torch's, which takes most of the time;
the filter itself costs the square of the number of weights. `docs/accuracy.md` has the figures beside Adam's.
"""

import argparse
import copy
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from torch import nn
from torch.func import functional_call, grad, jacrev

from bdqm_tune.config.config import Config, load_config
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning.batches import SplitTensors, split_tensors
from bdqm_tune.learning.dataset import prepare
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import AtomicNetwork, make_network
from bdqm_tune.structures import read_structures
from benchmarks.ablation import ELEMENTS, errors
from benchmarks.accuracy import DATA

ENERGY, FORCE = 0.005, 0.15  # deviations, eV/atom and eV/Å
SHARE = 0.2  # of the components of the forces in an update
FORGETTING, TO_ONE = 0.98, 0.997  # at the start, and the factor of what it is from 1 in an update


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is wanted and print the errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--only", nargs="+", choices=ELEMENTS, default=ELEMENTS, help="these elements")
    parser.add_argument("--nodes", type=int, nargs="+", default=[16], help="of each hidden layer")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for element in options.only:
        files = [options.data / "mlearn" / f"{element}_{name}.xyz" for name in ("train", "test")]
        config = configuration(files[0], options.nodes)
        with TemporaryDirectory(prefix="kalman-") as home:
            dataset = prepare(config, Path(home))
            train = split_tensors(dataset, dataset.train, torch.device("cpu"), torch.float64, with_forces=True)
            test = read_structures(str(files[1]), config.data)
            hyperparameters = Hyperparameters(**dataset.config.fixed)
            for seed in range(options.seeds):
                start = time.process_time()
                network = trained(train, hyperparameters, dataset.scale, options.epochs, seed)
                seconds = time.process_time() - start
                potential = NetworkPotential.from_dataset(dataset, hyperparameters, network)
                energy, forces = errors(potential.predict(test.atoms), test)
                print(f"{element}, seed {seed}: {energy:.2f} meV/atom | {forces:.4f} eV/Å, {seconds:.0f} CPU s")
    return 0


def configuration(train: Path, nodes: list[int]) -> Config:
    """The configuration that a study tries first, with other layers and in double precision."""
    first = Hyperparameters().model_dump(exclude={"hidden_layers", "num_layers", "num_nodes"})
    groups = {"data": {"train": str(train)}, "search": {**first, "hidden_layers": nodes}, "": {"device": "cpu"}}
    return load_config(None, {**groups, "training": {"precision": "float64"}})


def trained(train: SplitTensors, options: Hyperparameters, scale: float, epochs: int, seed: int) -> AtomicNetwork:
    """A network after some epochs of the filter.

    Args:
        scale: eV of one unit of the scaled targets.
    """
    torch.manual_seed(seed)
    network = make_network(train.n_features, options, []).double()
    names = [name for name, _ in network.named_parameters()]
    shapes = [value.shape for _, value in network.named_parameters()]
    weights = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    covariance, forgetting = np.eye(len(weights)), FORGETTING
    random = np.random.default_rng(seed)

    def outputs(weights: torch.Tensor, i: int, chosen: torch.Tensor) -> torch.Tensor:
        batch = train.batch(torch.tensor([i]))
        parts = weights.split([shape.numel() for shape in shapes])
        values = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}

        def energy(features: torch.Tensor) -> torch.Tensor:
            return functional_call(network, values, (features,)).sum()

        assert batch.forces is not None
        forces = batch.forces.forces(grad(energy)(batch.features)).reshape(-1)
        own = energy(batch.features)[None] / len(batch.features) / ENERGY
        return torch.cat([own, forces[chosen] / FORCE]) * scale

    def targets(i: int, chosen: torch.Tensor) -> NDArray[np.float64]:
        batch = train.batch(torch.tensor([i]))
        assert batch.forces is not None
        own = batch.targets / len(batch.features) / ENERGY
        found = torch.cat([own, batch.forces.targets.reshape(-1)[chosen] / FORCE]) * scale
        return found.numpy()

    for _ in range(epochs):
        for i in random.permutation(len(train)).tolist():
            components = 3 * int(train.n_atoms[i])
            chosen = torch.as_tensor(random.choice(components, max(1, int(SHARE * components)), replace=False))
            slopes = jacrev(outputs)(weights, i, chosen).detach().numpy()
            wrong = targets(i, chosen) - outputs(weights, i, chosen).detach().numpy()
            reach = covariance @ slopes.T
            inner = slopes @ reach + forgetting * np.eye(len(wrong))
            gain = cho_solve(cho_factor(inner), reach.T).T
            weights = weights + torch.as_tensor(gain @ wrong)
            covariance = (covariance - gain @ reach.T) / forgetting
            forgetting = 1 - (1 - forgetting) * TO_ONE
        covariance = (covariance + covariance.T) / 2  # which rounding makes unequal
    nn.utils.vector_to_parameters(weights, network.parameters())
    return copy.deepcopy(network)


if __name__ == "__main__":
    sys.exit(main())
