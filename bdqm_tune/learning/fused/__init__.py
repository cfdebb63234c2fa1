"""Training of a network as one compiled function an epoch: many at once in threads, none waits for Python."""

from bdqm_tune.learning.fused.epochs import FusedEpochs, can_fuse

__all__ = ["FusedEpochs", "can_fuse"]
