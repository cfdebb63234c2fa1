"""The inputs of a network: scaled features of a split, on the device, or read from the disk batch by batch."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bdqm_tune.descriptors import StoredFeatures
from bdqm_tune.learning.scalers import Scaler
from bdqm_tune.learning.shared_memory import on_device


class Inputs(NamedTuple):
    """Scaled features of some atoms and, if requested, their derivatives by the unscaled ones."""

    features: torch.Tensor  # (n_atoms, n_features)
    slope: torch.Tensor | None = None  # (n_atoms, n_features)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_atoms, n_features)."""
        return self.features.shape[0], self.features.shape[1]

    def at(self, atoms: torch.Tensor) -> "Inputs":
        """Those of the atoms at these indices (n,)."""
        return Inputs(self.features[atoms], None if self.slope is None else self.slope[atoms])

    def to(self, device: torch.device) -> "Inputs":
        """The same on a device."""
        slope = None if self.slope is None else self.slope.to(device, non_blocking=True)
        return Inputs(self.features.to(device, non_blocking=True), slope)


class ScaledFeatures:
    """The features of a split, read and scaled when they are used."""

    def __init__(
        self,
        stored: StoredFeatures,
        numbers: NDArray[np.int64],
        scaler: Scaler,
        dtype: torch.dtype,
        with_slope: bool = False,
    ) -> None:
        """
        Args:
            numbers: (total atoms,) atomic numbers.
            dtype: of the scaled features.
            with_slope: with the derivatives by the unscaled features.
        """
        self._stored, self._numbers, self._scaler = stored, numbers, scaler
        self._first = np.cumsum(stored.count) - stored.count
        self.shape, self.dtype, self._with_slope = stored.shape, dtype, with_slope

    @property
    def n_bytes(self) -> int:
        """Memory for all of it, bytes."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize * (2 if self._with_slope else 1)

    def load(self, device: torch.device) -> Inputs:
        """All of it on a device; on the CPU shared with other processes where it is large, see `shared_memory`."""
        n_atoms, n_features = self.shape
        stored, shape = self._stored, (n_atoms * (2 if self._with_slope else 1), n_features)
        key = stored.first.tobytes(), stored.count.tobytes(), self._scaler.key
        rows = on_device(self._rows, shape, self.dtype, device, stored.file.path, key)
        return Inputs(rows[:n_atoms], rows[n_atoms:] if self._with_slope else None)

    def _rows(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """The features, and after those of all atoms the slopes."""
        n_atoms = self.shape[0]
        for rows, piece, slope in self._pieces(self._stored, self._numbers):
            yield rows, piece
            if self._with_slope:
                yield slice(n_atoms + rows.start, n_atoms + rows.stop), slope

    def read(self, structures: NDArray[np.int64], pinned: bool = False) -> Inputs:
        """That of the structures at these indices, in this order, on the CPU.

        Args:
            pinned: in pinned memory, for asynchronous copies to a GPU.
        """
        chosen = self._stored.select(structures)
        shift = self._first[structures] - (np.cumsum(chosen.count) - chosen.count)
        atoms = np.arange(len(chosen)) + np.repeat(shift, chosen.count)
        features = torch.empty(chosen.shape, dtype=self.dtype, pin_memory=pinned)
        slope = torch.empty(chosen.shape, dtype=self.dtype, pin_memory=pinned) if self._with_slope else None
        for rows, piece, piece_slope in self._pieces(chosen, self._numbers[atoms]):
            # With numpy, because torch would start threads in each reading thread.
            features.numpy()[rows] = piece
            if slope is not None:
                slope.numpy()[rows] = piece_slope
        return Inputs(features, slope)

    def _pieces(
        self, stored: StoredFeatures, numbers: NDArray[np.int64]
    ) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]:
        for piece in stored.pieces():
            own = numbers[piece.rows]
            slope = self._scaler.slope(piece.features, own) if self._with_slope else np.empty(0)
            yield piece.rows, self._scaler(piece.features, own), slope
