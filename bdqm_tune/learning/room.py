"""How much of the data is kept on the device; the rest stays on the disk."""

import torch

GIB = 2**30
# What a process takes besides: the libraries, the structures, the batches under way.
BESIDES = 1.5 * GIB
SHARE_OF_GPU = 0.6  # of the memory that is free; the rest is for networks and their batches


class Room:
    """Bytes that features and derivatives may take on a device, given to whoever comes first."""

    def __init__(self, n_bytes: float) -> None:
        self._left = n_bytes

    @classmethod
    def on(cls, device: torch.device, memory: float) -> "Room":
        """What there is on a device.

        Args:
            memory: resident memory, GiB, that a process which trains on the CPU may take in all.
        """
        if device.type == "cuda":
            return cls(SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0])
        return cls(memory * GIB - BESIDES)

    def take(self, n_bytes: float) -> bool:
        """Whether so much more fits; if so it is taken."""
        if n_bytes > self._left:
            return False
        self._left -= n_bytes
        return True
