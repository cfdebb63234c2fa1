"""Splits as tensors, on the device as far as they fit; a batch is an index into a split."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import Dataset, Split
from bdqm_tune.learning.derivative_tensors import Chosen, DerivativeTensors
from bdqm_tune.learning.forces import ForceBatch, ForceTensors
from bdqm_tune.learning.memory_budget import MemoryBudget
from bdqm_tune.learning.scaled_features import ScaledDerivatives, ScaledFeatures
from bdqm_tune.learning.stress import StressBatch, StressTensors
from bdqm_tune.threads import in_threads

# Features and derivatives held at once while a split is read in order.
NUMBERS_AT_ONCE = 2**24
MOST_AHEAD, BYTES_AHEAD = 8, 2**28  # batches read ahead of their use, at most
READERS = 4  # threads that read and scale them, at most


@dataclass(frozen=True)
class Batch:
    """Some structures of a split."""

    features: torch.Tensor  # (n_atoms, n_features), scaled
    structure: torch.Tensor  # (n_atoms,) which of the batch's structures the atom belongs to
    targets: torch.Tensor  # (n_structures,), scaled, float64
    n_atoms: torch.Tensor  # (n_structures,)
    numbers: torch.Tensor | None = None  # (n_atoms,) atomic numbers, if requested
    forces: ForceBatch | None = None  # if forces are trained
    stress: StressBatch | None = None  # if the stress is trained


class Read(NamedTuple):
    """The part of a batch that is read from the disk."""

    features: torch.Tensor | None
    derivatives: torch.Tensor | None
    strain_derivatives: torch.Tensor | None


class SplitTensors:
    """All structures of a split, atoms one after the other.

    Features and derivatives may stay on the disk: they are then read some batches ahead. The batches are the same.
    """

    def __init__(
        self,
        features: NDArray[np.float64] | torch.Tensor | ScaledFeatures,
        n_atoms: NDArray[np.int64],
        targets: NDArray[np.float64],
        device: torch.device,
        dtype: torch.dtype,
        numbers: NDArray[np.int64] | None = None,
        forces: ForceTensors | None = None,
        stress: StressTensors | None = None,
    ) -> None:
        """
        Args:
            features: (total atoms, n_features), scaled; if not an array: of this `dtype`, on the device or on the disk.
            n_atoms: (n_structures,) atoms of each structure.
            targets: (n_structures,), scaled.
            numbers: (total atoms,) atomic numbers.
            forces: of the same structures, on the same device, for training on forces.
            stress: the same, for training on forces and the stress.
        """
        if isinstance(features, np.ndarray):
            features = torch.as_tensor(features, dtype=dtype, device=device)
        self._inputs, self.device, self.dtype = features, device, dtype
        self._total_atoms, self.n_features = features.shape
        self._atoms_on_cpu = np.asarray(n_atoms)
        self.n_atoms = torch.as_tensor(n_atoms, device=device)
        # Energies keep float64, as what they are compared with: sums over all atoms of a structure.
        self.targets = torch.as_tensor(targets, dtype=torch.float64, device=device)
        self.first = torch.cumsum(self.n_atoms, 0) - self.n_atoms
        self.numbers = None if numbers is None else torch.as_tensor(numbers, dtype=torch.int64, device=device)
        # Atomic numbers that occur, ascending; empty if they are not known.
        self.elements: list[int] = [] if numbers is None else np.unique(numbers).tolist()
        self.forces, self.stress = forces, stress

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def features(self) -> torch.Tensor | None:
        """(total atoms, n_features), scaled; None if they are on the disk."""
        return self._inputs if isinstance(self._inputs, torch.Tensor) else None

    @property
    def components(self) -> int:
        """Number of force components that are known, 3 per atom."""
        return 3 * (self._total_atoms if self.forces is None else self.forces.n_known)

    @property
    def stress_components(self) -> int:
        """Number of components of the stress that are known, 6 per structure; 0 if it is not trained."""
        return 0 if self.stress is None else 6 * self.stress.n_known

    @property
    def _derivatives(self) -> list[DerivativeTensors]:
        return [labels.derivatives for labels in (self.forces, self.stress) if labels is not None]

    @property
    def loaded(self) -> bool:
        """Whether all data is in memory."""
        return self.features is not None and all(derivatives.loaded for derivatives in self._derivatives)

    @property
    def _numbers_a_structure(self) -> float:
        """Features and derivatives of a structure, on average."""
        numbers = sum(derivatives.numbers_an_image for derivatives in self._derivatives)
        return self.n_features * self._total_atoms / len(self) + numbers

    def batch(self, structures: torch.Tensor, by_element: bool = False) -> Batch:
        """The structures at these indices (n,), in this order.

        Args:
            by_element: with atomic numbers, which take a little time to fetch.
        """
        chosen = Chosen(structures.tolist(), structures.to(self.device))
        return self._batch(chosen, self._read(structures), by_element)

    def in_order(self, batch_size: int = 4096, by_element: bool = False) -> Iterator[Batch]:
        """All structures once, in order; at most `batch_size` at a time, fewer where they take much memory."""
        size = max(1, min(batch_size, int(NUMBERS_AT_ONCE / self._numbers_a_structure)))
        return self.in_batches(torch.arange(len(self)), size, by_element)

    def in_batches(self, order: torch.Tensor, sizes: int | Sequence[int], by_element: bool = False) -> Iterator[Batch]:
        """Batches of structures. A GPU is not waited for, from the first batch to the last.

        Args:
            order: (n,) indices of the structures, on the CPU.
            sizes: number of structures in each batch; an integer: the same in all, fewer in the last.
        """
        sizes = sizes if isinstance(sizes, int) else list(sizes)
        parts = order.split(sizes)
        if self.loaded:
            reads: Iterator[Read] = map(self._read, parts)
        else:
            bytes_a_batch = len(parts[0]) * self._numbers_a_structure * self.dtype.itemsize
            ahead = max(1, min(MOST_AHEAD, int(BYTES_AHEAD / bytes_a_batch)))
            reads = in_threads(self._read, parts, min(ahead, READERS), ahead + 1)
        on_device = order.to(self.device, non_blocking=True).split(sizes)
        for part, structures, read in zip(parts, on_device, reads, strict=True):
            yield self._batch(Chosen(part.tolist(), structures), read, by_element)

    def _read(self, structures: torch.Tensor) -> Read:
        features, pinned = None, self.device.type == "cuda"
        if isinstance(self._inputs, ScaledFeatures):
            features = self._inputs.read(structures.numpy(force=True), pinned)

        def read(labels: ForceTensors | StressTensors | None) -> torch.Tensor | None:
            if labels is None or labels.derivatives.loaded:
                return None
            return labels.derivatives.read(structures.tolist(), pinned)

        return Read(features, read(self.forces), read(self.stress))

    def _batch(self, chosen: Chosen, read: Read, by_element: bool) -> Batch:
        structures = chosen.on_device
        n_atoms = self.n_atoms[structures]
        # Without the size a GPU would have to be waited for, to read it there.
        structure = torch.repeat_interleave(n_atoms, output_size=int(self._atoms_on_cpu[chosen.indices].sum()))
        start = torch.cumsum(n_atoms, 0) - n_atoms
        atoms = torch.arange(len(structure), device=n_atoms.device) + (self.first[structures] - start)[structure]
        numbers = self.numbers[atoms] if by_element and self.numbers is not None else None
        features = self._inputs[atoms] if isinstance(self._inputs, torch.Tensor) else read.features
        assert features is not None
        forces = stress = None
        if self.forces is not None:
            forces = self.forces.batch(chosen, start, atoms, read.derivatives)
        if self.stress is not None:
            stress = self.stress.batch(chosen, start, structure, read.strain_derivatives)
        features = features.to(self.device, non_blocking=True)
        return Batch(features, structure, self.targets[structures], n_atoms, numbers, forces, stress)


def batch_sizes(n_structures: int, batch_size: int) -> list[int]:
    """Number of structures in each batch of an epoch.

    A single one left over joins the batch before it: batch normalisation cannot train on one atom.
    """
    sizes = [batch_size] * (n_structures // batch_size)
    remainder = n_structures % batch_size
    if remainder == 1 and sizes:
        sizes[-1] += 1
    elif remainder:
        sizes.append(remainder)
    return sizes


def split_tensors(
    dataset: Dataset,
    split: Split,
    device: torch.device,
    dtype: torch.dtype,
    with_forces: bool = False,
    room: MemoryBudget | None = None,
    with_stress: bool = False,
) -> SplitTensors:
    """A split of a dataset on a device, as far as it fits into the memory budget.

    Args:
        with_forces: with forces and derivatives, for training on forces.
        room: memory budget of the device; None: unlimited.
        with_stress: with the stress and the derivatives by the strain, for training on both.

    Raises:
        BadInput: `with_forces` or `with_stress`, and the dataset has no forces, no stress or no derivatives.
    """
    structures, numbers, forces, stress = split.structures, split.numbers, None, None
    features = ScaledFeatures(split.features, numbers, dataset.scaler, dtype)
    fits = room is None or room.take(features.n_bytes)
    if with_forces:
        if split.derivatives is None or structures.forces is None:
            raise BadInput("training.forces: the data was prepared without derivatives; prepare it with the option set")
        labels = np.concatenate(structures.forces) / dataset.scale
        derivatives = ScaledDerivatives(split.derivatives, split.features, numbers, dataset.scaler)
        forces = ForceTensors(labels, derivatives, device, dtype, room)
    if with_stress:
        if split.strain_derivatives is None:
            raise BadInput("training.stress: the data was prepared without it; prepare it with the option set")
        derivatives = ScaledDerivatives(split.strain_derivatives, split.features, numbers, dataset.scaler)
        stresses, volumes = structures.stresses / dataset.scale, [abs(a.cell.volume) for a in structures.atoms]
        stress = StressTensors(stresses, np.array(volumes), structures.n_atoms, derivatives, device, dtype, room)
    return SplitTensors(
        features.load(device) if fits else features,
        structures.n_atoms,
        dataset.scaled_targets(split),
        device,
        dtype,
        numbers,
        forces,
        stress,
    )
