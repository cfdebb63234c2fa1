"""A split as tensors on the device; a batch is an index into them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import Dataset, Split
from bdqm_tune.learning.forces import ForceBatch, ForceTensors

# Derivatives that are held at once while a split is gone through in order.
NUMBERS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Batch:
    """Some structures of a split."""

    features: torch.Tensor  # (n_atoms, n_features), scaled
    structure: torch.Tensor  # (n_atoms,) which of the batch's structures the atom belongs to
    targets: torch.Tensor  # (n_structures,), scaled
    n_atoms: torch.Tensor  # (n_structures,)
    numbers: torch.Tensor | None = None  # (n_atoms,) atomic numbers, where they are asked for
    forces: ForceBatch | None = None  # where forces are trained


class SplitTensors:
    """All structures of a split, atoms one after the other."""

    def __init__(
        self,
        features: NDArray[np.float64],
        n_atoms: NDArray[np.int64],
        targets: NDArray[np.float64],
        device: torch.device,
        dtype: torch.dtype,
        numbers: NDArray[np.int64] | None = None,
        forces: ForceTensors | None = None,
    ) -> None:
        """
        Args:
            features: (total atoms, n_features), scaled.
            n_atoms: (n_structures,) atoms of each structure.
            targets: (n_structures,), scaled.
            numbers: (total atoms,) atomic numbers.
            forces: of the same structures, on the same device, for training on forces.
        """
        self.features = torch.as_tensor(features, dtype=dtype, device=device)
        self.n_atoms = torch.as_tensor(n_atoms, device=device)
        self.targets = torch.as_tensor(targets, dtype=dtype, device=device)
        self.first = torch.cumsum(self.n_atoms, 0) - self.n_atoms
        self.numbers = None if numbers is None else torch.as_tensor(numbers, dtype=torch.int64, device=device)
        self.forces = forces

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def components(self) -> int:
        """Components of all forces."""
        return 3 * len(self.features)

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that occur, where they are known."""
        return [] if self.numbers is None else torch.unique(self.numbers).tolist()

    def batch(self, structures: torch.Tensor, by_element: bool = False) -> Batch:
        """The structures at these indices (n,), in this order.

        Args:
            by_element: with atomic numbers, the fetching of which takes a little time.
        """
        n_atoms = self.n_atoms[structures]
        structure = torch.repeat_interleave(n_atoms)
        start = torch.cumsum(n_atoms, 0) - n_atoms
        atoms = torch.arange(len(structure), device=n_atoms.device) + (self.first[structures] - start)[structure]
        numbers = self.numbers[atoms] if by_element and self.numbers is not None else None
        forces = None if self.forces is None else self.forces.batch(structures.tolist(), start, atoms)
        return Batch(self.features[atoms], structure, self.targets[structures], n_atoms, numbers, forces)

    def in_batches(self, order: torch.Tensor, sizes: Sequence[int], by_element: bool = False) -> Iterator[Batch]:
        """The structures in an order (n,), so many in each batch."""
        for structures in order.to(self.targets.device).split(list(sizes)):
            yield self.batch(structures, by_element)

    def in_order(self, batch_size: int = 4096, by_element: bool = False) -> Iterator[Batch]:
        """All structures once, in order; at most `batch_size` at a time, fewer where derivatives take much memory."""
        if self.forces is not None:
            batch_size = max(1, min(batch_size, int(NUMBERS_AT_ONCE / self.forces.numbers_an_image)))
        for structures in torch.arange(len(self), device=self.targets.device).split(batch_size):
            yield self.batch(structures, by_element)


def batch_sizes(n_structures: int, batch_size: int) -> list[int]:
    """How many structures each batch of an epoch has.

    A single one left over joins the batch before it: batch normalisation cannot train on one atom.
    """
    sizes = [batch_size] * (n_structures // batch_size)
    left = n_structures % batch_size
    if left == 1 and sizes:
        sizes[-1] += 1
    elif left:
        sizes.append(left)
    return sizes


def split_tensors(
    dataset: Dataset,
    split: Split,
    device: torch.device,
    dtype: torch.dtype,
    with_forces: bool = False,
) -> SplitTensors:
    """A split of a dataset on a device.

    Args:
        with_forces: with forces and derivatives, for training on forces.
    """
    structures, numbers, forces = split.structures, split.numbers, None
    if with_forces:
        if split.derivatives is None or structures.forces is None:
            raise BadInput("training.forces: the data was prepared without derivatives; prepare it with the option set")
        labels = np.concatenate(structures.forces) / dataset.scale
        forces = ForceTensors(labels, dataset.scaler.slope(split.features, numbers), split.derivatives, device, dtype)
    return SplitTensors(
        dataset.scaled_features(split),
        structures.n_atoms,
        dataset.scaled_targets(split),
        device,
        dtype,
        numbers,
        forces,
    )
