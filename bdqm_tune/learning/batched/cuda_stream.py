"""A stream of work on a device: on a GPU a CUDA stream, with steps replayed as a CUDA graph; on the CPU plain calls."""

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

AHEAD = 16  # steps queued on a GPU, at most
SHORT = 0.25  # share of a GPU's memory; with less of it free, cached memory is returned before a capture
WARM_UP = 8  # steps of a layout before it is captured: libraries initialise, and short-lived layouts are not worth it


class Received(NamedTuple):
    """A tensor on the way to the CPU."""

    values: torch.Tensor
    event: Any  # after which it is complete; None: it is

    @property
    def is_ready(self) -> bool:
        return self.event is None or bool(self.event.query())

    def wait(self) -> list[float]:
        if self.event is not None:
            self.event.synchronize()
        return [float(value) for value in self.values.tolist()]


class DeviceStream:
    """Work on a device in order, concurrent with other streams."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device) if device.type == "cuda" else None
        self._behind: deque[Any] = deque()

    def active(self) -> AbstractContextManager[Any]:
        """In this block, torch's work goes to the stream."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def after_others(self) -> None:
        """Wait, on the device, for the work on its default stream so far."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.default_stream(self._device))

    def send(self, values: NDArray[Any] | Sequence[float]) -> torch.Tensor:
        """Copy numbers to the device, without waiting for it."""
        tensor = torch.from_numpy(np.asarray(values))
        return tensor if self._stream is None else tensor.pin_memory().to(self._device, non_blocking=True)

    def receive(self, tensor: torch.Tensor) -> Received:
        """Copy a tensor to the CPU, after the work on the stream so far."""
        if self._stream is None:
            return Received(tensor.clone(), None)
        values = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        values.copy_(tensor, non_blocking=True)
        return Received(values, self._stream.record_event())

    def stepped(self) -> None:
        """Record that a step was queued."""
        if self._stream is not None:
            self._behind.append(self._stream.record_event())

    @property
    def is_full(self) -> bool:
        """Whether `AHEAD` queued steps are unfinished."""
        while self._behind and self._behind[0].query():
            self._behind.popleft()
        return len(self._behind) >= AHEAD

    def finish(self) -> None:
        """Wait until all work is done."""
        if self._stream is not None:
            self._stream.synchronize()

    def replayed(self, step: Callable[[], None]) -> Callable[[], None]:
        """The step: on a GPU captured as a CUDA graph and replayed, on the CPU as it is."""
        return step if self._stream is None else Replayed(step, capture)


class Graph(Protocol):
    def replay(self) -> None: ...


class Replayed:
    """A step that is captured after some calls, and then replayed; where that fails, it is called as before."""

    def __init__(self, step: Callable[[], None], capture: Callable[[Callable[[], None]], Graph]) -> None:
        self._step, self._capture, self._calls = step, capture, 0
        self._graph: Graph | None = None

    def __call__(self) -> None:
        if self._graph is not None:
            self._graph.replay()
            return
        self._step()
        self._calls += 1
        if self._calls == WARM_UP:
            try:
                self._graph = self._capture(self._step)
            except RuntimeError as error:
                warnings.warn(
                    f"steps on the GPU are not captured as a CUDA graph, and so slower: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )


def capture(step: Callable[[], None]) -> Graph:
    """Capture a step as a CUDA graph in the active stream, without running it.

    `torch.cuda.graph` would wait for all streams and return cached memory each time, which would stop all other
    groups. It is done here only where memory is short: while a graph is captured, torch cannot free any.
    """
    free, total = torch.cuda.mem_get_info()
    if free < SHORT * total:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the GPU meanwhile, as for the weights of a trial that has ended.
    graph.capture_begin(capture_error_mode="thread_local")
    try:
        step()
    except BaseException:
        with suppress(RuntimeError):  # the step's error says more
            graph.capture_end()
        raise
    graph.capture_end()
    return graph
