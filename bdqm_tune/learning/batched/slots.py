"""The memory of batched networks: their states, and the progress of each in its epoch."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from bdqm_tune.learning.batched.cuda_stream import DeviceStream
from bdqm_tune.learning.batched.epoch_schedule import FIELDS, Data, EpochSchedule
from bdqm_tune.learning.batched.layout import Layout, Places


class State(NamedTuple):
    """What training changes of one network, on the device and without padding."""

    weights: torch.Tensor  # (3, n_parameters) and their first and second moments, as Adam has them
    running: torch.Tensor  # means and variances of batch normalisation
    steps: int  # of the optimizer


@dataclass(eq=False)
class Job:
    """An epoch of one trial: its steps, and the validation after them."""

    widths: tuple[int, ...]  # of the hidden layers
    state: State
    schedule: EpochSchedule
    lr: float
    decay: float
    transition: float  # of the loss, see `losses.transition`
    per_atom: bool  # of energies per atom, else of whole structures
    dropout: float = 0.0  # share of the nodes that are left out
    generator: torch.Generator | None = None  # of dropout
    ended: Future[tuple[list[float], State]] = field(default_factory=Future)  # the sums, and the state afterwards


class Slots:
    """Tensors whose rows, or matrices for `weights`, belong to a slot each."""

    def __init__(
        self, layout: Layout, data: Data, tile: int, n_tiles: int, dropping: Sequence[bool], stream: DeviceStream
    ) -> None:
        """
        Args:
            n_tiles: of the longest epoch.
            dropping: which slots are for networks with dropout.
        """
        n, device, dtype = layout.n_slots, data.targets.device, data.dtype
        self.layout, self._stream = layout, stream
        self.weights = torch.zeros(3, n, layout.n_parameters, dtype=dtype, device=device)
        self.gradient = torch.zeros_like(self.weights[0])
        self.used = torch.zeros_like(self.gradient)  # 1 where a number is no padding
        self.running = torch.zeros(n, layout.n_running, dtype=dtype, device=device)
        self.order = torch.zeros(n, len(data), dtype=torch.int64, device=device)
        self.tiles = torch.zeros(n, n_tiles + 1, FIELDS, dtype=torch.int64, device=device)  # the last ones do nothing
        self.at = torch.full((n,), n_tiles, device=device)  # the next tile of each
        self.sums = torch.zeros(n, 4, dtype=torch.float64, device=device)
        self.options = torch.zeros(n, 5, dtype=torch.float64, device=device)  # lr, decay, transition, per atom, steps
        self.factors = [
            torch.ones(tile, layout.n_nodes, dtype=dtype, device=device) if drops else None for drops in dropping
        ]

    def send(self, places: Places) -> list[torch.Tensor]:
        """Indices on the device, for `put` and `take`."""
        return [self._stream.send(part) for part in places]

    def put(
        self, slot: int, places: Sequence[torch.Tensor], state: State, gradient: torch.Tensor | None = None
    ) -> None:
        """Set a slot's numbers; all else in it becomes zero."""
        parameters, running = places
        weights, its_gradient, used = self.weights[:, slot], self.gradient[slot], self.used[slot]
        for flat in (weights, its_gradient, used, self.running[slot]):
            flat.zero_()
        weights.index_copy_(1, parameters, state.weights)
        used.index_fill_(0, parameters, 1)
        if gradient is not None:
            its_gradient.index_copy_(0, parameters, gradient)
        self.running[slot].index_copy_(0, running, state.running)

    def take(self, slot: int, places: Sequence[torch.Tensor], steps: int) -> State:
        """A slot's numbers without padding."""
        parameters, running = places
        return State(self.weights[:, slot, parameters], self.running[slot, running], steps)

    def begin(self, slot: int, job: Job) -> None:
        """Begin an epoch with what is in the slot."""
        schedule = job.schedule
        self.order[slot, : len(schedule.order)].copy_(self._stream.send(schedule.order))
        self.tiles[slot].zero_()
        self.tiles[slot, : len(schedule.tiles)].copy_(self._stream.send(schedule.tiles))
        options = [job.lr, job.decay, job.transition, job.per_atom, job.state.steps]
        self.options[slot].copy_(self._stream.send(options))
        self.at[slot].zero_()
        self.sums[slot].zero_()

    def resume(self, slot: int, before: "Slots", its_slot: int) -> None:
        """Continue the epoch of a slot of other slots."""
        self.tiles[slot].zero_()
        n = min(before.tiles.shape[1], self.tiles.shape[1])
        self.tiles[slot, :n].copy_(before.tiles[its_slot, :n])
        for name in ("order", "at", "sums", "options"):
            getattr(self, name)[slot].copy_(getattr(before, name)[its_slot])
        self.at[slot].clamp_(max=self.tiles.shape[1] - 1)  # one without a job is after all tiles that it had
