"""The inputs of a network: scaled features of a split, on the device, or read from the disk batch by batch."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from bdqm_tune.descriptors import StoredDerivatives, StoredFeatures
from bdqm_tune.learning.scalers import Scaler
from bdqm_tune.learning.shared_memory import on_device


class ScaledFeatures:
    """The features of a split, read and scaled when they are used."""

    def __init__(
        self,
        stored: StoredFeatures,
        numbers: NDArray[np.int64],
        scaler: Scaler,
        dtype: torch.dtype,
    ) -> None:
        """
        Args:
            numbers: (total atoms,) atomic numbers.
            dtype: of the scaled features.
        """
        self._stored, self._numbers, self._scaler = stored, numbers, scaler
        self._first = np.cumsum(stored.count) - stored.count
        self.shape, self.dtype = stored.shape, dtype

    @property
    def n_bytes(self) -> int:
        """Memory for all of it, bytes."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def load(self, device: torch.device) -> torch.Tensor:
        """All of it (total atoms, n_features) on a device; on the CPU other processes share it, see `shared_memory`."""
        stored = self._stored
        key = stored.first.tobytes(), stored.count.tobytes(), self._scaler.key
        return on_device(self._rows, stored.shape, self.dtype, device, stored.file.path, key)

    def _rows(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        return self._pieces(self._stored, self._numbers)

    def read(self, structures: NDArray[np.int64], pinned: bool = False) -> torch.Tensor:
        """That of the structures at these indices, in this order, on the CPU.

        Args:
            pinned: in pinned memory, for asynchronous copies to a GPU.
        """
        chosen = self._stored.select(structures)
        shift = self._first[structures] - (np.cumsum(chosen.count) - chosen.count)
        atoms = np.arange(len(chosen)) + np.repeat(shift, chosen.count)
        features = torch.empty(chosen.shape, dtype=self.dtype, pin_memory=pinned)
        for rows, piece in self._pieces(chosen, self._numbers[atoms]):
            # With numpy, because torch would start threads in each reading thread.
            features.numpy()[rows] = piece
        return features

    def _pieces(
        self, stored: StoredFeatures, numbers: NDArray[np.int64]
    ) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        for piece in stored.pieces():
            yield piece.rows, self._scaler(piece.features, numbers[piece.rows])


class ScaledDerivatives:
    """The derivatives of the scaled features of a split by the positions, read and scaled when they are used."""

    def __init__(
        self, stored: StoredDerivatives, features: StoredFeatures, numbers: NDArray[np.int64], scaler: Scaler
    ) -> None:
        """
        Args:
            stored: of the unscaled features.
            features: of the same structures.
            numbers: (total atoms,) atomic numbers.
        """
        self.stored, self._features, self._numbers, self._scaler = stored, features, numbers, scaler
        self._first = np.cumsum(features.count) - features.count

    @property
    def key(self) -> bytes:
        """Identifies the scaler, see there."""
        return self._scaler.key

    def of_structure(self, i: int) -> NDArray[np.float64]:
        """Those (n_entries, 3, n_features), 1/Å, of the structure at this index."""
        own, stored = slice(i, i + 1), self.stored
        first, count = int(stored.first[i]), int(stored.count[i])
        centre = stored.centre[first : first + count]
        values = stored.values.read(stored.first[own], stored.count[own]).transpose(0, 2, 1)
        features = np.asarray(self._features.select(np.array([i])))
        return self._scaler.of_inputs(values, features[centre], self._numbers[self._first[i] + centre])
