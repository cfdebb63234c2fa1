"""What a GPU does, without one: tensors of torch's device "meta" have shapes, but no values.

An operation on tensors of two devices fails here as it does there, and so does any that has to wait for a value, which
a step must not do to be captured.
"""

from typing import Any

import numpy as np
import pytest
import torch

from bdqm_tune.learning.batched.cuda_stream import DeviceStream
from bdqm_tune.learning.batched.epoch_schedule import Data, EpochSchedule
from bdqm_tune.learning.batched.layout import Layout
from bdqm_tune.learning.batched.passes import PART, VALUES
from bdqm_tune.learning.batched.slots import Job, Slots, State
from bdqm_tune.learning.batched.step import Step
from bdqm_tune.learning.batches import SplitTensors

META = torch.device("meta")


class MetaLine(DeviceStream):
    """Sends to that device."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))

    def send(self, values: Any) -> torch.Tensor:
        return super().send(values).to(META)


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


def test_the_check_sees_what_would_wait(data: Data) -> None:
    with pytest.raises(RuntimeError, match="item"):
        data.targets.sum().item()
    with pytest.raises(RuntimeError, match="device"):
        data.targets + torch.zeros(40)
