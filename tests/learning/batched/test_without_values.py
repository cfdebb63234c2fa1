"""What a GPU does, without one: tensors of torch's device "meta" have shapes, but no values.

An operation on tensors of two devices fails here as it does there, and so does any that has to wait for a value, which
a step must not do to be captured.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bdqm_tune.learning.batched import group
from bdqm_tune.learning.batched.cuda_stream import DeviceStream, Received
from bdqm_tune.learning.batched.epoch_schedule import Data, EpochSchedule
from bdqm_tune.learning.batched.layout import Layout
from bdqm_tune.learning.batched.passes import PART, VALUES
from bdqm_tune.learning.batched.slots import Job, Slots, State
from bdqm_tune.learning.batched.step import Step
from bdqm_tune.learning.batches import SplitTensors
from tests.learning.waiting import META, NoWaits


class MetaLine(DeviceStream):
    """Sends to that device, and notes what comes in which order."""

    def __init__(self, device: torch.device | None = None) -> None:
        super().__init__(torch.device("cpu"))
        self.order: list[str] = []

    def send(self, values: Any) -> torch.Tensor:
        return super().send(values).to(META, non_blocking=True)

    def receive(self, tensor: torch.Tensor) -> Received:
        assert tensor.device == META
        self.order.append("event")
        return Received(torch.zeros(tensor.shape), None)


@pytest.fixture
def data() -> Data:
    """40 structures of 10 atoms on it, 30 of them to train on."""
    splits = [
        SplitTensors(np.zeros((10 * n, 5)), np.full(n, 10), np.zeros(n), torch.device("cpu"), torch.float32)
        for n in (30, 10)
    ]
    made = Data(*splits)
    made.features = torch.zeros(300, 5, device=META), torch.zeros(100, 5, device=META)
    for name in ("n_atoms", "first", "targets"):
        setattr(made, name, getattr(made, name).to(META))
    return made


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("activation", list(VALUES))
def test_a_step_stays_on_the_device_and_waits_for_nothing(
    data: Data, activation: str, batchnorm: bool, drops: bool
) -> None:
    layout = Layout(5, depths=[3, 2, 2], widths=[4, 6, 2], batchnorm=batchnorm)
    slots = Slots(layout, data, PART, 8, [drops, False, drops], MetaLine())
    step = Step(slots, data, activation, PART)
    with NoWaits():
        step()
    assert {tensor.device for tensor in (slots.weights, slots.running, slots.sums, slots.at)} == {META}


def test_networks_are_put_and_taken_without_waiting(data: Data) -> None:
    layout, line = Layout(5, depths=[2, 1], widths=[4, 6], batchnorm=True), MetaLine()
    slots, others = (Slots(layout, data, PART, n, [False, False], line) for n in (8, 16))
    places = layout.places([4, 6])
    state = State(torch.zeros(3, len(places.parameters), device=META), torch.zeros(20, device=META), 0)
    plan = EpochSchedule(data, torch.arange(0), [], PART, whole=True)
    sent = slots.send(places)
    slots.put(0, sent, state)
    slots.begin(0, Job((4, 6), state, plan, lr=0.1, decay=0.0, transition=0.0, per_atom=True))
    taken = slots.take(0, sent, 0)
    assert (taken.weights.shape, taken.weights.device) == (state.weights.shape, META)
    others.put(1, sent, taken, slots.gradient[0, sent[0]])
    others.resume(1, slots, 0)


Jobs = Callable[..., Job]


@pytest.fixture
def job(data: Data) -> Jobs:
    """Makes epochs of trials with batch normalisation."""

    def made(widths: tuple[int, ...], dropout: float) -> Job:
        places = Layout(5, [len(widths)], widths, batchnorm=True).places(widths)
        state = State(torch.zeros(3, len(places.parameters), device=META), torch.zeros(2 * sum(widths), device=META), 0)
        schedule = EpochSchedule(data, torch.arange(data.n_train), [10, 10, 10], PART, whole=True)
        return Job(widths, state, schedule, lr=0.1, decay=0.0, transition=0.0, per_atom=True, dropout=dropout)

    return made


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_an_epoch_of_a_group_is_queued_without_waiting(
    data: Data, job: Jobs, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another trial joins it, for which the slots are laid out again."""
    monkeypatch.setattr(group, "DeviceStream", MetaLine)
    trials, jobs = group.Group(data, "tanh", True, PART), [job((4, 6), dropout), job((3, 5, 7), 0.0)]
    with NoWaits():
        for each in jobs:
            trials.waiting.append(each)
            assert trials.advance()
        while not all(each.ended.done() for each in jobs):
            assert trials.advance()
    for each in jobs:
        _, state = each.ended.result()
        assert (state.weights.shape, state.steps) == (each.state.weights.shape, 3)


def test_an_epoch_has_ended_when_its_weights_are_copied(data: Data, job: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event that says so is recorded last: until then, the trial does not read the weights in its own stream."""
    line, take = MetaLine(), Slots.take

    def taken(*arguments: Any) -> State:
        line.order.append("weights")
        return take(*arguments)

    monkeypatch.setattr(group, "DeviceStream", lambda device: line)
    monkeypatch.setattr(Slots, "take", taken)
    trials, only = group.Group(data, "tanh", True, PART), job((4, 6), 0.0)
    trials.waiting.append(only)
    while not only.ended.done():
        trials.advance()
    assert line.order == ["weights", "event"]


def test_a_value_that_is_read_in_a_step_fails_it(data: Data, job: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "DeviceStream", MetaLine)
    monkeypatch.setattr(Step, "_adam", lambda self, now: now.any().item())
    trials = group.Group(data, "tanh", True, PART)
    trials.waiting.append(job((4, 6), 0.0))
    with NoWaits(), pytest.raises(RuntimeError, match="item"):
        trials.advance()
