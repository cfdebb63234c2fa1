"""The compiled (CPU) trainer: an epoch is one compiled function, so that threads do not wait for Python."""

from bdqm_tune.learning.compiled.epochs import CompiledEpochs, can_compile

__all__ = ["CompiledEpochs", "can_compile"]
