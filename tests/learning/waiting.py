"""A GPU that must not be waited for, without one: torch's device "meta", whose tensors have shapes but no values.

Whatever reads a value raises there, and so does an operation on tensors of two devices. `NoWaits` adds what that device
lets pass: indices on the CPU and blocking copies to the device, for both of which a GPU's stream is synchronised. Fake
tensors of device `cuda` would see the same, but autograd aborts the process with them where torch is built for the CPU.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

META = torch.device("meta")


class WaitsForDevice(AssertionError):
    """An operation for which a GPU would be waited for."""


class NoWaits(TorchFunctionMode):
    """In this block such operations raise WaitsForDevice."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name in ("__getitem__", "__setitem__") and is_meta(args[0]) and reads_cpu(args[1]):
            raise WaitsForDevice(f"{name}: an index on the CPU is copied to the device")
        if name == "copy_" and is_meta(args[0]) and not is_meta(args[1]) and not kwargs.get("non_blocking"):
            raise WaitsForDevice("copy_ from the CPU")
        result = function(*args, **kwargs)
        copies = name in ("tensor", "as_tensor") or (name == "to" and not is_meta(args[0]))
        if copies and is_meta(result) and not kwargs.get("non_blocking"):
            raise WaitsForDevice(f"{name}: copies to the device")
        return result


def is_meta(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device == META


def reads_cpu(index: Any) -> bool:
    """Whether an index has a list or a tensor that is not on the device."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, list) or (isinstance(part, torch.Tensor) and not is_meta(part)) for part in parts)
