"""Forces by the chain rule: from the network's gradient and the features' derivatives, entry by entry.

The force on atom k is F_k = -Σ_i Σ_f dE/dG_if · dG_if/dr_k, the sum over the centres i, k included, that have k within
their cutoff. Memory and time grow with the number of neighbour pairs, never with the square of the number of atoms.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bdqm_tune.learning.memory_budget import MemoryBudget
from bdqm_tune.learning.scaled_features import ScaledDerivatives
from bdqm_tune.learning.shared_memory import on_device


@dataclass(frozen=True)
class ForceBatch:
    """The derivatives and the forces of some structures."""

    centre: torch.Tensor  # (n_entries,) atom of the batch whose features change
    atom: torch.Tensor  # (n_entries,) atom of the batch that is moved
    values: torch.Tensor  # (n_entries, 3, n_features) of the scaled features, 1/Å
    targets: torch.Tensor  # (n_atoms, 3), 1/Å: in units of the energy scale; 0 where they are not known
    known: torch.Tensor | None = None  # (n_atoms, 1) 1 where forces are known, else 0; None: all are

    def errors(self, forces: torch.Tensor) -> torch.Tensor:
        """Errors (n_atoms, 3) of forces, 1/Å; 0 where the true ones are not known."""
        errors = forces - self.targets
        return errors if self.known is None else errors * self.known

    def loss(self, loss: nn.Module, forces: torch.Tensor) -> torch.Tensor:
        """The mean loss of the components that are known; 0 if none is."""
        mean: torch.Tensor = loss(forces if self.known is None else forces * self.known, self.targets)
        return mean if self.known is None else mean * len(self.known) / self.known.sum().clamp(min=1)

    def forces(self, gradient: torch.Tensor) -> torch.Tensor:
        """Forces (n_atoms, 3), 1/Å, from the gradient (n_atoms, n_features) of the energy by the scaled features."""
        felt = gradient.index_select(0, self.centre)
        pulls = torch.bmm(self.values, felt[:, :, None])[:, :, 0]
        return -gradient.new_zeros(len(gradient), 3).index_add(0, self.atom, pulls)


class ForceTensors:
    """Forces and derivatives of a split; derivatives beyond the memory budget are read when they are used."""

    def __init__(
        self,
        forces: NDArray[np.float64],
        derivatives: ScaledDerivatives,
        device: torch.device,
        dtype: torch.dtype,
        room: MemoryBudget | None = None,
    ) -> None:
        """
        Args:
            forces: (total atoms, 3), 1/Å, in units of the energy scale; NaN where they are not known.
            derivatives: of the split's scaled features.
            room: memory budget of the device; None: unlimited.
        """
        known = ~np.isnan(forces).any(axis=1, keepdims=True)
        self.n_known = int(known.sum())  # atoms
        self._known = None if known.all() else torch.as_tensor(known, dtype=dtype, device=device)
        self._targets = torch.as_tensor(np.where(known, forces, 0.0), dtype=dtype, device=device)
        self._derivatives, stored = derivatives, derivatives.stored
        self._values: torch.Tensor | None = None
        self._first, self._count = stored.first.tolist(), stored.count.tolist()
        self._pairs = torch.as_tensor(np.stack([stored.centre, stored.atom], axis=1), device=device)
        n_numbers = 3 * sum(self._count) * stored.values.shape[1]
        self.numbers_an_image = n_numbers / max(1, len(self._count))
        if room is None or room.take(n_numbers * dtype.itemsize):
            self._load()

    @property
    def loaded(self) -> bool:
        """Whether the derivatives are on the device."""
        return self._values is not None

    def _load(self) -> None:
        """Bring the split's own entries to the device, one after the other; see `shared_memory`."""
        stored, targets = self._derivatives.stored, self._targets
        shape = sum(self._count), 3, stored.values.shape[1]
        key = stored.first.tobytes(), stored.count.tobytes(), self._derivatives.key
        self._values = on_device(self._rows, shape, targets.dtype, targets.device, stored.values.path, key)
        pairs = [self._pairs[begin : begin + n] for begin, n in zip(self._first, self._count, strict=True)]
        self._pairs, self._first = torch.cat(pairs), (np.cumsum(stored.count) - stored.count).tolist()

    def _rows(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        place = 0
        for i, count in enumerate(self._count):
            yield slice(place, place + count), self._derivatives.of_structure(i)
            place += count

    def read(self, structures: Sequence[int], pinned: bool = False) -> torch.Tensor:
        """The derivatives (n_entries, 3, n_features), 1/Å, of the structures at these indices, on the CPU.

        Args:
            pinned: in pinned memory, for asynchronous copies to a GPU.
        """
        values, place = self._empty(sum(self._count[i] for i in structures), pin_memory=pinned), 0
        for i in structures:
            values.numpy()[place : place + self._count[i]] = self._derivatives.of_structure(i)
            place += self._count[i]
        return values

    def _empty(self, n_entries: int, **options: Any) -> torch.Tensor:
        return torch.empty(
            (n_entries, 3, self._derivatives.stored.values.shape[1]), dtype=self._targets.dtype, **options
        )

    def arrays(self, first: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """The loaded arrays, in the order of `compiled.kernel.Data`.

        Args:
            first: (n_structures,) index of each structure's first atom.
        """
        assert self._values is not None
        pairs = self._pairs.numpy()
        known = np.ones(len(first), dtype=bool) if self._known is None else self._known.numpy()[first, 0] > 0
        return (
            np.array(self._first, dtype=np.int64),
            np.array(self._count, dtype=np.int64),
            np.ascontiguousarray(pairs[:, 0]),
            np.ascontiguousarray(pairs[:, 1]),
            self._values.numpy(),
            self._targets.numpy(),
            known,
        )

    def batch(
        self,
        structures: Sequence[int],
        start: torch.Tensor,
        atoms: torch.Tensor,
        read: torch.Tensor | None = None,
    ) -> ForceBatch:
        """Forces and derivatives of the structures at these indices, in this order.

        Args:
            start: (n_structures,) index in the batch of each structure's first atom.
            atoms: (n_atoms,) index in the split of each of the batch's atoms.
            read: their derivatives from `read`, if the derivatives are not on the device.
        """
        counts = [self._count[i] for i in structures]
        pieces = [slice(self._first[i], self._first[i] + n) for i, n in zip(structures, counts, strict=True)]
        shift = torch.repeat_interleave(start, torch.tensor(counts, device=start.device), output_size=sum(counts))
        pairs = torch.cat([self._pairs[piece] for piece in pieces]) + shift[:, None]
        if self._values is not None:
            values = torch.cat([self._values[piece] for piece in pieces])
        else:
            assert read is not None
            values = read.to(start.device, non_blocking=True)
        known = None if self._known is None else self._known[atoms]
        return ForceBatch(pairs[:, 0], pairs[:, 1], values, self._targets[atoms], known)
