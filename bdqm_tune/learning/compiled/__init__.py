"""Training of a network as one compiled function an epoch: many at once in threads, none waits for Python."""

from bdqm_tune.learning.compiled.epochs import CompiledEpochs, can_compile

__all__ = ["CompiledEpochs", "can_compile"]
