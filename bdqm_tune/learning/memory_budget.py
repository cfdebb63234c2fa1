"""The memory budget of a device for data; what exceeds it stays on the disk."""

import psutil
import torch

GIB = 2**30
# What a process takes besides: the libraries, the structures, the current batches.
BESIDES = 1.5 * GIB
SHARE_OF_GPU = 0.6  # of the memory that is free; the rest is for networks and their batches


def free_memory(device: torch.device) -> int:
    """Free memory of the device, bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


class MemoryBudget:
    """Bytes that features and derivatives may take on a device, first come, first served."""

    def __init__(self, n_bytes: float) -> None:
        self.n_bytes, self.taken = n_bytes, 0.0

    @classmethod
    def on(cls, device: torch.device, memory: float, parts: int = 1) -> "MemoryBudget":
        """The budget of a device: a share of a GPU's free memory, or `memory` on the CPU.

        Args:
            memory: GiB, all the resident memory of a process that trains on the CPU.
            parts: equal parts of the budget, of which this is one.
        """
        if device.type == "cuda":
            return cls(SHARE_OF_GPU * free_memory(device) / parts)
        return cls(max(0.0, memory * GIB - BESIDES) / parts)

    def take(self, n_bytes: float) -> bool:
        """Reserve `n_bytes`; False, and nothing is reserved, if they do not fit."""
        if self.taken + n_bytes > self.n_bytes:
            return False
        self.taken += n_bytes
        return True
