"""The errors of single structures that a network was not trained on, from which the errors of an epoch follow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bdqm_tune.config.config import Objective
from bdqm_tune.learning.batches import SplitTensors
from bdqm_tune.learning.metrics import energy_and_forces
from bdqm_tune.learning.networks import AtomicNetwork
from bdqm_tune.learning.torch_epochs import predict_batch

MOST_GROUPS = 50  # so that the errors of a trial stay small, whatever the number of structures


@dataclass(frozen=True)
class HeldOut:
    """The errors of structures by a network that was not trained on them."""

    energies: NDArray[np.float64]  # (n_structures,), eV, predicted less true
    n_atoms: NDArray[np.int64]  # (n_structures,)
    forces: NDArray[np.float64]  # (n_structures,), eV/Å, sum of the absolute errors of the known components
    components: NDArray[np.int64]  # (n_structures,) of the force that are known; 0 where forces are not trained

    def by_group(self, objective: Objective) -> list[float]:
        """Parts of the objective, in its unit, whose mean it is: one for each of `MOST_GROUPS` groups at most.

        A group has structures that follow each other, which in the frames of a trajectory are not independent.
        """
        n = len(self.energies)
        errors = np.abs(self.energies)
        forces = self.forces / max(1, int(self.components.sum()))
        parts = {
            "val_energy_mae": errors / n,
            "val_energy_mae_per_atom": errors / self.n_atoms / n,
            "val_forces_mae": forces,
            "val_energy_forces": energy_and_forces(errors / self.n_atoms / n, forces),
        }
        n_groups = min(n, MOST_GROUPS)
        group = np.arange(n) * n_groups // n
        return (n_groups * np.bincount(group, parts[objective], n_groups)).tolist()


def held_out(network: AtomicNetwork, split: SplitTensors, scale: float) -> HeldOut:
    """The errors of a network on a split.

    Args:
        network: in evaluation mode.
        scale: eV of one unit of the scaled targets.
    """
    network = network.to(split.device)
    energies, forces, components = [], [], []
    for batch in split.in_order(by_element=bool(network.elements)):
        predicted = predict_batch(network, batch, train=False)
        pulls = predicted.forces
        energies.append(predicted.energies.detach() - batch.targets)
        n, atoms = len(batch.targets), batch.n_atoms
        sums = batch.targets.new_zeros(n)
        if batch.forces is None or pulls is None:
            components.append(torch.zeros_like(atoms))
        else:
            errors = batch.forces.errors(pulls.detach()).abs().sum(dim=1, dtype=torch.float64)
            sums = sums.index_add(0, batch.structure, errors)
            known = batch.forces.known
            counts = torch.ones_like(batch.structure) if known is None else known[:, 0].to(batch.structure.dtype)
            components.append(3 * torch.zeros_like(atoms).index_add(0, batch.structure, counts))
        forces.append(sums)
    return HeldOut(
        scale * torch.cat(energies).numpy(force=True),
        split.n_atoms.numpy(force=True),
        scale * torch.cat(forces).numpy(force=True),
        torch.cat(components).numpy(force=True),
    )


def joined(parts: Sequence[HeldOut], places: NDArray[np.int64]) -> HeldOut:
    """Those of several networks as one.

    Args:
        places: (n_structures,) index, among all structures, of those of the parts one after the other.
    """
    order = np.argsort(places)
    return HeldOut(
        *(
            np.concatenate([getattr(part, name) for part in parts])[order]
            for name in ("energies", "n_atoms", "forces", "components")
        )
    )
