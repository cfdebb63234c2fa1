"""Forces by the chain rule: from the network's gradient and the features' derivatives, entry by entry.

The force on atom k is F_k = -Σ_i Σ_f dE/dG_if · dG_if/dr_k, the sum over the centres i that feel atom k. What is kept
and computed grows with the pairs of neighbours, never with the square of the number of atoms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bdqm_tune.descriptors import StoredDerivatives

# Derivatives of a split up to this size are copied to the device; larger ones are read from the disk batch by batch.
BYTES_ON_DEVICE = 4 * 2**30


@dataclass(frozen=True)
class ForceBatch:
    """The derivatives and the forces of some structures."""

    centre: torch.Tensor  # (n_entries,) atom of the batch whose features change
    atom: torch.Tensor  # (n_entries,) atom of the batch that is moved
    values: torch.Tensor  # (n_entries, 3, n_features) of the unscaled features, 1/Å
    slope: torch.Tensor  # (n_atoms, n_features) of the scaled features by the unscaled ones
    targets: torch.Tensor  # (n_atoms, 3), 1/Å: in units of the energy scale

    def forces(self, gradient: torch.Tensor) -> torch.Tensor:
        """Forces (n_atoms, 3), 1/Å, from the gradient (n_atoms, n_features) of the energy by the scaled features."""
        felt = (gradient * self.slope).index_select(0, self.centre)
        pulls = torch.bmm(self.values, felt[:, :, None])[:, :, 0]
        return -gradient.new_zeros(len(gradient), 3).index_add(0, self.atom, pulls)


class ForceTensors:
    """Forces and derivatives of a split."""

    def __init__(
        self,
        forces: NDArray[np.float64],
        slope: NDArray[np.float64],
        derivatives: StoredDerivatives,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """
        Args:
            forces: (total atoms, 3), 1/Å, in units of the energy scale.
            slope: (total atoms, n_features) of the scaled features by the unscaled ones.
            derivatives: of the split's structures.
        """
        self._targets = torch.as_tensor(forces, dtype=dtype, device=device)
        self._slope = torch.as_tensor(slope, dtype=dtype, device=device)
        self._count = derivatives.count.tolist()
        self._first = derivatives.first.tolist()
        self._pairs = torch.as_tensor(np.stack([derivatives.centre, derivatives.atom], axis=1), device=device)
        self._values = torch.as_tensor(derivatives.values).transpose(1, 2)
        n_entries, n_features = int(derivatives.count.sum()), derivatives.values.shape[1]
        self.numbers_an_image = 3 * n_features * n_entries / max(1, len(self._count))
        self.loaded = 3 * n_features * n_entries * dtype.itemsize <= BYTES_ON_DEVICE
        if self.loaded:
            self._load(device, dtype)

    def _load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring the split's own entries to the device, one after the other."""
        values = torch.empty((sum(self._count), *self._values.shape[1:]), dtype=dtype)
        pairs, first, place = [], [], 0
        for begin, count in zip(self._first, self._count, strict=True):
            values[place : place + count] = self._values[begin : begin + count]
            pairs.append(self._pairs[begin : begin + count])
            first.append(place)
            place += count
        self._values, self._pairs, self._first = values.to(device), torch.cat(pairs), first

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What was loaded, as `fused.kernel.Data` holds it."""
        pairs = self._pairs.numpy()
        return (
            np.array(self._first, dtype=np.int64),
            np.array(self._count, dtype=np.int64),
            np.ascontiguousarray(pairs[:, 0]),
            np.ascontiguousarray(pairs[:, 1]),
            self._values.numpy(),
            self._slope.numpy(),
            self._targets.numpy(),
        )

    def batch(self, structures: Sequence[int], start: torch.Tensor, atoms: torch.Tensor) -> ForceBatch:
        """The structures at these indices, in this order.

        Args:
            start: (n_structures,) place in the batch of each structure's first atom.
            atoms: (n_atoms,) place in the split of each of the batch's atoms.
        """
        counts = [self._count[i] for i in structures]
        pieces = [slice(self._first[i], self._first[i] + n) for i, n in zip(structures, counts, strict=True)]
        shift = torch.repeat_interleave(start, torch.tensor(counts, device=start.device), output_size=sum(counts))
        pairs = torch.cat([self._pairs[piece] for piece in pieces]) + shift[:, None]
        values = torch.cat([self._values[piece] for piece in pieces]).to(self._slope.device, self._slope.dtype)
        return ForceBatch(pairs[:, 0], pairs[:, 1], values, self._slope[atoms], self._targets[atoms])
