"""Trials whose networks can be batched: the same data, activation and batch normalisation."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch

from bdqm_tune.learning.batched.cuda_stream import DeviceStream, Received
from bdqm_tune.learning.batched.epoch_schedule import VALIDATE, Data
from bdqm_tune.learning.batched.layout import Layout
from bdqm_tune.learning.batched.slots import Job, Slots, State
from bdqm_tune.learning.batched.step import Step

SLOT_TIMEOUT = 0.25  # seconds that an idle slot is reserved for the next epoch of its trial


@dataclass(eq=False)
class Slot:
    """A place for networks of one depth."""

    widths: tuple[int, ...]  # of the hidden layers of the latest network in it
    drops: bool
    n_tiles: int
    job: Job | None = None
    places: Sequence[torch.Tensor] = ()
    state: State | None = None  # of its network, unless a job is changing it
    at: int = 0  # the next tile of the job
    left: float = 0.0  # when the latest job ended, s


class Group:
    """Takes a step of all its trials at a time.

    When a trial finds no slot, or a slot is no longer used, all slots are laid out again; the trials in the other slots
    continue where they are.
    """

    def __init__(self, data: Data, activation: str, batchnorm: bool, tile: int) -> None:
        self.waiting: list[Job] = []
        self._data, self._activation, self._batchnorm, self._tile = data, activation, batchnorm, tile
        self._stream = DeviceStream(data.targets.device)
        self._slots: list[Slot] = []  # the deepest first, as in the layout
        self._layout = Layout(data.n_features, [], [], batchnorm)
        self._memory: Slots | None = None
        self._step: Callable[[], None] | None = None
        self._leaving: list[tuple[Job, Received, State]] = []

    @property
    def is_busy(self) -> bool:
        """Whether a job waits, runs, or has results to return."""
        return bool(self.waiting or self._leaving or any(slot.job for slot in self._slots))

    @property
    def is_over(self) -> bool:
        """Whether there are neither jobs nor slots."""
        return not (self.is_busy or self._slots)

    def advance(self) -> bool:
        """Start waiting jobs, take a step of all, and return finished ones; whether there was a step."""
        steps = not self._stream.is_full
        if steps:
            with self._stream.active():
                self._arrange()
                steps = any(slot.job for slot in self._slots)
                if steps:
                    self._take_step()
        while self._leaving and self._leaving[0][1].is_ready:
            job, sums, state = self._leaving.pop(0)
            if job.ended.set_running_or_notify_cancel():
                job.ended.set_result((sums.wait(), state))
        return steps

    def fail(self, error: BaseException) -> None:
        """Fail all jobs with an error, and remove them."""
        jobs = [*self.waiting, *(job for job, _, _ in self._leaving), *(slot.job for slot in self._slots if slot.job)]
        self.waiting, self._leaving, self._slots, self._memory, self._step = [], [], [], None, None
        for job in jobs:
            if not job.ended.done():
                job.ended.set_exception(error)

    def _take_step(self) -> None:
        assert self._step is not None
        for number, slot in enumerate(self._slots):
            if slot.job is not None and slot.drops:
                self._draw(number, slot, slot.job)
        self._step()
        self._stream.stepped()
        for number, slot in enumerate(self._slots):
            if slot.job is not None:
                slot.at += 1
                if slot.at == len(slot.job.schedule.tiles):
                    self._end(number, slot, slot.job)

    def _draw(self, number: int, slot: Slot, job: Job) -> None:
        """Draw the dropout of the slot's tile, with random numbers that do not depend on other trials."""
        assert self._memory is not None
        factor = self._memory.factors[number]
        assert factor is not None
        if job.schedule.tiles[slot.at, 3] == VALIDATE:
            factor.fill_(1)
            return
        mask = factor.new_empty(self._tile, sum(slot.widths)).bernoulli_(1 - job.dropout, generator=job.generator)
        factor.index_copy_(1, slot.places[2], mask.div_(1 - job.dropout))

    def _end(self, number: int, slot: Slot, job: Job) -> None:
        assert self._memory is not None
        slot.state = self._memory.take(number, slot.places[:2], job.state.steps + job.schedule.n_batches)
        # The event of the sums comes after the copy of the state, which the trial reads in another stream.
        sums = self._stream.receive(self._memory.sums[number])
        self._leaving.append((job, sums, slot.state))
        slot.job, slot.left = None, time.monotonic()

    def _arrange(self) -> None:
        """Give every job that waits a slot."""
        if self.waiting:
            self._stream.after_others()
        for cancelled in (slot for slot in self._slots if slot.job is not None and slot.job.ended.cancelled()):
            cancelled.job, cancelled.left = None, -math.inf
        waiting = []
        for job in self.waiting:
            if job.ended.cancelled():
                continue
            slot = self._free_slot(job)
            if slot is None:
                waiting.append(Slot(job.widths, job.dropout > 0, len(job.schedule.tiles), job))
            else:
                self._begin(slot, job)
        self.waiting = []
        now = time.monotonic()
        used = [slot for slot in self._slots if slot.job or now - slot.left < SLOT_TIMEOUT]
        if waiting or len(used) < len(self._slots):
            self._lay_out(used, waiting)

    def _free_slot(self, job: Job) -> Slot | None:
        fitting = [
            slot
            for slot in self._slots
            if slot.job is None
            and slot.left > -math.inf
            and (len(slot.widths), slot.drops) == (len(job.widths), job.dropout > 0)
            and self._layout.fits(job.widths)
            and len(job.schedule.tiles) <= self._n_tiles
        ]
        return min(fitting, key=lambda slot: slot.state is not job.state, default=None)

    @property
    def _n_tiles(self) -> int:
        return 0 if self._memory is None else self._memory.tiles.shape[1] - 1

    def _begin(self, slot: Slot, job: Job) -> None:
        assert self._memory is not None
        number = self._slots.index(slot)
        if slot.state is not job.state:
            self._fill(number, slot, job.widths, job.state)
        slot.job, slot.state, slot.at = job, None, 0
        slot.n_tiles = len(job.schedule.tiles)
        self._memory.begin(number, job)

    def _fill(
        self, number: int, slot: Slot, widths: tuple[int, ...], state: State, gradient: torch.Tensor | None = None
    ) -> None:
        assert self._memory is not None
        slot.widths = widths
        columns = self._stream.send(self._layout.columns(widths))
        slot.places = [*self._memory.send(self._layout.places(widths)), columns]
        self._memory.put(number, slot.places[:2], state, gradient)

    def _lay_out(self, used: list[Slot], new: list[Slot]) -> None:
        """Allocate the slots again, with the content of the used ones."""
        before, numbers = self._memory, {slot: number for number, slot in enumerate(self._slots)}
        # The captured graph holds memory, which is free for the next once its last steps are done.
        self._stream.finish()
        self._step, self._slots = None, sorted([*used, *new], key=lambda slot: -len(slot.widths))
        if not self._slots:
            self._memory = None
            return
        widths = [max(column) for column in zip_longest(*(slot.widths for slot in self._slots), fillvalue=0)]
        # An epoch in another order may have some more.
        n_tiles = 1 << max(slot.n_tiles for slot in self._slots).bit_length()
        self._layout = Layout(
            self._data.n_features, [len(slot.widths) for slot in self._slots], widths, self._batchnorm
        )
        self._memory = Slots(
            self._layout, self._data, self._tile, n_tiles, [slot.drops for slot in self._slots], self._stream
        )
        for number, slot in enumerate(self._slots):
            if slot not in numbers:
                assert slot.job is not None
                self._begin(slot, slot.job)
                continue
            assert before is not None
            its, parameters = numbers[slot], slot.places[0]
            gradient = before.gradient[its, parameters]
            self._fill(number, slot, slot.widths, before.take(its, slot.places[:2], 0), gradient)
            self._memory.resume(number, before, its)
        self._step = self._stream.replayed(Step(self._memory, self._data, self._activation, self._tile))
