"""How steps are handed to a GPU: replayed once they are captured, and as before where that fails."""

import warnings
from collections.abc import Callable

import pytest
import torch

from bdqm_tune.learning.batched.cuda_stream import AHEAD, WARM_UP, DeviceStream, Replayed, capture


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


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a capture calls of torch.cuda, where half of the memory is free."""
    made: list[str] = []

    class CUDAGraph:
        def capture_begin(self, capture_error_mode: str) -> None:
            made.append(f"begin {capture_error_mode}")

        def capture_end(self) -> None:
            made.append("end")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", CUDAGraph)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (50, 100))
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: made.append(name))
    return made


def test_a_capture_does_not_wait_for_other_streams(calls: list[str]) -> None:
    capture(lambda: calls.append("step"))
    assert calls == ["begin thread_local", "step", "end"]


def test_where_memory_is_short_it_is_returned_before_a_capture(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (20, 100))
    capture(lambda: calls.append("step"))
    assert calls == ["synchronize", "empty_cache", "begin thread_local", "step", "end"]


def test_a_step_that_cannot_be_captured_ends_the_capture_with_its_own_error(calls: list[str]) -> None:
    def step() -> None:
        raise RuntimeError("operation not permitted")

    with pytest.raises(RuntimeError, match="operation not permitted"):
        capture(step)
    assert calls == ["begin thread_local", "end"]


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
