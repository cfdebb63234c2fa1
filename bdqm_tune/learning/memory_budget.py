"""How much of the data is kept on the device; the rest stays on the disk."""

import psutil
import torch

GIB = 2**30
# What a process takes besides: the libraries, the structures, the batches under way.
BESIDES = 1.5 * GIB
SHARE_OF_GPU = 0.6  # of the memory that is free; the rest is for networks and their batches


def free_memory(device: torch.device) -> int:
    """Bytes of the device that nobody uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


class MemoryBudget:
    """Bytes that features and derivatives may take on a device, given to whoever comes first."""

    def __init__(self, n_bytes: float) -> None:
        self.n_bytes, self.taken = n_bytes, 0.0

    @classmethod
    def on(cls, device: torch.device, memory: float, parts: int = 1) -> "MemoryBudget":
        """What there is on a device.

        Args:
            memory: resident memory, GiB, that a process which trains on the CPU may take in all.
            parts: in which it is divided; this is one.
        """
        if device.type == "cuda":
            return cls(SHARE_OF_GPU * free_memory(device) / parts)
        return cls(max(0.0, memory * GIB - BESIDES) / parts)

    def take(self, n_bytes: float) -> bool:
        """Whether so much more fits; if so it is taken."""
        if self.taken + n_bytes > self.n_bytes:
            return False
        self.taken += n_bytes
        return True
