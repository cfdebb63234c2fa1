"""A split as tensors on the device; a batch is an index into them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Batch:
    """Some structures of a split."""

    features: torch.Tensor  # (n_atoms, n_features), scaled
    structure: torch.Tensor  # (n_atoms,) which of the batch's structures the atom belongs to
    targets: torch.Tensor  # (n_structures,), scaled
    n_atoms: torch.Tensor  # (n_structures,)


class SplitTensors:
    """All structures of a split, atoms one after the other."""

    def __init__(
        self,
        features: NDArray[np.float64],
        n_atoms: NDArray[np.int64],
        targets: NDArray[np.float64],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """
        Args:
            features: (total atoms, n_features), scaled.
            n_atoms: (n_structures,) atoms of each structure.
            targets: (n_structures,), scaled.
        """
        self.features = torch.as_tensor(features, dtype=dtype, device=device)
        self.n_atoms = torch.as_tensor(n_atoms, device=device)
        self.targets = torch.as_tensor(targets, dtype=dtype, device=device)
        self.first = torch.cumsum(self.n_atoms, 0) - self.n_atoms

    def __len__(self) -> int:
        return len(self.n_atoms)

    def batch(self, structures: torch.Tensor) -> Batch:
        """The structures at these indices (n,), in this order."""
        n_atoms = self.n_atoms[structures]
        structure = torch.repeat_interleave(n_atoms)
        start = torch.cumsum(n_atoms, 0) - n_atoms
        atoms = torch.arange(len(structure), device=n_atoms.device) + (self.first[structures] - start)[structure]
        return Batch(self.features[atoms], structure, self.targets[structures], n_atoms)

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """All structures once, in random order, `batch_size` at a time.

        A single one left over joins the batch before it: batch normalisation cannot train on one atom.
        """
        order = torch.randperm(len(self), generator=generator)
        sizes = [batch_size] * (len(self) // batch_size)
        left = len(self) % batch_size
        if left == 1 and sizes:
            sizes[-1] += 1
        elif left:
            sizes.append(left)
        for structures in order.to(self.targets.device).split(sizes):
            yield self.batch(structures)

    def in_order(self, batch_size: int = 4096) -> Iterator[Batch]:
        """All structures once, in order."""
        for structures in torch.arange(len(self), device=self.targets.device).split(batch_size):
            yield self.batch(structures)
