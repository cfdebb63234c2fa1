"""A step of a group: a tile of every trial through its network and back, and the optimizer where a batch is over.

All of it is done by the device, which knows from `Slots` what each trial is at, so that it can be replayed.
"""

from typing import NamedTuple

import torch
from torch.nn.functional import pad

from bdqm_tune.learning.batched.epoch_schedule import NOTHING, TRAIN_AND_STEP, VALIDATE, Data, most_structures
from bdqm_tune.learning.batched.layout import views
from bdqm_tune.learning.batched.passes import Rows, backward, forward
from bdqm_tune.learning.batched.slots import Slots

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam, as torch has them


class Structures(NamedTuple):
    """Of a tile, for each slot; beyond the last one there are 0 atoms."""

    which: torch.Tensor  # (n_slots, n) of `Data`
    exists: torch.Tensor  # (n_slots, n)
    n_atoms: torch.Tensor  # (n_slots, n)
    stop: torch.Tensor  # (n_slots, n) after the last of its rows
    of_row: torch.Tensor  # (n_slots, tile) whose each row is; n after the last atom


class Step:
    """Call it to take a step."""

    def __init__(self, slots: Slots, data: Data, activation: str, tile: int) -> None:
        self._slots, self._data, self._layout, self._activation = slots, data, slots.layout, activation
        device = data.targets.device
        self._slot = torch.arange(self._layout.n_slots, device=device)
        self._place = torch.arange(most_structures(data, tile), device=device)
        self._row = torch.arange(tile, device=device).expand(self._layout.n_slots, tile).contiguous()
        self._parameters = slots.weights[0]
        self._by_layer = views(self._parameters, self._layout)
        self._gradient_by_layer = views(slots.gradient, self._layout)

    @torch.no_grad()
    def __call__(self) -> None:
        slots = self._slots
        begin, count, batch, what = slots.tiles[self._slot, slots.at][:, :, None].unbind(1)  # (n_slots, 1) each
        structures = self._structures(begin, count)
        validates = what == VALIDATE
        trains = (what != NOTHING) & ~validates
        rows = self._rows(structures, validates, trains)
        network = self._layout, self._activation, self._parameters, self._by_layer
        contributions, passed = forward(*network, slots.running, rows, slots.factors)
        slope = self._errors(structures, rows, contributions, trains, validates) / batch.clamp(min=1)
        outer = pad(slope, (0, 1)).gather(1, structures.of_row)
        backward(*network, rows, slots.factors, passed, outer, slots.gradient, self._gradient_by_layer)
        self._adam(what == TRAIN_AND_STEP)
        slots.at.add_(1).clamp_(max=slots.tiles.shape[1] - 1)

    def _structures(self, begin: torch.Tensor, count: torch.Tensor) -> Structures:
        exists = self._place < count
        which = self._slots.order.gather(1, (begin + self._place).clamp(max=len(self._data) - 1))
        n_atoms = self._data.n_atoms[which] * exists
        stop = n_atoms.cumsum(1)
        return Structures(which, exists, n_atoms, stop, torch.searchsorted(stop, self._row, right=True))

    def _rows(self, structures: Structures, validates: torch.Tensor, trains: torch.Tensor) -> Rows:
        train, validation = self._data.features
        total = structures.stop[:, -1:]
        inside = self._row < total
        owner = structures.of_row.clamp(max=len(self._place) - 1)
        shift = self._data.first[structures.which] - (structures.stop - structures.n_atoms)
        atom = torch.where(inside, shift.gather(1, owner) + self._row, 0)
        # Of one split the rows are not wanted, but any that exist do no harm.
        x = torch.where(
            validates[:, :, None],
            validation[(atom - len(train)).clamp(min=0)],
            train[atom.clamp(max=len(train) - 1)],
        )
        n_atoms = total[:, :, None].to(x.dtype)
        return Rows(x, inside[:, :, None].to(x.dtype), n_atoms, (trains & (total > 1))[:, :, None])

    def _errors(
        self,
        structures: Structures,
        rows: Rows,
        contributions: torch.Tensor,
        trains: torch.Tensor,
        validates: torch.Tensor,
    ) -> torch.Tensor:
        """Add the errors of the energies to the sums; returns derivatives (n_slots, n) of the losses' sums by them."""
        # Differences of a sum that runs over the rows: unlike sums at places, the same in every run.
        running = pad((contributions * rows.inside[:, :, 0]).cumsum(1, dtype=torch.float64), (1, 0))
        stop = structures.stop
        energies = running.gather(1, stop) - running.gather(1, stop - structures.n_atoms)
        error = energies - self._data.targets[structures.which]
        error = torch.where(structures.exists, error, 0)
        transition, per_atom = self._slots.options[:, 2:3], self._slots.options[:, 3:4] != 0
        size, n_atoms = error.abs(), structures.n_atoms.clamp(min=1)
        share = torch.where(per_atom, 1 / n_atoms.to(error.dtype), 1)
        own = error * share
        squared, beyond = transition == torch.inf, own.abs() >= transition
        width = torch.where(squared, 0.5, torch.where(transition > 0, transition, 1.0))
        loss = torch.where(beyond, own.abs() - transition / 2, own * own / (2 * width))
        by_error = torch.where(beyond, own.sign(), own / width)
        sums = [values.sum(1) for values in (loss, size, size / n_atoms)]
        errors = torch.stack([sums[0], sums[1], sums[1], sums[2]], 1)
        self._slots.sums.add_(torch.where(torch.cat([trains, trains, validates, validates], 1), errors, 0))
        return torch.where(trains, by_error * share, 0).to(contributions.dtype)

    def _adam(self, now: torch.Tensor) -> None:
        """A step of Adam or AdamW (Loshchilov and Hutter, arXiv:1711.05101) for the slots where it is time."""
        slots = self._slots
        parameters, first, second = slots.weights
        lr, decay, _, _, steps = slots.options.unsqueeze(2).unbind(1)
        steps.add_(now)
        taken = steps.clamp(min=1)
        size = lr / (1 - BETA1**taken) * now
        root = (1 - BETA2**taken).sqrt()
        lr, decay, size, root, now = (values.to(parameters.dtype) for values in (lr, decay, size, root, now))
        # Padding has a gradient where an activation of 0 is not 0.
        gradient = slots.gradient.mul_(slots.used)
        first.lerp_(gradient, (1 - BETA1) * now)
        second.lerp_(gradient * gradient, (1 - BETA2) * now)
        parameters.mul_(1 - lr * decay * now)
        parameters.sub_(first / (second.sqrt().div_(root).add_(EPSILON)) * size)
        gradient.mul_(1 - now)
