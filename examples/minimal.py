"""How a potential comes about, in one page: structures → features → network → training → energies and forces.

python examples/minimal.py

The parts are those that `bdqm-tune` itself is made of; what it adds to them is the rest of the package: early stopping,
schedules, compiled epochs, features that do not fit into memory, searches by many workers.
"""

import numpy as np
import torch

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors import GMP
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import make_network, sum_per_structure
from bdqm_tune.learning.scalers import fit_scaler
from bdqm_tune.learning.targets import fit_reference_energies, target_scale
from bdqm_tune.structures import builtin_structures

EPOCHS, BATCH = 60, 32


def main() -> float:
    """Train on the built-in data; the mean absolute error of the test energies, eV/atom."""
    torch.manual_seed(0)
    train, test = builtin_structures("train"), builtin_structures("test")
    elements = sorted({int(z) for atoms in train.atoms for z in atoms.numbers})

    # 1. Features: numbers that say what is around an atom, the same however the structure is turned.
    descriptor = GMP(orders=(0, 1, 2, 3), sigmas=(0.4, 0.8, 1.2, 1.6, 2.0), cutoff=6.0)
    features = np.concatenate([descriptor.compute(atoms) for atoms in train.atoms])  # (total atoms, n_features)
    numbers = np.concatenate([atoms.numbers for atoms in train.atoms])  # (total atoms,)
    scaler = fit_scaler(lambda: iter([(features, numbers)]), "whiten")

    # 2. Targets: what the energies of the elements do not explain, in units of its spread.
    references = fit_reference_energies(train.atoms, train.energies)
    residuals = train.energies - references.of(train.atoms)  # (n_structures,), eV
    scale = target_scale(residuals)

    # 3. A network for one atom; a structure's energy is the sum over its atoms.
    hyperparameters = Hyperparameters(num_layers=2, num_nodes=32, lr=3e-3)
    network = make_network(features.shape[1], hyperparameters, elements)
    x = torch.as_tensor(scaler(features, numbers), dtype=torch.float32)
    y = torch.as_tensor(residuals / scale, dtype=torch.float32)
    n_atoms = torch.as_tensor(train.n_atoms)
    atoms_of = torch.split(torch.arange(len(numbers)), n_atoms.tolist())  # rows of each structure

    # 4. The loop: batches of structures in a new order each epoch. The loss is per atom, so that all sizes count alike.
    optimizer = torch.optim.Adam(network.parameters(), lr=hyperparameters.lr)
    for epoch in range(1, EPOCHS + 1):
        losses = []
        for batch in torch.randperm(len(y)).split(BATCH):
            rows = torch.cat([atoms_of[i] for i in batch])
            owner = torch.repeat_interleave(torch.arange(len(batch)), n_atoms[batch])
            predicted = sum_per_structure(network(x[rows], torch.as_tensor(numbers)[rows]), owner, len(batch))
            loss = ((predicted - y[batch]) / n_atoms[batch]).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item() * scale)
        if epoch % 10 == 0:
            print(f"epoch {epoch:3d}: mean absolute error {1000 * np.mean(losses):.1f} meV/atom")

    # 5. All of it together is a potential, with forces by the chain rule.
    potential = NetworkPotential(descriptor, scaler, references, scale, hyperparameters, network.eval())
    predicted = potential.predict(test.atoms, forces=False).energies
    for name, energies in (("reference energies alone", references.of(test.atoms)), ("test", predicted)):
        error = float(np.mean(np.abs(energies - test.energies) / test.n_atoms))
        print(f"{name}: {1000 * error:.1f} meV/atom")
    print(f"force on the first atom: {potential.predict(test.atoms[:1]).forces[0][0]} eV/Å")
    return error


if __name__ == "__main__":
    main()
