"""How steps are handed to a GPU: replayed once they are captured, and as before where that fails."""

import warnings
from collections.abc import Callable

import pytest
import torch

from bdqm_tune.learning.batched.cuda_stream import AHEAD, WARM_UP, DeviceStream, Replayed


class Recorded:
    """What a captured step is here."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def replay(self) -> None:
        self._calls.append("replayed")


def test_a_step_is_captured_after_it_has_warmed_up() -> None:
    calls: list[str] = []

    def capture(step: Callable[[], None]) -> Recorded:
        calls.append("captured")
        return Recorded(calls)

    step = Replayed(lambda: calls.append("called"), capture)
    for _ in range(WARM_UP + 2):
        step()
    assert calls == ["called"] * WARM_UP + ["captured", "replayed", "replayed"]


def test_where_capture_fails_steps_go_on_with_one_warning() -> None:
    calls: list[str] = []

    def capture(step: Callable[[], None]) -> Recorded:
        raise RuntimeError("operation not permitted")

    step = Replayed(lambda: calls.append("called"), capture)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(WARM_UP + 3):
            step()
    assert calls == ["called"] * (WARM_UP + 3)
    assert [str(each.message) for each in found] == [
        "steps on the GPU are not captured as a CUDA graph, and so slower: operation not permitted"
    ]


class Event:
    """Of a GPU: whether it has come so far."""

    def __init__(self) -> None:
        self.done = False

    def query(self) -> bool:
        return self.done


def test_a_line_is_full_while_too_many_steps_are_left_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []

    class Stream:
        def record_event(self) -> Event:
            events.append(Event())
            return events[-1]

    line = DeviceStream(torch.device("cpu"))
    monkeypatch.setattr(line, "_stream", Stream())
    for _ in range(AHEAD):
        assert not line.is_full
        line.stepped()
    assert line.is_full
    events[0].done = events[1].done = True
    assert not line.is_full
    line.stepped()
    line.stepped()
    assert line.is_full


def test_on_the_cpu_steps_are_plain_calls_and_nothing_is_waited_for() -> None:
    line, calls = DeviceStream(torch.device("cpu")), list[int]()
    step = line.replayed(lambda: calls.append(1))
    for _ in range(3 * AHEAD):
        step()
        line.stepped()
    assert len(calls) == 3 * AHEAD
    assert not line.is_full
    sums = torch.tensor([1.0, 2.0])
    received = line.receive(sums)
    sums.zero_()
    assert received.is_ready
    assert received.wait() == [1.0, 2.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
def test_on_a_gpu_replayed_steps_do_what_called_ones_do() -> None:
    device = torch.device("cuda")
    line, count = DeviceStream(device), torch.zeros(1, device=device)
    with line.active():
        line.after_others()
        step = line.replayed(lambda: count.add_(1))  # type: ignore[arg-type,return-value]
        for _ in range(WARM_UP + 5):
            step()
        received = line.receive(count)
    assert received.wait() == [WARM_UP + 5]
