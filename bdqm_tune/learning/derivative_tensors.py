"""The derivatives of a split's features as tensors: on the device, or read from the disk batch by batch."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bdqm_tune.learning.memory_budget import MemoryBudget
from bdqm_tune.learning.scaled_features import ScaledDerivatives
from bdqm_tune.learning.shared_memory import on_device


class Chosen(NamedTuple):
    """Some structures of a split by their indices, twice: to read either from the other's place, a GPU would wait."""

    indices: list[int]
    on_device: torch.Tensor  # (n,) the same


class Entries(NamedTuple):
    """The derivatives of some structures."""

    centre: torch.Tensor  # (n_entries,) atom of the batch whose features change
    atom: torch.Tensor  # (n_entries,) atom of the batch that is moved
    values: torch.Tensor  # (n_entries, k, n_features) of the scaled features by k numbers


class DerivativeTensors:
    """The derivatives of a split; what is beyond the memory budget is read when it is used."""

    def __init__(
        self,
        derivatives: ScaledDerivatives,
        device: torch.device,
        dtype: torch.dtype,
        room: MemoryBudget | None = None,
    ) -> None:
        """
        Args:
            room: memory budget of the device; None: unlimited.
        """
        self._derivatives, stored = derivatives, derivatives.stored
        self._device, self._dtype = device, dtype
        self._values: torch.Tensor | None = None
        self._first, self._count = stored.first.tolist(), stored.count.tolist()
        self._count_on_device = torch.as_tensor(stored.count, device=device)
        self._pairs = torch.as_tensor(np.stack([stored.centre, stored.atom], axis=1), device=device)
        _, n_features, k = stored.values.shape
        self._shape = k, n_features
        n_numbers = sum(self._count) * k * n_features
        self.numbers_an_image = n_numbers / max(1, len(self._count))
        if room is None or room.take(n_numbers * dtype.itemsize):
            self._load()

    @property
    def loaded(self) -> bool:
        """Whether the derivatives are on the device."""
        return self._values is not None

    def _load(self) -> None:
        """Bring the split's own entries to the device, one after the other; see `shared_memory`."""
        stored = self._derivatives.stored
        shape = sum(self._count), *self._shape
        key = stored.first.tobytes(), stored.count.tobytes(), self._derivatives.key
        self._values = on_device(self._rows, shape, self._dtype, self._device, stored.values.path, key)
        pairs = [self._pairs[begin : begin + n] for begin, n in zip(self._first, self._count, strict=True)]
        self._pairs, self._first = torch.cat(pairs), (np.cumsum(stored.count) - stored.count).tolist()

    def _rows(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        place = 0
        for i, count in enumerate(self._count):
            yield slice(place, place + count), self._derivatives.of_structure(i)
            place += count

    def read(self, structures: Sequence[int], pinned: bool = False) -> torch.Tensor:
        """The derivatives (n_entries, k, n_features) of the structures at these indices, on the CPU.

        Args:
            pinned: in pinned memory, for asynchronous copies to a GPU.
        """
        n_entries, place = sum(self._count[i] for i in structures), 0
        values = torch.empty((n_entries, *self._shape), dtype=self._dtype, pin_memory=pinned)
        for i in structures:
            values.numpy()[place : place + self._count[i]] = self._derivatives.of_structure(i)
            place += self._count[i]
        return values

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """The loaded arrays: first and count (n_structures,), centre and atom (n_entries,), values."""
        assert self._values is not None
        pairs = self._pairs.numpy()
        return (
            np.array(self._first, dtype=np.int64),
            np.array(self._count, dtype=np.int64),
            np.ascontiguousarray(pairs[:, 0]),
            np.ascontiguousarray(pairs[:, 1]),
            self._values.numpy(),
        )

    def batch(self, structures: Chosen, start: torch.Tensor, read: torch.Tensor | None = None) -> Entries:
        """The derivatives of these structures, in this order.

        Args:
            start: (n_structures,) index in the batch of each structure's first atom.
            read: their derivatives from `read`, if the derivatives are not on the device.
        """
        counts = [self._count[i] for i in structures.indices]
        pieces = [slice(self._first[i], self._first[i] + n) for i, n in zip(structures.indices, counts, strict=True)]
        repeats = self._count_on_device[structures.on_device]
        shift = torch.repeat_interleave(start, repeats, output_size=sum(counts))
        pairs = torch.cat([self._pairs[piece] for piece in pieces]) + shift[:, None]
        if self._values is not None:
            values = torch.cat([self._values[piece] for piece in pieces])
        else:
            assert read is not None
            values = read.to(start.device, non_blocking=True)
        return Entries(pairs[:, 0], pairs[:, 1], values)
